#include "autotune/trials.hpp"

namespace glaive {

std::span<Trial> Trials::of(const Case& what, Scrutiny scrutiny) {
  if (what_ != what) forget();
  what_ = what;
  auto& trials = scrutiny == Scrutiny::brief ? brief_ : full_;
  if (not trials.empty()) return trials;
  const auto cases = verification_cases(what);
  for (std::size_t c = 0; c < cases.size(); ++c)
    for (std::size_t g = 0; g < std::size(all_gates); ++g)
      if (scrutiny == Scrutiny::full or g % cases.size() == c) {
        trials.emplace_back(cases[c], all_gates[g], 1 + c * std::size(all_gates) + g);
        pulse_.beat();
      }
  return trials;
}

void Trials::forget() { what_.reset(), brief_.clear(), full_.clear(); }

}  // namespace glaive
