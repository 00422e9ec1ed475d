#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "autotune/verify.hpp"
#include "tests/catch.hpp"

namespace glaive::test {

inline Case parse(const std::string& line) {
  auto parsed = parse_case(line);
  if (not parsed) FAIL(parsed.error().pointing_at(line));
  return *parsed;
}

/// One mistake that a kernel can make.
enum class Bug {
  none,
  skips_last_token,   ///< of every sequence
  decays_late,        ///< uses the decay of the token before
  reads_state_early,  ///< o_t from S_{t-1}
  never_stores_state,
  ignores_initial_state,
  forgets_zero_slots,  ///< slot -1 read as slot 0
  wrong_head,          ///< h % Hkv instead of h / (H / Hkv)
  assumes_contiguous,  ///< ignores the token strides
  transposes_state,
  one_output_unwritten,
  one_nan,
  writes_before_o,
  writes_after_state,
  writes_padding,
  writes_input,
  one_element_off,        ///< by 1 % of its tensor's size
  one_element_a_bit_off,  ///< by 1e-4
  differs_from_run_to_run,
  multiplies_by_zero,  ///< old state times exp(-inf) through a reciprocal: 0 * inf
  forgets_scale,
  clears_state_first,        ///< zeroes the final state before it reads the initial one
  all_outputs_slightly_off,  ///< by 1e-5, each far below what one element may be
  all_states_slightly_off,
  one_state_off,  ///< by 0.3 %
};

/// GLA forward from the words of a call alone, in float64, with one bug.
void run_kernel(const Problem& problem, const Words& words, Bug bug);

inline Runner kernel_of(const Problem& problem, Bug bug = Bug::none) {
  return [problem, bug](const Words& words, const Extents&) { run_kernel(problem, words, bug); };
}

inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

/// The numbers of o without padding: [T,H,V].
inline std::vector<double> output_rows(const Call& call, const std::vector<double>& o) {
  std::vector<double> rows;
  for (std::int64_t t = 0; t < call.what.shape.total().count(); ++t)
    for (std::int64_t h = 0; h < call.what.problem.heads.count(); ++h)
      for (std::int64_t j = 0; j < call.what.problem.v.count(); ++j)
        rows.push_back(o[static_cast<std::size_t>(t * call.o_strides.token + h * call.o_strides.head + j)]);
  return rows;
}

/// The final states by sequence, without padding: [B,Hkv,K*V]; zeros where discarded.
inline std::vector<double> state_rows(const Call& call, const std::vector<double>& state) {
  std::vector<double> rows;
  const std::int64_t size = call.what.problem.k.count() * call.what.problem.v.count();
  for (std::int64_t b = 0; b < call.what.shape.sequences().count(); ++b)
    for (std::int64_t h = 0; h < call.what.problem.kv_heads.count(); ++h)
      for (std::int64_t i = 0; i < size; ++i) {
        const auto slot = call.write_slots[static_cast<std::size_t>(b)];
        rows.push_back(slot < 0 ? 0
                                : state[static_cast<std::size_t>(slot * call.state_slot + h * call.state_head + i)]);
      }
  return rows;
}

}  // namespace glaive::test
