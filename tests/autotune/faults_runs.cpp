#include "tests/autotune/faults_runs.hpp"

#include <csignal>
#include <thread>

#include "autotune/verify.hpp"
#include "autotune/worker/worker.hpp"
#include "tests/autotune/faults_family.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/sanitized.hpp"
#include "tests/small_disk.hpp"

namespace glaive::test {
namespace {

constexpr const char* line = "forward H2 K8 V8 f32 @ B1 T512";
constexpr double patience = GLAIVE_SANITIZED ? 3 : 0.4;  // seconds until a hang is one
constexpr int writers = 32;

std::string name_of(int kind) { return fmt::format("faults(kind={})", kind); }

double seconds_until(Random& random, double longest) {
  return std::uniform_real_distribution<double>(0, longest)(random);
}
void sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// Processes with `word` on their command line, this one excepted.
std::vector<pid_t> processes_with(const std::string& word) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const auto pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    if (pid > 0 and pid != getpid() and read_text(entry.path() / "cmdline").contains(word)) found.push_back(pid);
  }
  return found;
}

std::vector<int> right_and(std::vector<int> faulty) {
  std::vector<int> kinds;
  for (int kind = 0; kind < right_kinds; ++kind) kinds.push_back(kind);
  kinds.insert(kinds.end(), faulty.begin(), faulty.end());
  return kinds;
}

std::vector<std::string> reasons(const std::filesystem::path& cache, int kind) {
  const auto journal = cache / "journal.sqlite";
  auto said = query(journal,
                    fmt::format("SELECT DISTINCT reason FROM verdict WHERE variant='{}' AND result<>0", name_of(kind)));
  for (const auto& result : query(journal, fmt::format("SELECT DISTINCT result FROM code WHERE content LIKE '{} %' AND "
                                                       "result<>0",
                                                       name_of(kind))))
    said.emplace_back(to_string(static_cast<Drop>(std::stoi(result))));
  return said;
}

/// The pack's only entry is a right variant that loads and computes what it should; the journal is whole, and nothing
/// is held against a right variant, except a hang: see below.
void look_at(const std::filesystem::path& cache, Finding& finding) {
  const auto complain = [&](bool Finding::* what, std::string sentence) {
    finding.*what = true;
    finding.complaint += (finding.complaint.empty() ? "" : "; ") + std::move(sentence);
  };
  if (query(cache / "journal.sqlite", "PRAGMA integrity_check") != std::vector<std::string>{"ok"})
    complain(&Finding::lost_entry, "the journal is damaged");
  for (int kind = 0; kind < right_kinds; ++kind)
    for (const auto& said : reasons(cache, kind))
      if (said != "hang") complain(&Finding::unexpected, fmt::format("a right variant was dropped as {}", said));

  const auto pack = Pack::open(cache / "winners.pack");
  if (not pack) return complain(&Finding::corrupt_load, pack.error().message);
  if (pack->size() != 1) return complain(&Finding::lost_entry, fmt::format("{} entries in the pack", pack->size()));
  const auto entry = pack->load(0);
  if (not entry) return complain(&Finding::corrupt_load, entry.error().message);
  const auto& variant = entry->plan.variant;
  const int kind = std::atoi(variant.substr(variant.find('=') + 1).c_str());
  if (not is_right(fault_kinds[kind].name))
    return complain(&Finding::wrong_winner, fmt::format("{} won", fault_kinds[kind].name));
  const auto kernel = CpuKernel::load(entry->plan, entry->code);
  if (not kernel) return complain(&Finding::corrupt_load, kernel.error().message);
  WorkerPool pool(2);
  Trial trial(parse_case(line).value(), Gates::mixed, 1);
  const auto verdict = verify(*kernel, std::span(&trial, 1), pool);
  if (verdict.drop != Drop::none) complain(&Finding::wrong_winner, verdict.message);
}

void look_at(const Result<TuneOutcome>& outcome, const std::filesystem::path& cache, Finding& finding) {
  if (not outcome or outcome->state != TuneOutcome::State::tuned) {
    finding.lost_run = true;
    finding.complaint = outcome ? outcome->sentence : outcome.error().message;
  } else {
    look_at(cache, finding);
  }
}

