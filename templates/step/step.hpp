#pragma once
#include "templates/family.hpp"

namespace glaive {

/// Decode, one to eight tokens of every sequence: S = Diag(exp(g_t)) S + k_t v_t^T, o_t = scale * S^T q_t with the
/// state streamed from memory once per `pass` tokens, row by row in either layout, in place or from slot to slot. All
/// that costs time is the traffic of the state.
const Family& step_family();

/// The same on GPUs: a CTA keeps its columns of a head's state in registers from the first token to the last, so that
/// the state is read once and written once whatever T is. See step.cuh.
const Family& cuda_step_family();

}  // namespace glaive
