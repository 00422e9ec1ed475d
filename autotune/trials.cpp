#include "autotune/trials.hpp"

namespace glaive {

std::vector<Trial> make_trials(const Case& what, Scrutiny scrutiny, Pulse& pulse) {
  std::vector<Trial> trials;
  const auto cases = verification_cases(what);
  for (std::size_t c = 0; c < cases.size(); ++c)
    for (std::size_t g = 0; g < std::size(all_gates); ++g)
      if (scrutiny == Scrutiny::full or g % cases.size() == c) {
        trials.emplace_back(cases[c], all_gates[g], 1 + c * std::size(all_gates) + g);
        pulse.beat();
      }
  return trials;
}

}  // namespace glaive