void look_at(const Ended& ended, const std::filesystem::path& cache, Finding& finding) {
  if (ended.exit == 0) return look_at(cache, finding);
  finding.lost_run = true;
  finding.complaint = fmt::format("exit {}: {}{}", ended.exit, ended.out, ended.err);
}

/// A cache folder and the words that tune in it in another process.
std::vector<std::string> tune_words(const std::vector<int>& kinds) {
  std::vector<std::string> words{"tune"};
  for (const int kind : kinds) words.push_back(std::to_string(kind));
  return words;
}

int index_of_kind(std::string_view name) { return static_cast<int>(find_kind(name) - fault_kinds); }

}  // namespace

Result<TuneOutcome> tune_kinds(const std::filesystem::path& cache, const std::vector<int>& kinds) {
  const FaultFamily family(kinds);
  const Family* families[] = {&family};
  auto evaluator = make_worker_evaluator({.threads = 2,
                                          .program = FAULTS_WORKER,
                                          .arguments = {cache.string()},
                                          .kernel_seconds = patience,
                                          .compile_seconds = patience,
                                          .trusted_seconds = 60,
                                          .compile_bytes = std::uint64_t{256} << 20,
                                          .run_bytes = std::uint64_t{256} << 20});
  if (not evaluator) return std::unexpected(evaluator.error());
  auto journal = Journal::open(cache / "journal.sqlite", "faults");
  if (not journal) return std::unexpected(journal.error());
  Progress progress(Progress::Mode::quiet, stderr);
  TuneOptions options{
      .effort = Effort::full, .threads = 2, .pack = cache / "winners.pack", .locks = cache, .families = families};
  return Tuner(**evaluator, *journal, progress, options).tune(parse_case(line).value());
}

std::vector<Finding> inject_variants(const std::vector<int>& faulty, Random& random) {
  const Folder folder;
  auto kinds = right_and(faulty);
  if (random() % 4 == 0) std::swap(kinds.front(), kinds.back());  // the default is among the faulty
  const auto outcome = tune_kinds(folder.path(), kinds);
  Finding run;
  look_at(outcome, folder.path(), run);
  std::vector<Finding> findings;
  for (const int kind : faulty) {
    Finding finding = run;
    finding.kind = fault_kinds[kind].name;
    const auto said = reasons(folder.path(), kind);
    for (const auto& reason : said) finding.said += (finding.said.empty() ? "" : "+") + reason;
    if (finding.said.empty()) finding.said = "not dropped";
    // On a machine that is busy enough anything may take too long.
    const auto due = std::string(to_string(fault_kinds[kind].drop));
    if (said != std::vector{due} and said != std::vector<std::string>{"hang"}) {
      finding.unexpected = true;
      finding.complaint += fmt::format("; {} instead of {}", finding.said, due);
    }
    findings.push_back(std::move(finding));
  }
  return findings;
}

Finding kill_a_worker(Random& random) {
  Finding finding{.kind = "worker killed"};
  double longest = 1;
  for (bool killed = false; not killed; longest /= 2) {
    const Folder folder;
    const double moment = seconds_until(random, longest);
    const auto which = random();
    std::jthread killer([&] {
      sleep(moment);
      const auto workers = processes_with(folder.path().string());
      killed = not workers.empty() and kill(workers[which % workers.size()], SIGKILL) == 0;
    });
    const auto outcome = tune_kinds(folder.path(), right_and({index_of_kind("wrong_little")}));
    killer.join();
    if (not killed) continue;  // it was over before
    look_at(outcome, folder.path(), finding);
    finding.said = "went on";
  }
  return finding;
}

Finding kill_the_tuner(Random& random) {
  Finding finding{.kind = "tuner killed"};
  const auto words = tune_words(right_and({index_of_kind("segv"), index_of_kind("wrong_little")}));
  for (double longest = 1.5;; longest /= 2) {
    const Folder folder;
    const auto cache = folder / "cache";
    std::filesystem::create_directory(cache);
    Program tuner(folder, cache, words);
    sleep(seconds_until(random, longest));
    if (not tuner.running()) continue;
    tuner.kill();
    tuner.wait();
    for (int i = 0; i < 100 and not processes_with(cache.string()).empty(); ++i) sleep(0.05);
    if (not processes_with(cache.string()).empty()) {
      finding.unexpected = true;
      finding.complaint = "a worker outlived its tuner; ";
    }
    look_at(Program(folder, cache, words).wait(), cache, finding);
    finding.said = "resumed";
    return finding;
  }
}

