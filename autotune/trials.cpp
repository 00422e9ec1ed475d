#include "autotune/trials.hpp"

#include <utility>

#include "autotune/parallel.hpp"

namespace glaive {

std::span<Trial> Trials::of(const Case& what, Scrutiny scrutiny) {
  if (what_ != what) forget();
  what_ = what;
  auto& trials = scrutiny == Scrutiny::brief ? brief_ : full_;
  if (not trials.empty()) return trials;
  const auto cases = verification_cases(what);
  std::vector<std::pair<std::size_t, std::size_t>> wanted;  // case and gates
  for (std::size_t c = 0; c < cases.size(); ++c)
    for (std::size_t g = 0; g < std::size(all_gates); ++g)
      if (scrutiny == Scrutiny::full or g % cases.size() == c) wanted.emplace_back(c, g);
  std::vector<std::optional<Trial>> made(wanted.size());
  parallel(std::ssize(wanted), 1, [&](std::int64_t first, std::int64_t last) {
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
      const auto [c, g] = wanted[i];
      made[i].emplace(cases[c], all_gates[g], 1 + c * std::size(all_gates) + g);
      pulse_.beat();
    }
  });
  for (auto& trial : made) trials.push_back(std::move(*trial));
  return trials;
}

void Trials::forget() { what_.reset(), brief_.clear(), full_.clear(); }

}  // namespace glaive
