#pragma once
#include "templates/family.hpp"

namespace glaive {

/// The multiplicative hierarchical scan, one chunk of C tokens at a time. With e_t = exp(g_t), for block sizes b = 1, 2
/// .. C/2:
///   P_b(t) = product of e from the block's start to t,   R_b(s) = product of e from s+1 to the block's end,
///   A[t,s] = (q_t P_b(t)) . (k_s R_b(s))  for t in the second and s in the first half of a 2b-block,   A[t,t] = q_t .
///   k_t,
/// and at b = C:  o = (q P) S + A v,   S = Diag(total) S + (k R)^T v.
/// All factors are <= 1: nothing overflows, underflow is the right answer, g = -inf is legal.
const Family& chunk_family();

}  // namespace glaive
