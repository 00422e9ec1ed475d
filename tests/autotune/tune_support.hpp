#pragma once
#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "autotune/tune.hpp"

namespace glaive::test {

/// A new empty folder, removed with everything in it.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "glaive-test-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string read_text(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

inline void write_text(const std::filesystem::path& file, std::string_view text) { std::ofstream(file) << text; }

struct Ended {
  int exit = -1;  ///< -1 when ended by a signal
  int signal = 0;
  std::string out, err;
};

/// The real program in a process of its own, with `cache` as its cache folder.
class Program {
 public:
  Program(const Folder& folder, const std::filesystem::path& cache, std::vector<std::string> words,
          rlim_t file_limit = 0, rlim_t descriptor_limit = 0)
      : folder_(folder.path()) {
    std::vector<char*> argv;
    std::string binary = GLAIVE_BINARY;
    argv.push_back(binary.data());
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string out = folder_ / "stdout", err = folder_ / "stderr", variable = cache.string();
    child_ = fork();
    if (child_ != 0) return;
    setenv("GLAIVE_CACHE", variable.c_str(), 1);
    dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
    if (file_limit != 0) {
      const rlimit limit{file_limit, file_limit};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (descriptor_limit != 0) {
      for (int ours = 3; ours < 64; ++ours) close(ours);
      const rlimit limit{descriptor_limit, descriptor_limit};
      setrlimit(RLIMIT_NOFILE, &limit);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  Program(const Program&) = delete;
  ~Program() {
    if (child_ > 0) kill(), wait();
  }

  void kill(int signal = SIGKILL) { ::kill(child_, signal); }
  bool running() {
    int status = 0;
    if (child_ <= 0 or waitpid(child_, &status, WNOHANG) == 0) return child_ > 0;
    note(status);
    return false;
  }
  Ended wait() {
    int status = 0;
    if (child_ > 0 and waitpid(child_, &status, 0) == child_) note(status);
    ended_.out = read_text(folder_ / "stdout");
    ended_.err = read_text(folder_ / "stderr");
    return ended_;
  }

 private:
  void note(int status) {
    child_ = -1;
    ended_.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    ended_.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  std::filesystem::path folder_;
  pid_t child_ = -1;
  Ended ended_;
};

inline Ended run(const Folder& folder, std::vector<std::string> words) {
  return Program(folder, folder / "cache", std::move(words)).wait();
}

/// Rows of a query as text, columns joined by `|`; empty when the file has no such table yet.
inline std::vector<std::string> query(const std::filesystem::path& file, const std::string& sql) {
  std::vector<std::string> rows;
  sqlite3* db = nullptr;
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_open_v2(file.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr) == SQLITE_OK) {
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK)
      while (sqlite3_step(statement) == SQLITE_ROW) {
        std::string row;
        for (int i = 0; i < sqlite3_column_count(statement); ++i) {
          const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, i));
          row += fmt::format("{}{}", i > 0 ? "|" : "", text == nullptr ? "NULL" : text);
        }
        rows.push_back(row);
      }
    sqlite3_finalize(statement);
  }
  sqlite3_close(db);
  return rows;
}

/// A family of 4 x 3 variants `toy(size=..,mode=..)` for forward problems; mode 2 does not go with size 8.
class ToyFamily : public Family {
 public:
  explicit ToyFamily(std::string name = "toy", double slowness = 1) : name_(std::move(name)), slowness_(slowness) {}
  std::string_view name() const override { return name_; }
  std::string_view summary() const override { return "numbers only"; }
  Result<void> applicable(const Instance& instance) const override {
    if (instance.problem.op == Op::forward) return {};
    return fail(Status::unsupported, "forward only");
  }
  std::vector<Parameter> parameters(const Instance&) const override {
    return {{"size", "work at a time", {1, 2, 4, 8}}, {"mode", "way of working", {0, 1, 2}}};
  }
  std::optional<std::string> constraint(const Instance&, const Config& config) const override {
    if (config == Config{8, 2}) return "mode 2 stops at size 4";
    return std::nullopt;
  }
  Config default_config(const Instance&) const override { return {2, 1}; }
  double prior(const Instance&, const Shape&, const DeviceInfo&, const Config& config) const override {
    return slowness_ * (10.0 - config[0] + 0.1 * config[1]);
  }
  Source instantiate(const Instance&, const Config&) const override { return MlirSource{}; }
  Plan plan(const Instance& instance, const Config& config) const override {
    Plan plan;
    plan.target = instance.target;
    plan.variant = fmt::format("{}(size={},mode={})", name_, config[0], config[1]);
    plan.stages.push_back({.entry = "run", .tasks = {}, .args = {Arg::q}, .maps = {}});
    return plan;
  }

