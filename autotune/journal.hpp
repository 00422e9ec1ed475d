#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "autotune/measure.hpp"
#include "autotune/verify.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// What one tuning of one case is filed under: a change of any field makes old times worthless.
struct CaseKey {
  std::string device;  ///< identity(DeviceInfo)
  std::string problem;
  std::string shape;
  std::string policy;  ///< measurement policy
  std::uint64_t space = 0;
  std::uint32_t schema = 1;
  friend bool operator==(const CaseKey&, const CaseKey&) = default;
};

struct CompileRecord {
  Drop drop = Drop::none;
  std::string message;
  CodeObject code;  ///< empty bytes when compilation failed
  double seconds = 0;
};

/// One variant that a search took up, and what became of it: why it is out, unless it lost for its time alone.
struct AttemptRecord {
  std::int64_t number = 0;  ///< 1, 2, .. in the order taken up
  std::string variant;
  std::string content;
  double prior = 0;  ///< estimated seconds
  bool is_default = false;
  Drop drop = Drop::none;
  std::string message;
  double compile_seconds = 0, verify_seconds = 0;  ///< of this run, all told; 0 where the journal knew the outcome
  std::string when{};                              ///< UTC; filled by find_attempts
  std::int64_t run = 0;                            ///< filled by find_attempts
};

enum class Round : std::uint8_t { screen = 1, semifinal = 2, final = 3 };

/// One variant's times in one round, with those of the reference that ran interleaved with it.
struct TimingRecord {
  std::string variant;
  std::string content;
  Timing timing;
  std::string reference;
  double reference_median = 0;
  Drop drop = Drop::none;
  double seconds = 0;  ///< spent on timing it
  /// Of the rounds that both ran, in their order, so that any ratio can be had again; empty in journals up to schema 2.
  std::vector<double> reference_samples{};

  /// Time relative to the reference: comparable between groups, and between a killed run and the one that resumes it.
  double ratio() const { return timing.median() / reference_median; }
};

struct WinnerRecord {
  std::string variant;
  std::string content;
  std::string evidence;  ///< JSON
};

/// The tuner's memory: an SQLite file in WAL mode where each finished step is one transaction, so that a killed run
/// loses at most the step it was in. Calls may come from several threads. Every error is one sentence that names the
/// file.
class Journal {
 public:
  static constexpr int schema = 3;

  /// Creates the file (mode 0600) if absent, and brings an older one to this schema in one transaction, all rows kept;
  /// a newer one is refused. `command` and `compiler` describe the run in the journal, beside this build's version.
  static Result<Journal> open(const std::filesystem::path& file, std::string_view command,
                              std::string_view compiler = "");
  /// For reading alone, as `glaive report` does: no run is begun, and an older journal is not brought up to date but
  /// refused. Nothing need be writable. Fails with not_found when there is no such file.
  static Result<Journal> open_to_read(const std::filesystem::path& file);
  Journal(Journal&&) noexcept;
  ~Journal();

  std::int64_t run() const;  ///< number of this run; each row names the run that wrote it

  Result<std::optional<CompileRecord>> find_code(std::string_view content);
  Result<void> put_code(std::string_view content, const CompileRecord& record);

  Result<std::optional<Verdict>> find_verdict(std::string_view device, std::string_view problem,
                                              std::string_view variant, std::string_view content,
                                              std::string_view rules);
  Result<void> put_verdict(std::string_view device, std::string_view problem, std::string_view variant,
                           std::string_view content, std::string_view rules, const Verdict& verdict);

  /// What is known of a variant already is replaced. One transaction.
  Result<void> put_attempts(const CaseKey& key, std::span<const AttemptRecord> records);
  Result<std::vector<AttemptRecord>> find_attempts(const CaseKey& key);  ///< in the order taken up
  Result<std::vector<CaseKey>> find_cases();                             ///< that have attempts, oldest first

  Result<std::vector<TimingRecord>> find_timings(const CaseKey& key, Round round);
  Result<void> put_timings(const CaseKey& key, Round round,
                           std::span<const TimingRecord> records);  ///< one transaction

  Result<std::optional<WinnerRecord>> find_winner(const CaseKey& key);
  Result<void> put_winner(const CaseKey& key, const WinnerRecord& record);
  /// Drops the attempts and times of a case. Code and verdicts are facts and stay; so does the winner, until
  /// put_winner has another.
  Result<void> forget(const CaseKey& key);

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace glaive
