#include <sys/file.h>
#include <sys/stat.h>

#include <cmath>

#include "autotune/cache.hpp"
#include "autotune/memory.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"
#include "tests/sanitized.hpp"
#include "tests/small_disk.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

using For = DeviceLock::For;

CaseKey key() {
  return {.device = "name=a; units=2",
          .problem = "forward H1 K1 V1 f32",
          .shape = "B1 T1",
          .policy = "v1",
          .space = 0xffff'ffff'ffff'fff1,
          .schema = 1};
}

TimingRecord timing(std::string variant, double median) {
  return {std::move(variant), "c0", {{median, median, median * 1.5}}, "reference", 2e-3, Drop::slower};
}

CompileRecord compiled() {
  CompileRecord record;
  record.code.target = host_cpu_target();
  record.code.bytes = {std::byte{1}, std::byte{0}, std::byte{255}};
  record.code.text_bytes = 100;
  record.code.stack_bytes = 32;
  record.seconds = 0.5;
  return record;
}

/// Sets an environment variable for the scope.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("cache: GLAIVE_CACHE goes before XDG_CACHE_HOME, and that before HOME", "[tune]") {
  const Variable home("HOME", "/home/someone"), xdg("XDG_CACHE_HOME", "/xdg"), own("GLAIVE_CACHE", "/own");
  CHECK(cache_location().value() == "/own");
  {
    const Variable none("GLAIVE_CACHE", "");
    CHECK(cache_location().value() == "/xdg/glaive");
    const Variable neither("XDG_CACHE_HOME", "");
    CHECK(cache_location().value() == "/home/someone/.cache/glaive");
    const Variable nothing("HOME", "");
    CHECK_FALSE(cache_location());
  }
}

