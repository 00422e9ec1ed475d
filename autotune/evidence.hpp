#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "autotune/evaluator.hpp"
#include "autotune/tournament.hpp"

namespace glaive {

/// What a winner won on; becomes the JSON text of a pack entry.
struct Evidence {
  Case what;
  std::string variant, content, policy, compiler;
  DeviceInfo device;
  Rates rates;
  Timing timing;
  std::vector<std::pair<std::string, Timing>> defaults;  ///< by variant; the first is the one to compare with
  Timing rows, tiles;
  std::vector<Challenge> challenges;  ///< of the final
  std::vector<std::pair<std::string, double>>
      screened;  ///< other variants, by their time over the winner's in screening
  Verdict verdict;
  std::int64_t text_bytes = 0, stack_bytes = 0;
  std::size_t legal = 0, tried = 0, compiled = 0, correct = 0;
  std::map<Drop, std::size_t> drops;
};

/// Times in ms with the ends of their 95 % interval; `winner` is the winner's time over that of the entry, from pairs.
std::string to_json(const Evidence& evidence);

/// `{"verdict": "FASTER", "ratio": .., "interval": [.., ..], "pairs": ..}`; an unbounded end is null.
nlohmann::ordered_json standing_json(const Ratio& ratio);

/// The shape that evidence was measured with, e.g. `B1 T512`, when it is another than that of `what`: shapes of one
/// bucket share a winner. Empty when it is the same, or the evidence does not say.
std::string measured_shape(const std::string& evidence, const Case& what);

/// The least time that the machine's rates leave a case: that of its useful operations at the FMA peak, or that of its
/// minimal bytes at the copy rate, whichever is larger. It by a time is the time's share of the roof.
double roof_seconds(const Case& what, const Rates& rates);
/// That share for the winner that JSON evidence is about; nothing when the evidence does not say.
std::optional<double> roof_share(const nlohmann::ordered_json& evidence);

/// Version, commit and so on of this build.
std::string_view glaive_version();
std::string_view glaive_commit();  ///< empty when unknown

}  // namespace glaive
