#pragma once
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "autotune/journal.hpp"

namespace glaive {

/// Who runs: candidates that compiled and were found correct, in the order of their prior.
struct Entrant {
  std::string variant;
  std::string content;
  bool is_default = false;
  bool out = false;  ///< found wrong since it entered
};

/// Times entrants (by index) interleaved; `plain` adds the two plain loops behind them.
using TimeEntrants = std::function<Result<std::vector<Timing>>(
    std::span<const std::size_t> entrants, bool plain, const MeasurePolicy& policy, std::span<const std::size_t> keep)>;

struct TournamentEvents {
  std::function<void(std::string_view round, std::size_t total)> round;
  std::function<void(std::size_t done)> advance;
  std::function<void(const std::string& variant, double ratio)> best;  ///< time relative to the reference
};

/// One pair of the final: the challenger's time over that of who held the place.
struct Challenge {
  std::string challenger, holder;  ///< variants
  Ratio ratio;
};

struct TournamentResult {
  std::size_t winner = 0;
  std::vector<Challenge> challenges;  ///< in the order raced
  Timing timing;                      ///< of the winner, interleaved with the following
  std::vector<std::pair<std::size_t, Timing>> defaults;
  Timing rows, tiles;      ///< the plain loops
  std::size_t slower = 0;  ///< entrants that were timed and lost
};

/// Finds the fastest entrant in three rounds, each kept in the journal as soon as it is over; the first two are not run
/// again:
///   screen     every entrant a few times, in small groups that share the reference;
///   semifinal  the best few, interleaved, longer;
///   final      the best three against the incumbent in pairs, each until the verdict is clear. A challenger takes its
///              place only when it stands faster, so that one who is no faster gets it in at most 2.5 of 100 finals,
///              all pairs together.
/// Last, the winner, the defaults and the plain loops run together. The times of this race are published, not those
/// that the winner was chosen by, which flatter it. A new winner that is behind a default here gives way to it, an old
/// one when the default stands faster.
class Tournament {
 public:
  Tournament(TimeEntrants time, Journal& journal, CaseKey key, TournamentEvents events,
             std::size_t semifinalists = most_semifinalists, const MeasurePolicy& screening = screen_policy)
      : time_(std::move(time)),
        journal_(journal),
        key_(std::move(key)),
        events_(std::move(events)),
        semifinalists_(semifinalists),
        screening_(screening) {}

  static constexpr MeasurePolicy screen_policy{
      .min_sample_seconds = 2e-4, .warmup = 1, .min_samples = 3, .max_samples = 9, .budget_seconds = 0.03};

  /// Screens those of `entrants` that were not screened before; entrants keep their indices from call to call, and so
  /// does the reference.
  Result<void> screen(std::span<const Entrant> entrants, std::size_t reference);

  /// The best by screening, fastest first.
  std::vector<std::size_t> best(std::size_t count) const;
  void exclude(std::size_t entrant) { screened_.erase(entrant); }
  void restart() { screened_.clear(); }  ///< for another reference
  /// Time relative to the reference by screening; nothing for who was not screened or is excluded.
  std::optional<double> screened(std::size_t entrant) const {
    const auto found = screened_.find(entrant);
    return found == screened_.end() ? std::nullopt : std::optional(found->second);
  }

  static constexpr std::size_t most_semifinalists = 8;
  std::size_t semifinalists() const { return semifinalists_; }

  /// Semifinal and final between those not excluded. `incumbent` is what was served so far, or the reference.
  Result<TournamentResult> decide(std::span<const Entrant> entrants, std::size_t reference, std::size_t incumbent);

 private:
  using Ratios = std::map<std::size_t, double>;  // time relative to the reference, by entrant
  Result<void> run(Round round, std::span<const Entrant> entrants, std::size_t reference,
                   std::span<const std::size_t> field, Ratios& ratios);

  TimeEntrants time_;
  Journal& journal_;
  CaseKey key_;
  TournamentEvents events_;
  std::size_t semifinalists_;
  MeasurePolicy screening_;
  Ratios screened_;
};

}  // namespace glaive
