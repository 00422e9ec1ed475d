#include "tests/autotune/faults_runs.hpp"

#include <csignal>
#include <numeric>
#include <thread>

#include "tests/autotune/faults_family.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/small_disk.hpp"

namespace glaive::test {
namespace {

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

std::vector<int> right_and(const Subject& subject, const std::vector<int>& faulty) {
  std::vector<int> kinds(static_cast<std::size_t>(subject.right_kinds()));
  std::iota(kinds.begin(), kinds.end(), 0);
  kinds.insert(kinds.end(), faulty.begin(), faulty.end());
  return kinds;
}

struct Reason {
  std::string drop, message;
};
/// Why the journal says that a variant is out: before the race, or in it.
std::vector<Reason> reasons(const std::filesystem::path& cache, int kind) {
  std::vector<Reason> all;
  for (const auto& row :
       query(cache / "journal.sqlite",
             fmt::format("SELECT reason, message FROM attempt WHERE variant='{0}' AND result<>0 UNION "
                         "SELECT reason, message FROM verdict WHERE variant='{0}' AND result<>0",
                         name_of(kind)))) {
    const auto bar = row.find('|');
    all.push_back({row.substr(0, bar), row.substr(bar + 1)});
  }
  return all;
}

/// The pack's only entry is a right variant that loads and computes what it should; the journal is whole, and nothing
/// is held against a right variant.
void look_at(const Subject& subject, const std::filesystem::path& cache, Finding& finding) {
  const auto complain = [&](bool Finding::* what, std::string sentence) {
    finding.*what = true;
    finding.complaint += (finding.complaint.empty() ? "" : "; ") + std::move(sentence);
  };
  if (query(cache / "journal.sqlite", "PRAGMA integrity_check") != std::vector<std::string>{"ok"})
    complain(&Finding::lost_entry, "the journal is damaged");
  for (int kind = 0; kind < subject.right_kinds(); ++kind)
    for (const auto& [drop, message] : reasons(cache, kind))
      if (drop != "hang" or not subject.may_be_slow)
        complain(&Finding::unexpected, fmt::format("a right variant was dropped as {}: {}", drop, message));

  const auto pack = Pack::open(cache / "winners.pack");
  if (not pack) return complain(&Finding::corrupt_load, pack.error().message);
  if (pack->size() != 1) return complain(&Finding::lost_entry, fmt::format("{} entries in the pack", pack->size()));
  const auto entry = pack->load(0);
  if (not entry) return complain(&Finding::corrupt_load, entry.error().message);
  const auto& variant = entry->plan.variant;
  const auto& kind = subject.kinds[std::strtoul(variant.c_str() + variant.find('=') + 1, nullptr, 10)];
  if (not is_right(kind)) return complain(&Finding::wrong_winner, fmt::format("{} won", kind.name));
  const auto verdict = subject.judge(*entry);
  if (not verdict) return complain(&Finding::corrupt_load, verdict.error().message);
  if (verdict->drop != Drop::none) complain(&Finding::wrong_winner, verdict->message);
}

void look_at(const Subject& subject, const Result<TuneOutcome>& outcome, const std::filesystem::path& cache,
             Finding& finding) {
  if (not outcome or outcome->state != TuneOutcome::State::tuned) {
    finding.lost_run = true;
    finding.complaint = outcome ? outcome->sentence : outcome.error().message;
  } else {
    look_at(subject, cache, finding);
  }
}

void look_at(const Subject& subject, const Ended& ended, const std::filesystem::path& cache, Finding& finding) {
  if (ended.exit == 0) return look_at(subject, cache, finding);
  finding.lost_run = true;
  finding.complaint = fmt::format("exit {}: {}{}", ended.exit, ended.out, ended.err);
}

/// A cache folder and the words that tune in it in another process.
std::vector<std::string> words_to_tune(const Subject& subject, const std::vector<int>& faulty) {
  std::vector<std::string> words{"tune"};
  for (const int kind : right_and(subject, faulty)) words.push_back(std::to_string(kind));
  return words;
}

}  // namespace

Result<TuneOutcome> tune_kinds(const Subject& subject, const std::filesystem::path& cache,
                               const std::vector<int>& kinds) {
  const auto family = subject.family(kinds);
  const Family* families[] = {family.get()};
  auto workers = subject.workers;
  workers.arguments.push_back(cache.string());
  auto evaluator = make_worker_evaluator(std::move(workers));
  if (not evaluator) return std::unexpected(evaluator.error());
  auto journal = Journal::open(cache / "journal.sqlite", "faults");
  if (not journal) return std::unexpected(journal.error());
  Progress progress(Progress::Mode::quiet, stderr);
  TuneOptions options{.effort = Effort::full,
                      .threads = subject.workers.threads,
                      .pack = cache / "winners.pack",
                      .locks = cache,
                      .families = families};
  return Tuner(**evaluator, *journal, progress, options).tune(parse_case(subject.line).value());
}

int tune_words(const Subject& subject, std::span<char* const> words) {
  std::vector<int> kinds;
  for (const char* const word : words) kinds.push_back(std::atoi(word));
  const auto outcome = tune_kinds(subject, std::getenv("GLAIVE_CACHE"), kinds);
  if (outcome and outcome->state != TuneOutcome::State::failed) return 0;
  fmt::print(stderr, "{}\n", outcome ? outcome->sentence : outcome.error().message);
  return 1;
}

std::vector<Finding> inject_variants(const Subject& subject, const std::vector<int>& faulty, Random& random) {
  const Folder folder;
  auto kinds = right_and(subject, faulty);
  if (random() % 4 == 0) std::swap(kinds.front(), kinds.back());  // the default is among the faulty
  const auto outcome = tune_kinds(subject, folder.path(), kinds);
  Finding run;
  look_at(subject, outcome, folder.path(), run);
  std::vector<Finding> findings;
  for (const int number : faulty) {
    const auto& kind = subject.kinds[static_cast<std::size_t>(number)];
    Finding finding = run;
    finding.kind = kind.name;
    const auto said = reasons(folder.path(), number);
    for (const auto& [drop, message] : said) {
      finding.said += (finding.said.empty() ? "" : "+") + drop;
      if (drop == "hang" and subject.may_be_slow) continue;
      if (kind.or_else != Drop::none and drop == to_string(kind.or_else)) continue;
      std::string wrong;
      if (drop != to_string(kind.drop))
        wrong = fmt::format("it should be {}", to_string(kind.drop));
      else if (not message.contains(kind.says))
        wrong = fmt::format("it should say `{}`", kind.says);
      else if (subject.examine != nullptr)
        wrong = subject.examine(kind, message);
      if (wrong.empty()) continue;
      finding.unexpected = true;
      finding.complaint += fmt::format("; {}, but dropped as {}: {}", wrong, drop, message);
    }
    if (said.size() != 1) finding.unexpected = true, finding.complaint += fmt::format("; {} reasons", said.size());
    if (said.empty()) finding.said = "not dropped";
    findings.push_back(std::move(finding));
  }
  return findings;
}

Finding kill_a_worker(const Subject& subject, Random& random) {
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
    const auto outcome =
        tune_kinds(subject, folder.path(), right_and(subject, {index_of_kind(subject.kinds, "wrong_little")}));
    killer.join();
    if (not killed) continue;  // it was over before
    look_at(subject, outcome, folder.path(), finding);
    finding.said = "went on";
  }
  return finding;
}

Finding kill_the_tuner(const Subject& subject, Random& random) {
  Finding finding{.kind = "tuner killed"};
  const auto words = words_to_tune(subject, {subject.right_kinds(), index_of_kind(subject.kinds, "wrong_little")});
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
    look_at(subject, Program(folder, cache, words).wait(), cache, finding);
    finding.said = "resumed";
    return finding;
  }
}

Finding fill_the_disk(const Subject& subject, Random& random) {
  Finding finding{.kind = "disk full"};
  const auto words = words_to_tune(subject, {index_of_kind(subject.kinds, "wrong_little")});
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
    look_at(subject, Program(folder, cache, words).wait(), cache, finding);
    finding.said = "told, resumed";
    return finding;
  }
}

Finding write_one_pack(const Subject& subject, Random& random) {
  Finding finding{.kind = "32 writers"};
  const Folder folder;
  const auto file = folder / "shared.pack";
  const auto family = subject.family({0});
  const auto what = parse_case(subject.line).value();
  std::vector<PackEntry> entries;
  for (int i = 0; i < writers; ++i) {
    PackEntry entry{
        .key = winner_key(what, host_cpu_device(), Effort::full, 1 + i),
        .plan = family->plan({what.problem, host_cpu_target()}, {0}),
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
