#include "autotune/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

namespace glaive {
namespace {

constexpr auto redraw_every = std::chrono::milliseconds(100);
constexpr auto plain_every = std::chrono::seconds(3);

std::size_t columns(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 and size.ws_col > 0) return size.ws_col;
  return 120;
}

}  // namespace

Progress::Progress(Mode mode, std::FILE* out, Clock clock) : mode_(mode), out_(out), clock_(std::move(clock)) {}

Progress::~Progress() { clear_line(); }

Progress::Mode Progress::mode_for(std::FILE* out, bool quiet) {
  if (quiet) return Mode::quiet;
  return isatty(fileno(out)) != 0 ? Mode::live : Mode::plain;
}

void Progress::begin_case(std::size_t number, std::size_t total, std::string line) {
  const std::lock_guard lock(mutex_);
  number_ = number;
  cases_ = total;
  line_ = std::move(line);
  best_.clear();
  drops_.clear();
  phase_ = "enumerate";
  phase_began_ = clock_();
  seconds_.clear();
  done_ = total_ = 0;
  show(true);
}

void Progress::begin_phase(std::string_view name, std::size_t total) {
  const std::lock_guard lock(mutex_);
  end_phase();
  phase_ = name;
  done_ = 0;
  total_ = total;
  phase_began_ = clock_();
  show(mode_ == Mode::live);
}

void Progress::advance(std::size_t done) {
  const std::lock_guard lock(mutex_);
  done_ = done;
  show(false);
}

void Progress::step() {
  const std::lock_guard lock(mutex_);
  ++done_;
  show(false);
}

void Progress::best(std::string variant, double ratio_to_default) {
  const std::lock_guard lock(mutex_);
  best_ = std::move(variant);
  ratio_ = ratio_to_default;
}

void Progress::dropped(Drop drop) {
  const std::lock_guard lock(mutex_);
  ++drops_[drop];
}

void Progress::end_case(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  if (mode_ == Mode::quiet) return;
  clear_line();
  end_phase();
  fmt::print(out_, "[{}/{}] {}: {}{}\n", number_, cases_, line_, sentence, spent());
  std::fflush(out_);
}

void Progress::note(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  if (mode_ == Mode::quiet) return;
  clear_line();
  fmt::print(out_, "{}\n", sentence);
  std::fflush(out_);
}

std::map<Drop, std::size_t> Progress::drops() const {
  const std::lock_guard lock(mutex_);
  return drops_;
}

void Progress::end_phase() {
  const auto now = clock_();
  const double seconds = std::chrono::duration<double>(now - std::exchange(phase_began_, now)).count();
  const auto known = std::ranges::find(seconds_, phase_, &std::pair<std::string, double>::first);
  if (known == seconds_.end())
    seconds_.emplace_back(phase_, seconds);
  else
    known->second += seconds;
}

std::string Progress::spent() const {
  constexpr double worth_telling = 0.05;
  double total = 0;
  std::string phases;
  for (const auto& [phase, seconds] : seconds_) {
    total += seconds;
    if (seconds >= worth_telling) phases += fmt::format("{}{} {:.1f}", phases.empty() ? "" : ", ", phase, seconds);
  }
  return phases.empty() ? std::string() : fmt::format("; {:.1f} s: {}", total, phases);
}

std::string Progress::describe() const {
  std::string text = fmt::format("[{}/{}] {} | {}", number_, cases_, line_, phase_);
  if (total_ > 0) text += fmt::format(" {}/{}", done_, total_);
  if (done_ > 0 and done_ < total_) {
    const double spent = std::chrono::duration<double>(clock_() - phase_began_).count();
    text += fmt::format(", {:.0f} s left", spent / static_cast<double>(done_) * static_cast<double>(total_ - done_));
  }
  if (not best_.empty()) text += fmt::format(" | best {:.2f}x the default: {}", 1 / ratio_, best_);
  std::string reasons;
  for (const auto& [drop, count] : drops_)
    reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", to_string(drop), count);
  if (not reasons.empty()) text += fmt::format(" | dropped: {}", reasons);
  return text;
}

void Progress::show(bool always) {
  if (mode_ == Mode::quiet) return;
  const auto now = clock_();
  if (not always and now - shown_ < (mode_ == Mode::live ? redraw_every : plain_every)) return;
  shown_ = now;
  std::string text = describe();
  if (mode_ == Mode::plain) {
    fmt::print(out_, "{}\n", text);
  } else {
    text.resize(std::min(text.size(), columns(out_) - 1));
    fmt::print(out_, "\r\033[2K{}", text);
    drawn_ = true;
  }
  std::fflush(out_);
}

void Progress::clear_line() {
  if (drawn_) fmt::print(out_, "\r\033[2K");
  drawn_ = false;
}

}  // namespace glaive
