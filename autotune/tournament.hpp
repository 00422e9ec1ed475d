#pragma once
#include <functional>
#include <map>
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
  bool out = false;  ///< found wrong since it was screened
};

/// Times entrants (by index) interleaved; `plain` adds the two plain loops behind them.
using TimeEntrants = std::function<Result<std::vector<Timing>>(
    std::span<const std::size_t> entrants, bool plain, const MeasurePolicy& policy, std::span<const std::size_t> keep)>;

struct TournamentEvents {
  std::function<void(std::string_view round, std::size_t total)> round;
  std::function<void(std::size_t done)> advance;
  std::function<void(const std::string& variant, double ratio)> best;  ///< time relative to the reference
};

struct TournamentResult {
  std::size_t winner = 0;
  Timing timing;  ///< of the winner, interleaved with the following
  std::vector<std::pair<std::size_t, Timing>> defaults;
  Timing rows, tiles;      ///< the plain loops
  std::size_t slower = 0;  ///< entrants that were timed and lost
};

/// Whether `a` is faster than `b` beyond doubt: the intervals do not touch.
bool clearly_faster(const Timing& a, const Timing& b);

/// Whether `a` is faster than `b` by more than `worthwhile`, given samples that were taken in turn: the 95 % interval
/// of the ratio of each pair lies below 1. Drift that hits both drops out, so this decides where single intervals
/// overlap.
bool faster_in_pairs(const Timing& a, const Timing& b);
inline constexpr double worthwhile = 0.005;

/// Finds the fastest entrant in three rounds, each kept in the journal as soon as it is over and not run again:
///   screen     every entrant a few times, in small groups that share the reference;
///   semifinal  the best few, interleaved, longer;
///   final      the best three against the incumbent in pairs; a challenger takes its place only when clearly faster.
///   Last,
///              the winner, the defaults and the plain loops together: a default that is clearly faster takes over.
class Tournament {
 public:
  Tournament(TimeEntrants time, Journal& journal, CaseKey key, TournamentEvents events)
      : time_(std::move(time)), journal_(journal), key_(std::move(key)), events_(std::move(events)) {}

  /// Screens those of `entrants` that were not screened before; entrants keep their indices from call to call, and so
  /// does the reference.
  Result<void> screen(std::span<const Entrant> entrants, std::size_t reference);

  /// The best by screening, fastest first.
  std::vector<std::size_t> best(std::size_t count) const;
  void exclude(std::size_t entrant) { screened_.erase(entrant); }

  static constexpr std::size_t semifinalists = 8;

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
  Ratios screened_;
};

}  // namespace glaive