TEST_CASE("cache: the folder is made for its owner alone", "[tune]") {
  const Folder folder;
  const Variable own("GLAIVE_CACHE", folder / "a/b/cache");
  REQUIRE(open_cache());
  struct stat facts{};
  REQUIRE(stat((folder / "a/b/cache").c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0700);
  CHECK(open_cache());
}

TEST_CASE("cache: a file in the folder's place, or above it, is said", "[tune]") {
  const Folder folder;
  write_text(folder / "file", "");
  for (const auto& place : {folder / "file", folder / "file/cache", folder / "file/deep/cache"}) {
    const Variable own("GLAIVE_CACHE", place);
    const auto opened = open_cache();
    REQUIRE_FALSE(opened);
    CHECK(opened.error().status == Status::io_error);
    CHECK_THAT(opened.error().message, Catch::Contains(place.string()) and Catch::Contains("GLAIVE_CACHE"));
  }
}

TEST_CASE("cache: a folder that others can write to is refused", "[tune]") {
  const Folder folder;
  chmod(folder.path().c_str(), 0777);
  const Variable own("GLAIVE_CACHE", folder.path());
  const auto opened = open_cache();
  REQUIRE_FALSE(opened);
  CHECK(opened.error().status == Status::untrusted);
}

TEST_CASE("cache: what is timed on a device is timed alone", "[tune]") {
  const Folder folder;
  int held[2];
  REQUIRE(pipe(held) == 0);
  const pid_t child = fork();
  if (child == 0) {
    // Waits, says so, and goes on when the parent lets go.
    char byte = 0;
    bool waited = read(held[0], &byte, 1) != 1;
    const Patience patience{.tell = [&](const std::string&) { waited = true; }};
    const auto mine = DeviceLock::acquire(For::timing, folder.path(), "device", patience);
    _exit(mine and waited ? 0 : 1);
  }
  {
    // Work goes on side by side, and timing waits for it.
    const auto first = DeviceLock::acquire(For::work, folder.path(), "device");
    REQUIRE(first);
    CHECK(DeviceLock::acquire(For::work, folder.path(), "device"));
    CHECK(DeviceLock::acquire(For::timing, folder.path(), "another device"));
    CHECK(write(held[1], "x", 1) == 1);
    usleep(200'000);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == 0);
  close(held[0]);
  close(held[1]);
}

namespace {

/// A process that holds the lock until killed.
class Holder {
 public:
  Holder(const Folder& folder, For purpose) {
    int ready[2];
    if (pipe(ready) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      const auto lock = DeviceLock::acquire(purpose, folder.path(), "device");
      const bool told = lock and write(ready[1], "x", 1) == 1;
      while (told) pause();
      _exit(1);
    }
    close(ready[1]);
    char byte = 0;
    holds_ = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
  }
  Holder(const Holder&) = delete;
  ~Holder() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  pid_t pid() const { return pid_; }
  bool holds() const { return holds_; }

 private:
  pid_t pid_ = -1;
  bool holds_ = false;
};

}  // namespace

TEST_CASE("cache: who cannot have the lock is told who holds it, and gives up as told", "[tune]") {
  const Folder folder;
  for (const For theirs : {For::timing, For::work}) {
    Holder holder(folder, theirs);
    REQUIRE(holder.holds());
    for (const double seconds : {0.0, 0.05}) {
      std::string told;
      const Patience patience{seconds, [&](const std::string& who) { told = who; }};
      const auto lock = DeviceLock::acquire(For::timing, folder.path(), "device", patience);
      REQUIRE_FALSE(lock);
      CHECK(lock.error().status == Status::io_error);
      CHECK_THAT(lock.error().message,
                 Catch::StartsWith(fmt::format("the device is in use by process {} (`", holder.pid())) and
                     Catch::Contains("test_tune") and Catch::Contains("`), which has held the device since "));
      CHECK_THAT(lock.error().message, Catch::EndsWith(seconds > 0 ? "gave up after 0.05 s" : "gave up at once"));
      CHECK(told.starts_with("process ") == (seconds > 0));
    }
    // A process that is no more holds nothing.
    holder.kill();
    CHECK(DeviceLock::acquire(For::timing, folder.path(), "device", {.seconds = 0, .tell = {}}));
  }
}

TEST_CASE("cache: a lock held by something else than glaive still keeps out, and no name is made up", "[tune]") {
  const Folder folder;
  {
    const auto made = DeviceLock::acquire(For::work, folder.path(), "device");
  }
  const auto file = std::filesystem::directory_iterator(folder.path())->path();
  const int foreign = open(file.c_str(), O_RDONLY);
  REQUIRE(flock(foreign, LOCK_EX) == 0);
  const auto lock = DeviceLock::acquire(For::timing, folder.path(), "device", {.seconds = 0, .tell = {}});
  REQUIRE_FALSE(lock);
  CHECK(lock.error().message == "the device is in use by another process; gave up at once");
  close(foreign);
}

TEST_CASE("cache: what is written into the lock file is never believed", "[tune]") {
  const Folder folder;
  {
    const auto made = DeviceLock::acquire(For::work, folder.path(), "device");
  }
  const auto file = std::filesystem::directory_iterator(folder.path())->path();
  chmod(file.c_str(), 0644);
  write_text(file, "process 1 (`init`) since 00:00:00");
  const Holder holder(folder, For::timing);
  const auto lock = DeviceLock::acquire(For::work, folder.path(), "device", {.seconds = 0, .tell = {}});
  REQUIRE_FALSE(lock);
  CHECK_THAT(lock.error().message, Catch::Contains(fmt::format("process {} ", holder.pid())));
}

TEST_CASE("cache: the device lock is one for all users, and is no way to other files", "[tune]") {
  const Folder folder;
  const auto before = umask(0077);
  CHECK(DeviceLock::acquire(For::work, folder.path(), "device"));
  umask(before);
  const auto file = std::filesystem::directory_iterator(folder.path())->path();
  struct stat facts{};
  REQUIRE(stat(file.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0444);

  std::filesystem::remove(file);
  std::filesystem::create_symlink(folder / "elsewhere", file);
  const auto linked = DeviceLock::acquire(For::work, folder.path(), "device");
  REQUIRE_FALSE(linked);
  CHECK_THAT(linked.error().message, Catch::Contains(file.string()));
  CHECK_FALSE(std::filesystem::exists(folder / "elsewhere"));

  std::filesystem::remove(file);
  REQUIRE(mkfifo(file.c_str(), 0600) == 0);
  const auto pipe = DeviceLock::acquire(For::work, folder.path(), "device");
  REQUIRE_FALSE(pipe);
  CHECK_THAT(pipe.error().message, Catch::Contains("no regular file"));
}

TEST_CASE("memory: a case that does not fit names what it needs and what there is", "[tune]") {
  const auto what = parse_case("forward H4 K64 V64 f32 @ B1 T1000").value();
  CHECK(check_memory(what, 1e9));
  const auto refused = check_memory(what, 1e6);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().status == Status::out_of_memory);
  CHECK_THAT(refused.error().message, Catch::StartsWith("needs ") and Catch::Contains("0.0 GB are available"));
  CHECK_FALSE(check_memory(parse_case("forward H1024 K256 V256 @ B1 T100000000").value()));
}

TEST_CASE("memory: tensors with their padding, a copy of the outputs and the expected ones are counted", "[tune]") {
  for (const char* line : {"forward H4 K64 V64 bf16 @ B1 T200", "forward H1 K128 V256 f32 @ B8 T3"}) {
    INFO(line);
    const auto what = parse_case(line).value();
    const Trial trial(what, Gates::weak, 2);
    REQUIRE(trial.call.passing == Passing::strided);
    double bytes = 0;
    const auto size = [](DType type) { return type == DType::f32 ? 4.0 : 6.0; };  // 16 bits, and a copy in f32
    const auto& call = trial.call;
    for (const auto* tensor : {&call.q, &call.k, &call.v, &call.o})
      bytes += size(what.problem.io) * static_cast<double>(tensor->data().size());
    for (const auto* tensor : {&call.state_in, &call.state_out})
      bytes += size(what.problem.state) * static_cast<double>(tensor->data().size());
    bytes += size(what.problem.gate) * static_cast<double>(call.g.data().size());
    bytes += (4 + 8) * static_cast<double>(trial.expected.o.size() + trial.expected.state.size());
    CHECK(full_size_bytes(what) > bytes);
    CHECK(full_size_bytes(what) < 2 * bytes);
  }
}

#if not GLAIVE_SANITIZED  // whose shadow memory fits no such limit
TEST_CASE("memory: a limit of the process counts as what is available", "[tune]") {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{1 << 30, 1 << 30};
    setrlimit(RLIMIT_AS, &limit);
    _exit(available_bytes() <= 1 << 30 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("journal: everything put in comes out", "[tune]") {
  const Folder folder;
  auto journal = Journal::open(folder / "j", "glaive tune").value();
  CHECK(journal.run() == 1);
  CHECK_FALSE(journal.find_code("c0").value());
  REQUIRE(journal.put_code("c0", compiled()));
  const auto code = journal.find_code("c0").value();
  REQUIRE(code);
  CHECK(code->code.bytes == compiled().code.bytes);
  CHECK(code->code.target == host_cpu_target());
  CHECK(code->code.text_bytes == 100);
  CHECK(code->code.stack_bytes == 32);
  CHECK(code->seconds == 0.5);

  CompileRecord broken;
  broken.drop = Drop::compile_error;
  broken.message = "lower: it's \"broken\"";
  REQUIRE(journal.put_code("c1", broken));
  CHECK(journal.find_code("c1").value()->drop == Drop::compile_error);
  CHECK(journal.find_code("c1").value()->message == broken.message);

  const Verdict verdict{Drop::wrong_result, 0.25, 1e-9, "because"};
  REQUIRE(journal.put_verdict("d", "p", "v", "c0", "r1", verdict));
  const auto found = journal.find_verdict("d", "p", "v", "c0", "r1").value();
  REQUIRE(found);
  CHECK(found->drop == Drop::wrong_result);
  CHECK(found->error_o == 0.25);
  CHECK(found->error_state == 1e-9);
  CHECK(found->message == "because");
  CHECK_FALSE(journal.find_verdict("d", "p", "v", "c0", "r2").value());
}

TEST_CASE("journal: times keep every sample and their order", "[tune]") {
  const Folder folder;
  auto journal = Journal::open(folder / "j", "test").value();
  TimingRecord records[] = {timing("z", 1e-3), timing("a", 3e-3)};
  records[0].reference_samples = {2e-3, 1e-3, 4e-3};
  REQUIRE(journal.put_timings(key(), Round::screen, records));
  const auto found = journal.find_timings(key(), Round::screen).value();
  REQUIRE(found.size() == 2);
  CHECK(found[0].variant == "z");
  CHECK(found[0].timing.samples == records[0].timing.samples);
  CHECK(found[0].ratio() == Approx(0.5));
  CHECK(found[0].reference_samples == records[0].reference_samples);
  CHECK(found[1].reference_samples.empty());
  CHECK(found[1].drop == Drop::slower);
  CHECK(found[1].reference == "reference");
  CHECK(journal.find_timings(key(), Round::semifinal).value().empty());
}

TEST_CASE("journal: times of another key are not found", "[tune]") {
  const Folder folder;
  auto journal = Journal::open(folder / "j", "test").value();
  REQUIRE(journal.put_timings(key(), Round::screen, std::vector{timing("v", 1e-3)}));
  REQUIRE(journal.put_winner(key(), {"v", "c0", "{}"}));
  std::vector<CaseKey> others(6, key());
  others[0].device += "x";
  others[1].problem += "x";
  others[2].shape += "x";
  others[3].policy += "x";
  others[4].space ^= 1;
  others[5].schema += 1;
  for (const auto& other : others) {
    CHECK(journal.find_timings(other, Round::screen).value().empty());
    CHECK_FALSE(journal.find_winner(other).value());
    REQUIRE(journal.forget(other));
  }
  CHECK(journal.find_timings(key(), Round::screen).value().size() == 1);
  CHECK(journal.find_winner(key()).value());
}

TEST_CASE("journal: forgetting a case keeps code, verdicts, and the winner until there is another", "[tune]") {
  const Folder folder;
  auto journal = Journal::open(folder / "j", "test").value();
  REQUIRE(journal.put_code("c0", compiled()));
  REQUIRE(journal.put_verdict("d", "p", "v", "c0", "r", {}));
  REQUIRE(journal.put_timings(key(), Round::final, std::vector{timing("v", 1e-3)}));
  REQUIRE(journal.put_winner(key(), {"v", "c0", "{}"}));
  REQUIRE(journal.forget(key()));
  CHECK(journal.find_timings(key(), Round::final).value().empty());
  CHECK(journal.find_winner(key()).value());
  CHECK(journal.find_code("c0").value());
  CHECK(journal.find_verdict("d", "p", "v", "c0", "r").value());
}

TEST_CASE("journal: reopened, it holds what it held, and counts runs", "[tune]") {
  const Folder folder;
  {
    auto journal = Journal::open(folder / "j", "first").value();
    REQUIRE(journal.put_winner(key(), {"v", "c0", "{\"a\":1}"}));
  }
  auto journal = Journal::open(folder / "j", "second").value();
  CHECK(journal.run() == 2);
  CHECK(journal.find_winner(key()).value()->evidence == "{\"a\":1}");
  CHECK(query(folder / "j", "SELECT command FROM run") == std::vector<std::string>{"first", "second"});
}

TEST_CASE("journal: a process killed between two steps loses neither", "[tune]") {
  const Folder folder;
  const pid_t child = fork();
  if (child == 0) {
    auto journal = Journal::open(folder / "j", "child").value();
    for (int i = 0; i < 50; ++i)
      if (not journal.put_code(fmt::format("c{}", i), compiled())) _exit(1);
    ::kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  auto journal = Journal::open(folder / "j", "parent").value();
  for (int i = 0; i < 50; ++i) CHECK(journal.find_code(fmt::format("c{}", i)).value());
}

TEST_CASE("journal: a file that is no journal is an error and stays as it is", "[tune]") {
  const Folder folder;
  const std::string text(5000, 'x');
  write_text(folder / "j", text);
  chmod((folder / "j").c_str(), 0600);
  const auto journal = Journal::open(folder / "j", "test");
  REQUIRE_FALSE(journal);
  CHECK_THAT(journal.error().message, Catch::Contains("not a journal") and Catch::Contains((folder / "j").string()));
  CHECK(read_text(folder / "j") == text);
}

TEST_CASE("journal: a damaged file is an error, not a crash", "[tune]") {
  const Folder folder;
  {
    auto journal = Journal::open(folder / "j", "test").value();
    for (int i = 0; i < 200; ++i) REQUIRE(journal.put_code(fmt::format("c{}", i), compiled()));
  }
  std::string bytes = read_text(folder / "j");
  REQUIRE(bytes.size() > 8192);
  for (std::size_t i = 4096; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  write_text(folder / "j", bytes);
  auto journal = Journal::open(folder / "j", "test");
  std::string message = journal ? "" : journal.error().message;
  if (journal)
    for (int i = 0; i < 200 and message.empty(); ++i)
      if (const auto found = journal->find_code(fmt::format("c{}", i)); not found) message = found.error().message;
  CHECK_THAT(message, Catch::Contains("damaged"));
}

TEST_CASE("journal: one written by a newer glaive is left alone", "[tune]") {
  const Folder folder;
  {
    const auto journal = Journal::open(folder / "j", "test").value();
  }
  query(folder / "j", "PRAGMA user_version=99");
  const auto journal = Journal::open(folder / "j", "test");
  REQUIRE_FALSE(journal);
  CHECK_THAT(journal.error().message, Catch::Contains("newer glaive") and Catch::Contains("99"));
}

TEST_CASE("journal: one that others can write to is refused", "[tune]") {
  const Folder folder;
  {
    const auto journal = Journal::open(folder / "j", "test").value();
  }
  chmod((folder / "j").c_str(), 0666);
  const auto journal = Journal::open(folder / "j", "test");
  REQUIRE_FALSE(journal);
  CHECK(journal.error().status == Status::untrusted);
}

TEST_CASE("journal: a folder that is missing or a file is an error", "[tune]") {
  const Folder folder;
  CHECK_FALSE(Journal::open(folder / "absent/j", "test"));
  CHECK_FALSE(Journal::open(folder.path(), "test"));
}

TEST_CASE("journal: a full disk is one sentence, and what was kept is kept", "[tune]") {
  const Folder folder;
  const auto small = folder / "small";
  const testing::SmallDisk disk(small, 512);
  if (not disk.mounted()) return;
  int kept = 0;
  std::string message;
  {
    auto journal = Journal::open(small / "j", "test").value();
    auto record = compiled();
    record.code.bytes.resize(20'000);
    for (; kept < 100; ++kept)
      if (const auto put = journal.put_code(fmt::format("c{}", kept), record); not put) {
        message = put.error().message;
        break;
      }
    for (int i = 0; i < kept; ++i) CHECK(journal.find_code(fmt::format("c{}", i)).value());
  }
  CHECK(kept > 3);
  CHECK_THAT(message, Catch::Contains("disk is full"));
}

TEST_CASE("journal: a file size limit is an error of the step that meets it", "[tune]") {
  const Folder folder;
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    auto journal = Journal::open(folder / "j", "test").value();
    const rlimit limit{200'000, 200'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    auto record = compiled();
    record.code.bytes.resize(20'000);
    int kept = 0;
    for (; kept < 100; ++kept)
      if (const auto put = journal.put_code(fmt::format("c{}", kept), record); not put) {
        // Within the limit, as this line is short.
        write_text(folder / "message", put.error().message);
        break;
      }
    _exit(kept > 0 and kept < 100 ? kept : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  const int kept = WEXITSTATUS(status);
  REQUIRE(kept > 0);
  CHECK_THAT(read_text(folder / "message"),
             Catch::Contains((folder / "j").string()) and
                 Catch::Contains("the limit on file sizes (ulimit -f, 200000 bytes) is reached"));
  auto journal = Journal::open(folder / "j", "test").value();
  for (int i = 0; i < kept; ++i) CHECK(journal.find_code(fmt::format("c{}", i)).value());
}

namespace {

/// A journal as the first schema had it, with a row in every table.
void write_first_schema(const std::filesystem::path& file) {
  write_text(file, "");
  chmod(file.c_str(), 0600);
  for (
      const char* sql : {
          "CREATE TABLE run(id INTEGER PRIMARY KEY, started TEXT NOT NULL, command TEXT NOT NULL)",
          "CREATE TABLE code(content TEXT PRIMARY KEY, run INTEGER NOT NULL, result INTEGER NOT NULL, message TEXT NOT "
          "NULL, seconds REAL NOT NULL, format INTEGER NOT NULL, target TEXT NOT NULL, text_bytes INTEGER NOT NULL, "
          "stack_bytes INTEGER NOT NULL, bytes BLOB NOT NULL)",
          "CREATE TABLE verdict(device TEXT, problem TEXT, variant TEXT, content TEXT, rules TEXT, run INTEGER NOT "
          "NULL, result INTEGER NOT NULL, reason TEXT NOT NULL, error_o REAL, error_state REAL, message TEXT NOT NULL, "
          "PRIMARY KEY(device, problem, variant, content, rules))",
          "CREATE TABLE trial(device TEXT, problem TEXT, shape TEXT, policy TEXT, space INTEGER, schema INTEGER, "
          "variant TEXT, content TEXT, round INTEGER, run INTEGER NOT NULL, result INTEGER NOT NULL, reason TEXT NOT "
          "NULL, median REAL, low REAL, high REAL, samples BLOB NOT NULL, reference TEXT NOT NULL, reference_median "
          "REAL, PRIMARY KEY(device, problem, shape, policy, space, schema, variant, content, round))",
          "CREATE TABLE winner(device TEXT, problem TEXT, shape TEXT, policy TEXT, space INTEGER, schema INTEGER, run "
          "INTEGER NOT NULL, variant TEXT NOT NULL, content TEXT NOT NULL, evidence TEXT NOT NULL, PRIMARY KEY(device, "
          "problem, shape, policy, space, schema))",
          "INSERT INTO run VALUES(7, '2026-01-01 00:00:00', 'old command')",
          "INSERT INTO code VALUES('c0', 7, 2, 'no', 0.5, 0, '', 0, 0, x'')",
          "INSERT INTO verdict VALUES('d', 'p', 'v', 'c0', 'r', 7, 7, 'wrong_result', 0.25, 0.5, 'm')",
          "INSERT INTO trial VALUES('name=a; units=2', 'forward H1 K1 V1 f32', 'B1 T1', 'v1', -15, 1, 'v', 'c0', 1, 7, "
          "9, 'slower', 1.5, 1.5, 1.5, x'000000000000F83F', 'ref', 3.0)",
          "INSERT INTO winner VALUES('name=a; units=2', 'forward H1 K1 V1 f32', 'B1 T1', 'v1', -15, 1, 7, 'v', 'c0', "
          "'{}')",
          "PRAGMA user_version=1",
      })
    query(file, sql);
}

AttemptRecord attempt(std::int64_t number, std::string variant, Drop drop = Drop::none) {
  return {number, std::move(variant), "c0", 1.5e-3, number == 1, drop, drop == Drop::none ? "" : "why", 0.25, 0.5};
}

}  // namespace

TEST_CASE("journal: one of the first schema is brought up to date, and nothing is lost", "[tune]") {
  const Folder folder;
  write_first_schema(folder / "j");
  auto journal = Journal::open(folder / "j", "new command", "a compiler").value();
  CHECK(query(folder / "j", "PRAGMA user_version") == std::vector<std::string>{std::to_string(Journal::schema)});
  CHECK(query(folder / "j", "SELECT id, command FROM run ORDER BY id") ==
        std::vector<std::string>{"7|old command", "8|new command"});
  CHECK(query(folder / "j", "SELECT compiler FROM run ORDER BY id") == std::vector<std::string>{"", "a compiler"});

  const auto code = journal.find_code("c0").value();
  REQUIRE(code);
  CHECK(code->drop == Drop::compile_error);
  const auto verdict = journal.find_verdict("d", "p", "v", "c0", "r").value();
  REQUIRE(verdict);
  CHECK(verdict->drop == Drop::wrong_result);
  const auto timings = journal.find_timings(key(), Round::screen).value();
  REQUIRE(timings.size() == 1);
  CHECK(timings[0].timing.samples == std::vector<double>{1.5});
  CHECK(timings[0].ratio() == 0.5);
  CHECK(timings[0].seconds == 0);
  CHECK(timings[0].reference_samples.empty());
  CHECK(journal.find_winner(key()).value()->variant == "v");

  // What is new works on it as on a new one.
  const AttemptRecord records[] = {attempt(1, "a")};
  REQUIRE(journal.put_attempts(key(), records));
  CHECK(journal.find_cases().value() == std::vector<CaseKey>{key()});
}

TEST_CASE("journal: what only reads brings nothing up to date", "[tune]") {
  const Folder folder;
  const auto absent = Journal::open_to_read(folder / "j");
  REQUIRE_FALSE(absent);
  CHECK(absent.error().status == Status::not_found);
  CHECK_FALSE(std::filesystem::exists(folder / "j"));

  write_first_schema(folder / "j");
  const auto old = Journal::open_to_read(folder / "j");
  REQUIRE_FALSE(old);
  CHECK_THAT(old.error().message, Catch::Contains("older glaive") and Catch::Contains("loses nothing"));
  CHECK(query(folder / "j", "PRAGMA user_version") == std::vector<std::string>{"1"});
  {
    const auto updated = Journal::open(folder / "j", "test").value();
  }
  CHECK(Journal::open_to_read(folder / "j"));
  CHECK(query(folder / "j", "SELECT count(*) FROM run") == std::vector<std::string>{"2"});  // reading is no run
}

TEST_CASE("journal: it is read where nothing can be written, and what the system forbids is told", "[tune]") {
  const Folder folder;
  const auto place = folder / "a folder?#%", file = place / "j";
  std::filesystem::create_directory(place);
  {
    auto journal = Journal::open(file, "test").value();
    REQUIRE(journal.put_attempts(key(), std::vector{attempt(1, "a")}));
  }
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(place, std::filesystem::perms(0555));
  std::filesystem::permissions(file, std::filesystem::perms(0444));
  const bool root = geteuid() == 0;
  REQUIRE((not root or seteuid(65534) == 0));  // as whom permissions count
  {
    auto journal = Journal::open_to_read(file);
    CHECK((journal and journal->find_cases().value() == std::vector<CaseKey>{key()}));
  }
  const auto refused = [&](const std::filesystem::path& locked) {
    REQUIRE((not root or seteuid(0) == 0));
    std::filesystem::permissions(locked, std::filesystem::perms::none);
    REQUIRE((not root or seteuid(65534) == 0));
    const auto journal = Journal::open_to_read(file);
    return journal ? "" : journal.error().message;
  };
  const auto of_file = refused(file), of_folder = refused(place);
  REQUIRE((not root or seteuid(0) == 0));
  std::filesystem::permissions(place, std::filesystem::perms(0700));
  CHECK(of_file == fmt::format("journal {}: Permission denied", file.string()));
  CHECK(of_folder == of_file);
}

TEST_CASE("journal: attempts in the order taken up, with the cases that have them", "[tune]") {
  const Folder folder;
  auto journal = Journal::open(folder / "j", "test").value();
  CHECK(journal.find_attempts(key()).value().empty());
  const AttemptRecord first[] = {attempt(1, "b"), attempt(2, "a", Drop::wrong_result)}, second[] = {attempt(3, "c")};
  REQUIRE(journal.put_attempts(key(), first));
  REQUIRE(journal.put_attempts(key(), second));
  const auto found = journal.find_attempts(key()).value();
  REQUIRE(found.size() == 3);
  CHECK(found[0].variant == "b");
  CHECK(found[0].is_default);
  CHECK(found[1].drop == Drop::wrong_result);
  CHECK(found[1].message == "why");
  CHECK(found[2].number == 3);
  CHECK(found[2].prior == 1.5e-3);
  CHECK(found[2].compile_seconds == 0.25);
  CHECK(found[2].verify_seconds == 0.5);
  CHECK(found[2].run == journal.run());
  CHECK_FALSE(found[2].when.empty());

  auto other = key();
  other.shape = "B2 T1";
  REQUIRE(journal.put_attempts(other, second));
  CHECK(journal.find_cases().value() == std::vector<CaseKey>{key(), other});
  REQUIRE(journal.forget(key()));
  CHECK(journal.find_attempts(key()).value().empty());
  CHECK(journal.find_cases().value() == std::vector<CaseKey>{other});
}