 private:
  std::string name_;
  double slowness_;
};

/// A family of 8 x 8 variants whose prior sees one of its two parameters, and that not quite right.
class HillFamily : public Family {
 public:
  std::string_view name() const override { return "hill"; }
  std::string_view summary() const override { return "numbers only"; }
  Result<void> applicable(const Instance&) const override { return {}; }
  std::vector<Parameter> parameters(const Instance&) const override {
    const std::vector<int> values{0, 1, 2, 3, 4, 5, 6, 7};
    return {{"x", "seen by the prior", values}, {"y", "not seen", values}};
  }
  std::optional<std::string> constraint(const Instance&, const Config&) const override { return std::nullopt; }
  Config default_config(const Instance&) const override { return {3, 3}; }
  double prior(const Instance&, const Shape&, const DeviceInfo&, const Config& config) const override {
    return 1 + std::abs(config[0] - 4.1);
  }
  Source instantiate(const Instance&, const Config&) const override { return MlirSource{}; }
  Plan plan(const Instance& instance, const Config& config) const override {
    Plan plan;
    plan.target = instance.target;
    plan.variant = fmt::format("hill(x={},y={})", config[0], config[1]);
    plan.stages.push_back({.entry = "run", .tasks = {}, .args = {Arg::q}, .maps = {}});
    return plan;
  }
};

inline const Instance toy_instance{parse_problem("forward H4 K64 V64 f32").value(), host_cpu_target()};

/// Answers as told, and counts what it is asked.
class ToyEvaluator : public Evaluator {
 public:
  std::function<double(const std::string&)> seconds = [](const std::string&) { return 1e-3; };
  std::function<Drop(const std::string&)> compile_result = [](const std::string&) { return Drop::none; };
  std::function<Drop(const std::string&)> verdict = [](const std::string&) { return Drop::none; };
  std::function<Drop(const std::string&)> full_verdict = [](const std::string&) { return Drop::none; };
  double spread = 0.001;  ///< half the width of a sample's scatter, relative
  double drift = 0;       ///< each race runs this much slower than the last: a machine that heats up
  std::string generation = "1";
  std::string not_compared;  ///< why full scrutiny left out the comparison at full size
  std::atomic<int> compiled = 0, optimised = 0;
  int verified = 0, scrutinised = 0, raced = 0;
  std::set<std::string> timed;
  std::atomic<bool> compiling = false;

  const DeviceInfo& device() const override { return device_; }
  int workers() const override { return 2; }
  std::string compiler() const override { return "toy compiler"; }
  Evaluated<std::string> content_key(const Instance& instance, const Variant& variant, Optimise optimise,
                                     int) override {
    return fmt::format("{} {} {}", generation, to_string(variant, instance), static_cast<int>(optimise));
  }
  Evaluated<CodeObject> compile(const Instance& instance, const Variant& variant, Optimise optimise, int) override {
    ++(optimise == Optimise::light ? compiled : optimised);
    const auto name = to_string(variant, instance);
    CodeObject code{.target = instance.target, .bytes = std::vector<std::byte>(64), .text_bytes = 64};
    switch (compile_result(name)) {
      case Drop::compile_error:
        return fail(Status::failed, "lower: told to fail");
      case Drop::resources:
        code.stack_bytes = max_stack_bytes + 1;
        break;
      default:
        break;
    }
    return code;
  }
  Result<void> check_memory(const Case&) override { return {}; }
  Result<Verdict> verify(const Case&, const Built& built, Scrutiny scrutiny, Gates) override {
    const bool brief = scrutiny == Scrutiny::brief;
    ++(brief ? verified : scrutinised);
    const auto drop = (brief ? verdict : full_verdict)(built.plan.variant);
    return Verdict{drop, 1e-7, 2e-7, drop != Drop::none ? "told to fail" : brief ? "" : not_compared};
  }
  Evaluated<std::vector<Timing>> race(const Case&, std::span<const Contender> contenders, const MeasurePolicy&,
                                      std::span<const std::size_t>) override {
    ++raced;
    const double heat = 1 + drift * raced;
    std::vector<Timing> times;
    for (const auto& contender : contenders) {
      double median = contender.kind == Contender::Kind::rows ? 9e-3 : 5e-3;
      if (contender.kind == Contender::Kind::kernel) {
        median = seconds(contender.built->plan.variant);
        timed.insert(contender.built->plan.variant);
      }
      Timing timing;
      std::minstd_rand random(static_cast<unsigned>(1 + raced * 31 + (&contender - contenders.data())));
      std::uniform_real_distribution<double> scatter(-spread, spread);
      for (int i = 0; i < 21; ++i) timing.samples.push_back(heat * median * (1 + scatter(random)));
      times.push_back(timing);
    }
    return times;
  }
  Rates rates() override { return {1e11, 1e10}; }

 private:
  DeviceInfo device_ = host_cpu_device();
};

/// A tuner over a toy family, its journal and pack in a folder that outlives it.
struct ToyRun {
  explicit ToyRun(const Folder& folder, Effort effort = Effort::full, bool force = false) {
    options = {.effort = effort, .threads = 2, .pack = folder / "winners.pack", .locks = folder.path(), .force = force};
    options.families = families;
    file = folder / "journal.sqlite";
  }
  Result<TuneOutcome> tune(ToyEvaluator& evaluator, const std::string& line = "forward H4 K64 V64 f32 @ B1 T512") {
    auto journal = Journal::open(file, "test");
    if (not journal) return std::unexpected(journal.error());
    Tuner tuner(evaluator, *journal, progress, options);
    return tuner.tune(parse_case(line).value());
  }

  ToyFamily toy;
  const Family* families[1] = {&toy};
  TuneOptions options;
  std::filesystem::path file;
  Progress progress{Progress::Mode::quiet, stderr};
};

}  // namespace glaive::test
