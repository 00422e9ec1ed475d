#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "autotune/journal.hpp"
#include "autotune/replay.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// What the journal tells of one tuned case, in the order in which it happened.
struct Story {
  struct Entry {
    std::string variant;
    std::string family;
    std::vector<std::pair<std::string, int>> parameters;
    bool is_default = false;
    double prior = 0;  ///< seconds
    Drop drop = Drop::none;
    std::string message;
    double low = 0, median = 0, high = 0;  ///< seconds, screened; 0 when it was not timed
    double spent = 0;                      ///< seconds of compiling, verifying and timing

    bool timed() const { return median > 0; }
  };

  CaseKey key;
  std::string line;  ///< problem line
  std::vector<Entry> entries;
  std::string winner;       ///< variant; empty while there is none
  std::string evidence;     ///< JSON of the winner
  std::string first, last;  ///< when the first and the last attempt was made, UTC
  double useful_operations = 0, minimal_bytes = 0;
  std::optional<Bucket> bucket;  ///< of shapes that the winner stands for

  /// The best that one family came to, by screening.
  struct FamilyBest {
    std::string family;
    std::size_t tried = 0;
    const Entry* best = nullptr;  ///< null: none was timed
    double ratio = 0;             ///< its time over the winner's; 0 when either was not timed
  };
  /// The winner's family first, then the fastest first, last those of which nothing was timed.
  std::vector<FamilyBest> by_family() const;
  /// `stream 1.36x, segments: none of 6 was timed (resources 6)`: the time of the best of every other family over the
  /// winner's.
  std::string why() const;

  PriorQuality prior() const;  ///< of what was tried, which a search has not drawn evenly
  /// By reason, the most frequent first.
  std::vector<std::pair<Drop, std::size_t>> drops() const;
  const Entry* fastest() const;  ///< by screening; null when nothing was timed
};

/// Every case of the journal, or those whose line or problem is one of `lines`.
Result<std::vector<Story>> read_stories(Journal& journal, std::span<const std::string> lines = {});

/// `{"glaive", "cases": [..]}`: all that the report shows, for other programs.
std::string to_json(std::span<const Story> stories);

}  // namespace glaive
