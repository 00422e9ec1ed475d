#include "runtime/dispatch.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace glaive {
namespace {

/// Whether a policy was measured with this many threads; one that does not say so fits any number.
bool fits_threads(std::string_view policy, int threads) {
  constexpr std::string_view word = "threads=";
  const std::size_t at = policy.find(word);
  if (at == std::string_view::npos) return true;
  const std::string_view rest = policy.substr(at + word.size());
  return rest.substr(0, rest.find(' ')) == std::to_string(threads);
}

bool runs_here(const std::string& target_text) {
  const auto target = parse_target(target_text);
  return target and check_runs_here(*target);
}

}  // namespace

std::string_view to_string(Match match) {
  switch (match) {
    case Match::exact:
      return "exact";
    case Match::nearest:
      return "nearest";
    case Match::other_device:
      return "other device";
  }
  return "?";
}

std::vector<Candidate> candidates(const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem,
                                  Bucket bucket) {
  const std::string device_text = identity(device), target_text = to_string(device.target);
  const std::string problem_text = to_string(problem);

  struct Ranked {
    Match match;
    bool foreign_target, foreign_threads;
    int steps;
    std::size_t age, index;
    auto key() const { return std::tuple(match, foreign_target, foreign_threads, steps, age); }
  };
  std::vector<Ranked> ranked;
  std::map<std::string, bool> runnable;
  for (std::size_t i = 0; i < pack.size(); ++i) {
    const WinnerKey& key = pack.key(i);
    if (key.problem != problem_text) continue;
    auto known = runnable.find(key.target);
    if (known == runnable.end()) known = runnable.emplace(key.target, runs_here(key.target)).first;
    if (not known->second) continue;

    const bool foreign_threads = not fits_threads(key.policy, threads);
    const int steps = distance(key.bucket, bucket);
    const Match match = key.device != device_text            ? Match::other_device
                        : steps == 0 and not foreign_threads ? Match::exact
                                                             : Match::nearest;
    ranked.push_back({match, key.target != target_text, foreign_threads, steps, pack.size() - i, i});
  }
  std::ranges::sort(ranked, {}, &Ranked::key);
  std::vector<Candidate> found;
  for (const Ranked& entry : ranked) found.push_back({entry.index, entry.match});
  return found;
}

}  // namespace glaive
