#pragma once
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "autotune/drop.hpp"

namespace glaive {

/// Tells a person what a tuning run is doing: one line redrawn in place on a terminal, a line every few seconds
/// elsewhere, nothing when quiet. Any thread may call.
class Progress {
 public:
  enum class Mode { quiet, plain, live };
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  Progress(Mode mode, std::FILE* out, Clock clock = std::chrono::steady_clock::now);
  ~Progress();
  /// live when `out` is a terminal.
  static Mode mode_for(std::FILE* out, bool quiet);

  void begin_case(std::size_t number, std::size_t total, std::string line);
  void begin_phase(std::string_view name, std::size_t total);
  void advance(std::size_t done);
  void step();  ///< one more done
  void best(std::string variant, double ratio_to_default);
  void dropped(Drop drop);
  void end_case(const std::string& sentence);  ///< and where the seconds went, where they are worth telling
  void note(const std::string& sentence);      ///< a line of its own that stays

  std::map<Drop, std::size_t> drops() const;

 private:
  std::string describe() const;
  void end_phase();
  std::string spent() const;
  void show(bool always);
  void clear_line();

  const Mode mode_;
  std::FILE* const out_;
  const Clock clock_;
  mutable std::mutex mutex_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point shown_{}, phase_began_{};
  std::size_t number_ = 0, cases_ = 0, done_ = 0, total_ = 0;
  std::string line_, phase_, best_;
  std::vector<std::pair<std::string, double>> seconds_;  // of the case, by phase
  double ratio_ = 1;
  std::map<Drop, std::size_t> drops_;
};

}  // namespace glaive
