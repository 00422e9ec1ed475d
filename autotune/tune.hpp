#pragma once
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include "autotune/cache.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/journal.hpp"
#include "autotune/progress.hpp"
#include "autotune/shipped.hpp"
#include "autotune/space.hpp"
#include "autotune/strategy/strategy.hpp"
#include "autotune/table.hpp"
#include "autotune/tournament.hpp"
#include "autotune/winners.hpp"

namespace glaive {

struct TuneOptions {
  Effort effort = Effort::normal;
  int threads = 1;                                                    ///< compilers at work, and workers of a kernel
  std::filesystem::path pack;                                         ///< winners go here
  std::filesystem::path locks = lock_folder;                          ///< folder of the device lock
  double patience_seconds = std::numeric_limits<double>::infinity();  ///< for another process on the device, each time
  bool force = false;                                                 ///< tune again even if a winner is known
  const StrategyInfo* strategy = &strategies().front();
  std::uint64_t seed = 0;  ///< of the strategy
  std::span<const Family* const> families = glaive::families();
  const WinnersTable* shipped = nullptr;  ///< whose winners run along
};

/// What became of one case.
struct TuneOutcome {
  enum class State { tuned, already, unsupported, failed } state = State::failed;
  Case what;
  std::string sentence;  ///< for people
  std::string evidence;  ///< JSON; empty unless tuned or already
};

/// The outcome of a case whose winner is `entry`; says with what shape it was tuned when that is another.
TuneOutcome already_tuned(const Case& what, PackEntry entry);

/// Limits beyond which compiled code is not worth running.
inline constexpr std::int64_t max_text_bytes = std::int64_t{1} << 20;
inline constexpr std::int64_t max_stack_bytes = std::int64_t{1} << 18;

/// Tunes one case after the other: enumerate, compile in threads, verify, race, publish. The best by prior come first,
/// then neighbours of the fastest so far, until the budget is spent. Nothing compiles while something is timed. A
/// failure that does not lie in the code, such as a lack of memory, is told and not remembered. Each finished step is
/// in the journal, each winner in the pack, before the next begins.
class Tuner {
 public:
  Tuner(Evaluator& evaluator, Journal& journal, Progress& progress, TuneOptions options);

  /// An error means that the run cannot go on (journal, pack, lock or a lack of descriptors); a case that cannot be
  /// tuned is an outcome.
  Result<TuneOutcome> tune(const Case& what);

  /// Times every legal variant of `what` (of its part that `rules` leave, see keep_only) against the default, longer
  /// than a search would, and publishes nothing. Resumes like tune().
  Result<Table> record(const Case& what, std::span<const std::string> rules);

 private:
  struct Attempt;
  struct Search;
  Result<void> compile(std::span<Attempt* const> attempts, const Search& search, Optimise optimise);
  Result<void> verify(Attempt& attempt, Search& search, Scrutiny scrutiny);
  Result<void> lose(Search& search, std::size_t entrant, const Failure& failure);
  Result<void> enter(Search& search, std::size_t first);  ///< compiles and verifies the attempts from `first` on
  Result<void> prove_best(Search& search, Tournament& tournament);
  Result<DeviceLock> lock_device(const Search& search, DeviceLock::For purpose);
  Result<TuneOutcome> race_and_publish(Search& search);
  Result<TuneOutcome> publish(Search& search, const RankedVariant& winner, CodeObject code, std::string evidence);
  Result<std::optional<TuneOutcome>> publish_known(Search& search);
  DeviceInfo used_device() const;
  TimeEntrants timing_of(Search& search);
  TournamentEvents events();

  Evaluator& evaluator_;
  Journal& journal_;
  Progress& progress_;
  TuneOptions options_;
  std::vector<WinnerKey> published_;  ///< by this run
};

}  // namespace glaive
