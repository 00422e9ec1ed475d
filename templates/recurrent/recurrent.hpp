#pragma once
#include "templates/family.hpp"

namespace glaive {

/// Token by token, as the definition reads: S = Diag(exp(g_t)) S + k_t v_t^T, o_t = scale * S^T q_t. V is cut into
/// panels whose outputs stay in registers over the K loop; a panel of S stays in the first cache over a block of
/// tokens, and `pass` tokens are applied to a row of S while it is in registers.
const Family& recurrent_family();

}  // namespace glaive