Finding fill_the_disk(Random& random) {
  Finding finding{.kind = "disk full"};
  const auto words = tune_words(right_and({index_of_kind("wrong_little")}));
  for (int kibibytes = 64 + static_cast<int>(random() % 512);; kibibytes = kibibytes * 2 / 3) {
    const Folder folder;
    const auto cache = folder / "cache";
    const testing::SmallDisk disk(cache, kibibytes);
    // Where nothing can be mounted, a limit on the size of files does much the same.
    const rlim_t limit = disk.mounted() ? 0 : static_cast<rlim_t>(kibibytes) << 10;
    const auto first = Program(folder, cache, words, limit).wait();
    if (first.exit == 0) continue;  // it was enough
    const bool told = first.err.contains("disk is full") or first.err.contains("No space left") or
                      first.err.contains("limit on file sizes") or first.err.contains("File too large");
    if (not told) {
      finding.unexpected = true;
      finding.complaint = fmt::format("exit {}, said: {}; ", first.exit, first.err);
    }
    if (disk.mounted() and not disk.resize(1 << 16)) finding.complaint += "the disk cannot grow; ";
    look_at(Program(folder, cache, words).wait(), cache, finding);
    finding.said = "told, resumed";
    return finding;
  }
}

Finding write_one_pack(Random& random) {
  Finding finding{.kind = "32 writers"};
  const Folder folder;
  const auto file = folder / "shared.pack";
  const FaultFamily family;
  const auto what = parse_case(line).value();
  std::vector<PackEntry> entries;
  for (int i = 0; i < writers; ++i) {
    PackEntry entry{
        .key = winner_key(what, host_cpu_device(), Effort::full, 1 + i),
        .plan = family.plan({what.problem, host_cpu_target()}, {0}),
        .code = {CodeObject{.target = host_cpu_target(), .bytes = std::vector<std::byte>(1000 + random() % 9000)}},
        .evidence = fmt::format("{{\"writer\": {}}}", i)};
    entries.push_back(std::move(entry));
  }
  std::vector<pid_t> children;
  for (int i = 0; i < writers; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(add_to_pack(file, std::span(&entries[i], 1)) ? 0 : 1);
    children.push_back(child);
  }
  for (int i = 0; i < 4; ++i) {
    sleep(seconds_until(random, 0.01));
    kill(children[random() % children.size()], SIGKILL);  // not yet waited for, so still ours
  }
  int wrote = 0, killed = 0;
  std::vector<bool> done;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    done.push_back(WIFEXITED(status) and WEXITSTATUS(status) == 0);
    wrote += done.back() ? 1 : 0;
    killed += WIFSIGNALED(status) ? 1 : 0;
  }
  finding.said = "all that was added is there";
  if (wrote + killed != writers) {
    finding.unexpected = true;
    finding.complaint = fmt::format("{} writers failed; ", writers - wrote - killed);
  }
  const auto pack = Pack::open(file);
  if (not pack) {
    finding.corrupt_load = true;
    finding.complaint += pack.error().message;
    return finding;
  }
  for (std::size_t i = 0; i < pack->size(); ++i)
    if (const auto entry = pack->load(i); not entry)
      finding.corrupt_load = true, finding.complaint += entry.error().message;
  for (int i = 0; i < writers; ++i) {
    const auto found = pack->find(entries[i].key);
    const auto entry = found ? pack->load(*found) : fail(Status::not_found, "absent");
    if (done[i] and (not entry or entry->evidence != entries[i].evidence or
                     entry->code.front().bytes != entries[i].code.front().bytes))
      finding.lost_entry = true, finding.complaint += fmt::format("writer {}'s entry is lost; ", i);
  }
  return finding;
}

}  // namespace glaive::test
