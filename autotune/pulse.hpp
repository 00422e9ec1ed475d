#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace glaive {

/// Whose code an evaluator runs right now, for somebody who watches it from another process: one store where a call
/// begins and one where it ends. A beat that stands still for long means a hang, and after a crash it names the
/// culprit.
class Pulse {
 public:
  struct Seen {
    std::uint64_t beat = 0;
    bool running = false;            ///< code that is not trusted runs now
    std::optional<std::size_t> who;  ///< runs, or ran last
  };

  /// Nobody has run yet.
  void reset() noexcept { store((load() | 0x1ffff) ^ 0x1ffff); }
  void enter(std::size_t who) noexcept { store((load() >> 17 << 17) | running_bit | ((who + 1) & 0xffff)); }
  void leave() noexcept { store(load() & ~running_bit); }
  /// Trusted code has got one step further.
  void beat() noexcept { store(load()); }

  Seen seen() const noexcept {
    const auto word = load();
    const auto who = static_cast<std::size_t>(word & 0xffff);
    return {word, (word & running_bit) != 0, who == 0 ? std::nullopt : std::optional(who - 1)};
  }

 private:
  static constexpr std::uint64_t running_bit = 1u << 16, one_beat = 1u << 17;
  std::uint64_t load() const noexcept { return word_.load(std::memory_order_relaxed); }
  void store(std::uint64_t word) noexcept { word_.store(word + one_beat, std::memory_order_relaxed); }

  std::atomic<std::uint64_t> word_ = 0;
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "lives in memory that two processes share");
};

/// For the time of one call.
class Running {
 public:
  Running(Pulse& pulse, std::size_t who) : pulse_(pulse) { pulse_.enter(who); }
  Running(const Running&) = delete;
  ~Running() { pulse_.leave(); }

 private:
  Pulse& pulse_;
};

}  // namespace glaive
