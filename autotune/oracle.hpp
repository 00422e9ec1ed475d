#pragma once
#include <span>
#include <vector>

#include "autotune/inputs.hpp"

namespace glaive {

/// o and the final states by the recurrence in float64, token by token:
///   S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,  o_t = scale * S_t^T q_t
/// A sequence without tokens ends in its initial state. Where nothing may be written (padding, slots of nobody) the
/// expectation is a NaN.
struct Expected {
  std::vector<double> o;      ///< laid out as Call::o
  std::vector<double> state;  ///< laid out as Call::state_out
};
Expected oracle(const Call& call);

/// The same for a few heads of a call too large for all.
struct Pick {
  std::int64_t sequence = 0, kv_head = 0;
};
struct ExpectedHead {
  Pick pick;
  std::vector<double> o;      ///< [tokens, H/Hkv, V]
  std::vector<double> state;  ///< [K,V]
};
std::vector<ExpectedHead> oracle(const Call& call, std::span<const Pick> picks);

/// Relative errors, as relative_error has them, of what the call's memory holds of these heads.
struct Errors {
  double o = 0, state = 0;
};
Errors errors_of(const Call& call, std::span<const ExpectedHead> heads);

/// ||got - want||_F / ||want||_F over the elements that `want` has a number for; 0 when both are zero, infinity when
/// `got` has a NaN or want is zero and got is not.
double relative_error(std::span<const float> got, std::span<const double> want);
/// The same, of the squares of both norms.
double relative_error(double difference, double norm);

}  // namespace glaive
