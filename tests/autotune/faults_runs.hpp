#pragma once
#include <filesystem>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "autotune/tune.hpp"
#include "autotune/worker/worker.hpp"
#include "tests/autotune/faults_kinds.hpp"

namespace glaive::test {

using Random = std::mt19937_64;

/// What faults are injected into: a family of mistakes on one device.
struct Subject {
  std::span<const FaultKind> kinds;  ///< the right ones first: they are in every run
  const char* line;                  ///< the case that is tuned
  std::unique_ptr<Family> (*family)(std::vector<int> legal);
  WorkerOptions workers;  ///< get the cache folder as a last argument
  /// Whether a pack's entry computes what it should.
  Result<Verdict> (*judge)(const PackEntry& entry);
  /// What is wrong about the words with which a variant was dropped, if anything.
  std::string (*examine)(const FaultKind& kind, const std::string& message) = nullptr;
  /// On a machine that is busy enough anything may take too long, and pass for a hang.
  bool may_be_slow = false;

  int right_kinds() const { return static_cast<int>(std::ranges::count_if(kinds, is_right)); }
};

/// What became of one injected fault. Everything but `said` must stay empty or false.
struct Finding {
  std::string kind;
  std::string said{};  ///< the reason for which the variant was dropped, or how the run took it
  bool wrong_winner = false, lost_run = false, corrupt_load = false, lost_entry = false, unexpected = false;
  std::string complaint{};
};

/// Tunes the subject's case with the variants `kinds`, all that it remembers in `cache`.
Result<TuneOutcome> tune_kinds(const Subject& subject, const std::filesystem::path& cache,
                               const std::vector<int>& kinds);

// Each injects faults and looks at everything afterwards.
std::vector<Finding> inject_variants(const Subject& subject, const std::vector<int>& faulty,
                                     Random& random);  ///< one finding for each
Finding kill_a_worker(const Subject& subject, Random& random);
Finding kill_the_tuner(const Subject& subject, Random& random);
Finding fill_the_disk(const Subject& subject, Random& random);
Finding write_one_pack(const Subject& subject, Random& random);  ///< 32 writers, some of them killed

/// Injects `count` faults, drawn by `seed`, and prints a table of what became of them: variants of the kinds `faulty`,
/// each as often as every other, and one in twelve of each of `outside`. 0 = each kind once. Returns an exit status.
using Inject = Finding (*)(const Subject&, Random&);
int inject(const Subject& subject, std::vector<int> faulty, std::span<const Inject> outside, std::size_t count,
           std::uint64_t seed);
/// The main of a tuner to be killed: tunes the kinds whose numbers are `words` in the folder GLAIVE_CACHE.
int tune_words(const Subject& subject, std::span<char* const> words);

}  // namespace glaive::test
