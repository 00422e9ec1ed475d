#include "autotune/cli/command.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <limits>
#include <optional>

#include "autotune/cache.hpp"
#include "autotune/sets.hpp"
#include "autotune/shell.hpp"
#include "runtime/target.hpp"

namespace glaive::cli {
namespace {

constexpr int most_threads = 1024;

std::string typed;

template <class Number>
std::optional<Number> read_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() or end != text.data() + text.size()) return std::nullopt;
  return number;
}

extern "C" void interrupted(int signal) {
  constexpr std::string_view sentence = "\nglaive: interrupted; run it again to go on\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, sentence.data(), sentence.size());
  std::signal(signal, SIG_DFL);
  raise(signal);
}

}  // namespace

void tell_when_interrupted() {
  struct sigaction now{}, on_interrupt{};
  if (sigaction(SIGINT, nullptr, &now) != 0 or now.sa_handler == SIG_IGN) return;  // as behind nohup
  on_interrupt.sa_handler = interrupted;
  sigaction(SIGINT, &on_interrupt, nullptr);
}

std::string counted(std::size_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

const std::string& command_line() { return typed; }

void set_command_line(int argc, char** argv) {
  typed = "glaive";
  for (int i = 1; i < argc; ++i) typed += " " + shell_quoted(argv[i]);
}

int report(const Error& error) {
  fmt::print(stderr, "glaive: {}\n", error.message);
  return error.status == Status::invalid_argument ? usage : failure;
}

int report_for(const Problem& problem, const Error& error) {
  if (error.status != Status::unsupported) return report(error);
  return report({error.status, fmt::format("`{}`: {}", to_string(problem), error.message)});
}

int report_usage(const std::string& sentence) { return report({Status::invalid_argument, sentence}); }

Result<Case> read_case(const std::string& line) {
  auto parsed = parse_case(line);
  if (parsed) return *parsed;
  std::string message = "this is not a problem line:\n" + parsed.error().pointing_at(line);
  for (const auto& set : builtin_sets())
    if (line == set.name) message += fmt::format("\n`{}` is a problem set: --set {}", line, line);
  return fail(Status::invalid_argument, std::move(message));
}

Result<std::vector<Case>> read_cases(const std::vector<std::string>& lines, const std::vector<std::string>& sets,
                                     DType set_io) {
  std::vector<std::string> whole = lines;
  // A shell takes an unquoted line apart.
  const auto one_word = [](const std::string& line) { return not line.contains(' '); };
  if (lines.size() > 1 and std::ranges::all_of(lines, one_word)) whole = {fmt::format("{}", fmt::join(lines, " "))};

  std::vector<Case> cases;
  const auto add = [&](const Case& what) {
    if (std::ranges::find(cases, what) == cases.end()) cases.push_back(what);
  };
  for (const auto& line : whole) {
    const auto what = read_case(line);
    if (not what) return std::unexpected(what.error());
    add(*what);
  }
  for (const auto& name : sets) {
    const auto set = load_set(name, set_io);
    if (not set) return fail(Status::invalid_argument, set.error().message);
    for (const auto& what : *set) add(what);
  }
  return cases;
}

DType set_io_of(const NamedDevice& device) {
  return device.info.target.kind == Target::Kind::cuda ? DType::bf16 : DType::f32;
}

void add_device(Command& command, std::string& asked) {
  command.option("--device", asked, "cpu, gpu or gpu:N (default: the GPU if there is one)");
}

Result<NamedDevice> read_device(const std::string& asked) {
  NamedDevice device{.name = asked.empty() ? usual_device() : asked, .info = {}};
  auto info = find_device(device.name);
  if (not info) return std::unexpected(std::move(info).error());
  device.info = std::move(*info);
  return device;
}

Result<int> read_threads(const std::string& asked) {
  const auto threads = read_number<int>(asked);
  if (not threads or *threads < 0 or *threads > most_threads)
    return fail(Status::invalid_argument, fmt::format("--threads {}: it is 0 (all) or 1 to {}", asked, most_threads));
  return *threads == 0 ? host_cpu_device().units : *threads;
}

Result<std::uint64_t> read_seed(const std::string& asked) {
  const auto seed = read_number<std::uint64_t>(asked);
  if (not seed)
    return fail(Status::invalid_argument,
                fmt::format("--seed {}: it is 0 to {}", asked, std::numeric_limits<std::uint64_t>::max()));
  return *seed;
}

Result<std::optional<double>> read_seconds(const std::string& asked) {
  if (asked.empty()) return std::nullopt;
  const auto seconds = read_number<double>(asked);
  if (not seconds or not(*seconds > 0 and *seconds <= 3600))
    return fail(Status::invalid_argument, fmt::format("--seconds {}: it is above 0, and at most 3600", asked));
  return seconds;
}

Result<std::uint64_t> read_count(std::string_view option, const std::string& asked) {
  const auto count = read_number<std::uint64_t>(asked);
  if (not count or *count < 1 or *count > 1'000'000)
    return fail(Status::invalid_argument, fmt::format("{} {}: it is 1 to 1000000", option, asked));
  return *count;
}

Result<std::filesystem::path> read_pack(const std::string& asked) {
  if (not asked.empty()) return std::filesystem::path(asked);
  auto folder = cache_location();
  if (not folder) return folder;
  if (std::error_code ignored; std::filesystem::is_directory(*folder, ignored))
    if (auto trusted = check_trusted(*folder); not trusted) return std::unexpected(trusted.error());
  return *folder / pack_name;
}

void add_lock(Command& command, std::string& asked) {
  command.option("--lock", asked,
                 "while another process works on the device: wait, fail, or wait so many seconds (default: wait)",
                 {.type = "wait|fail|SECONDS"});
}

Result<Patience> read_patience(const std::string& asked) {
  Patience patience;
  patience.tell = [](const std::string& holder) { fmt::print(stderr, "waiting for {}\n", holder); };
  if (asked == "wait") return patience;
  const auto seconds = asked == "fail" ? 0 : read_number<double>(asked);
  if (not seconds or not(*seconds >= 0))
    return fail(Status::invalid_argument, fmt::format("--lock {}: it is wait, fail or a number of seconds", asked));
  patience.seconds = *seconds;
  return patience;
}

}  // namespace glaive::cli
