// Packs as files: trust, failures of the system, crashes and concurrent writers.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "runtime/files.hpp"
#include "runtime/pack.hpp"
#include "tests/runtime/support.hpp"
#include "tests/small_disk.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {
bool folders_cannot_be_flushed = false;
}

/// In the place of the C library's, for this program: a file system whose folders cannot be flushed.
extern "C" int fsync(int file) {
  struct stat facts = {};
  if (folders_cannot_be_flushed and fstat(file, &facts) == 0 and S_ISDIR(facts.st_mode)) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(syscall(SYS_fsync, file));
}

namespace {

Result<void> add(const fs::path& file, const PackEntry& entry) { return add_to_pack(file, {&entry, 1}); }

std::vector<std::uint64_t> spaces(const fs::path& file) {
  const auto pack = Pack::open(file);
  REQUIRE(pack.has_value());
  std::vector<std::uint64_t> all;
  for (std::size_t i = 0; i < pack->size(); ++i) {
    all.push_back(pack->key(i).space);
    REQUIRE(pack->load(i).has_value());
  }
  return all;
}

/// A sentence fit to be shown: one line that names the path.
void check_sentence(const Error& error, const fs::path& path, const char* part) {
  INFO(error.message);
  CHECK(contains(error.message, path.string()));
  CHECK(contains(error.message, part));
  CHECK_FALSE(contains(error.message, "\n"));
}

PackEntry big_entry(int number, std::size_t bytes) {
  PackEntry entry = small_entry(number);
  entry.code[0].bytes.assign(bytes, std::byte{1});
  return entry;
}

}  // namespace

TEST_CASE("adding makes the pack and its folder, keeps other entries and replaces equal keys") {
  Folder folder;
  const fs::path file = folder / "a/b/p.pack";
  REQUIRE(add(file, small_entry(1)).has_value());
  REQUIRE(add(file, small_entry(2)).has_value());
  CHECK(spaces(file) == std::vector<std::uint64_t>{1, 2});
  PackEntry again = small_entry(1);
  again.evidence = "retuned";
  REQUIRE(add(file, again).has_value());
  CHECK(spaces(file) == std::vector<std::uint64_t>{2, 1});
  CHECK(Pack::open(file)->load(1)->evidence == "retuned");
  const PackEntry twice[] = {small_entry(5), again, small_entry(5)};
  REQUIRE(add_to_pack(file, twice).has_value());
  CHECK(spaces(file).size() == 3);
}

TEST_CASE("a pack is written with a mode that it can be opened with") {
  Folder folder;
  CHECK(in_child([&] {
          umask(0);
          return add(folder / "p.pack", small_entry(1)).has_value() and Pack::open(folder / "p.pack").has_value() ? 0
                                                                                                                  : 1;
        }) == 0);
  CHECK(folder.names() == std::vector<std::string>{"p.pack", "p.pack.lock"});
}

TEST_CASE("an opened pack stays as it was while others replace the file") {
  Folder folder;
  REQUIRE(add(folder / "p.pack", small_entry(1)).has_value());
  const auto before = Pack::open(folder / "p.pack");
  REQUIRE(add(folder / "p.pack", small_entry(2)).has_value());
  CHECK(before->size() == 1);
  CHECK(before->load(0)->evidence == "evidence 1");
}

TEST_CASE("a link to a pack stays a link") {
  Folder folder;
  REQUIRE(add(folder / "real.pack", small_entry(1)).has_value());
  fs::create_symlink("real.pack", folder / "link.pack");
  REQUIRE(add(folder / "link.pack", small_entry(2)).has_value());
  CHECK(fs::is_symlink(folder / "link.pack"));
  CHECK(spaces(folder / "real.pack").size() == 2);
}

TEST_CASE("through a link to a pack that is yet to be, that pack is made") {
  Folder folder;
  fs::create_symlink("later/real.pack", folder / "link.pack");
  REQUIRE(check_addable(folder / "link.pack").has_value());
  REQUIRE(add(folder / "link.pack", small_entry(1)).has_value());
  CHECK(fs::is_symlink(folder / "link.pack"));
  CHECK(spaces(folder / "later/real.pack").size() == 1);
  fs::create_symlink("round.pack", folder / "round.pack");
  const auto round = add(folder / "round.pack", small_entry(1));
  REQUIRE_FALSE(round.has_value());
  check_sentence(round.error(), folder / "round.pack", "Too many levels of symbolic links");
}

TEST_CASE("a pack keeps its mode when entries are added, but for the right of others to write") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  REQUIRE(add(file, small_entry(1)).has_value());
  for (const mode_t mode : {0600, 0640, 0644, 0755}) {
    REQUIRE(chmod(file.c_str(), mode) == 0);
    REQUIRE(add(file, small_entry(2)).has_value());
    struct stat facts = {};
    REQUIRE(stat(file.c_str(), &facts) == 0);
    CHECK((facts.st_mode & 07777) == mode);
  }
  REQUIRE(chmod(file.c_str(), 0666) == 0);
  REQUIRE(replace_file(file, encode_pack({})).has_value());
  struct stat facts = {};
  REQUIRE(stat(file.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 07777) == 0644);
}

TEST_CASE("a folder that cannot be flushed is no error: the new pack is in place by then") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  folders_cannot_be_flushed = true;
  const auto added = add(file, small_entry(1));
  folders_cannot_be_flushed = false;
  CHECK(added.has_value());
  CHECK(spaces(file) == std::vector<std::uint64_t>{1});
}

TEST_CASE("whether a pack can be put somewhere is found out beforehand, and leaves no trace") {
  Folder folder;
  REQUIRE(check_addable(folder / "a/b/p.pack").has_value());
  CHECK(fs::is_empty(folder / "a/b"));
  write_bytes(folder / "file", {});
  const auto inside = check_addable(folder / "file/p.pack");
  REQUIRE_FALSE(inside.has_value());
  CHECK(inside.error().status == Status::io_error);
  check_sentence(inside.error(), folder / "file", "Not a directory");
  const auto nowhere = check_addable("/proc/nope/p.pack");
  REQUIRE_FALSE(nowhere.has_value());
  CHECK(nowhere.error().status == Status::io_error);
  check_sentence(nowhere.error(), "/proc/nope", "No such file");
}

TEST_CASE("a missing pack, a folder and a pipe in its place") {
  Folder folder;
  const auto missing = Pack::open(folder / "none.pack");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().status == Status::not_found);
  check_sentence(missing.error(), folder / "none.pack", "No such file");
  CHECK(Pack::open(folder.path()).error().status == Status::bad_pack);
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(Pack::open(folder / "pipe").error().status == Status::bad_pack);
  write_bytes(folder / "empty", {});
  CHECK(Pack::open(folder / "empty").error().status == Status::bad_pack);
}

TEST_CASE("a pack that others can write to is refused, for reading and for adding") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  REQUIRE(add(file, small_entry(1)).has_value());
  for (const mode_t mode : {0666, 0664, 0646, 0622}) {
    REQUIRE(chmod(file.c_str(), mode) == 0);
    const auto pack = Pack::open(file);
    REQUIRE_FALSE(pack.has_value());
    CHECK(pack.error().status == Status::untrusted);
    check_sentence(pack.error(), file, "written by others");
    CHECK(add(file, small_entry(2)).error().status == Status::untrusted);
  }
  REQUIRE(chmod(file.c_str(), 0644) == 0);
  CHECK(spaces(file) == std::vector<std::uint64_t>{1});
}

TEST_CASE("a pack of another user is refused, one of root is not") {
  if (geteuid() != 0) {
    WARN("skipped: only root can give files away");
    return;
  }
  Folder folder;
  const fs::path file = folder / "p.pack";
  REQUIRE(add(file, small_entry(1)).has_value());
  REQUIRE(chmod(folder.path().c_str(), 0755) == 0);
  CHECK(in_child([&] { return setuid(65534) == 0 and Pack::open(file).has_value() ? 0 : 1; }) == 0);
  REQUIRE(chown(file.c_str(), 65534, 65534) == 0);
  CHECK(Pack::open(file).error().status == Status::untrusted);
  check_sentence(Pack::open(file).error(), file, "belongs to user 65534");
  CHECK(in_child([&] { return setuid(65534) == 0 and Pack::open(file).has_value() ? 0 : 1; }) == 0);
}

TEST_CASE("a file that is no readable pack is not overwritten") {
  Folder folder;
  const std::string text = "somebody's notes";
  write_bytes(folder / "notes.txt", std::as_bytes(std::span(text)));
  const auto result = add(folder / "notes.txt", small_entry(1));
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().status == Status::bad_pack);
  check_sentence(result.error(), folder / "notes.txt", "no glaive pack");
  CHECK(read_bytes(folder / "notes.txt").size() == text.size());
}

TEST_CASE("a damaged entry is carried along, and healed when its key is added again") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  const PackEntry entries[] = {small_entry(1), small_entry(2)};
  auto bytes = encode_pack(entries);
  bytes.back() ^= std::byte{1};
  write_bytes(file, bytes);
  REQUIRE(add(file, small_entry(3)).has_value());
  const auto pack = Pack::open(file);
  REQUIRE(pack->size() == 3);
  CHECK(pack->load(0).has_value());
  CHECK_FALSE(pack->load(1).has_value());
  REQUIRE(add(file, small_entry(2)).has_value());
  CHECK(spaces(file).size() == 3);
}

TEST_CASE("an entry that could not be loaded is not written") {
  Folder folder;
  PackEntry bad = small_entry(1);
  bad.plan.stages[0].code = 5;
  const auto result = add(folder / "p.pack", bad);
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().status == Status::invalid_argument);
  CHECK(folder.names().empty());
}

TEST_CASE("a file in the folder's place") {
  Folder folder;
  write_bytes(folder / "file", {});
  const auto result = add(folder / "file/p.pack", small_entry(1));
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().status == Status::io_error);
  check_sentence(result.error(), folder / "file", "Not a directory");
  CHECK(Pack::open(folder / "file/p.pack").error().status == Status::io_error);
}

TEST_CASE("a folder that may not be written to") {
  if (geteuid() != 0) {
    WARN("skipped: only root can drop its rights in a child");
    return;
  }
  Folder folder;
  REQUIRE(chmod(folder.path().c_str(), 0555) == 0);
  CHECK(in_child([&] {
          if (setuid(65534) != 0) return 2;
          const auto result = add(folder / "p.pack", small_entry(1));
          return not result and result.error().status == Status::io_error and
                         contains(result.error().message, "Permission denied")
                     ? 0
                     : 1;
        }) == 0);
}

TEST_CASE("a folder in the pack's place") {
  Folder folder;
  fs::create_directory(folder / "p.pack");
  CHECK_FALSE(add(folder / "p.pack", small_entry(1)).has_value());
  CHECK(folder.names() == std::vector<std::string>{"p.pack", "p.pack.lock"});
}

TEST_CASE("a limit on file sizes is an error, not the end of the process, and leaves the old pack") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  REQUIRE(add(file, small_entry(1)).has_value());
  CHECK(in_child([&] {
          const rlimit limit = {4096, 4096};
          setrlimit(RLIMIT_FSIZE, &limit);
          const auto result = add(file, big_entry(2, 1 << 20));
          if (result or result.error().status != Status::io_error) return 1;
          if (not contains(result.error().message, "File too large")) return 2;
          // The signal is gone and as deadly as before for anyone else's write.
          sigset_t pending;
          sigpending(&pending);
          if (sigismember(&pending, SIGXFSZ)) return 3;
          sigset_t blocked;
          pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
          return sigismember(&blocked, SIGXFSZ) ? 4 : 0;
        }) == 0);
  CHECK(spaces(file) == std::vector<std::uint64_t>{1});
  CHECK(folder.names() == std::vector<std::string>{"p.pack", "p.pack.lock"});
}

TEST_CASE("a full disk is an error that leaves the old pack and no temporary file") {
  Folder folder;
  const SmallDisk disk(folder.path(), 64);
  if (not disk.mounted()) return;
  const fs::path file = folder / "p.pack";
  const auto first = add(file, small_entry(1));
  const auto second = add(file, big_entry(2, 1 << 20));
  const auto after = spaces(file);
  const auto names = folder.names();
  CHECK(first.has_value());
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().status == Status::io_error);
  check_sentence(second.error(), file, "No space left");
  CHECK(after == std::vector<std::uint64_t>{1});
  CHECK(names == std::vector<std::string>{"p.pack", "p.pack.lock"});
}

TEST_CASE("what a killed writer left behind is no hindrance") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  write_bytes(folder / "p.pack.tmp", std::vector<std::byte>(10));
  write_bytes(folder / "p.pack.lock", {});
  REQUIRE(add(file, small_entry(1)).has_value());
  CHECK(folder.names() == std::vector<std::string>{"p.pack", "p.pack.lock"});
}

TEST_CASE("a writer killed at any moment leaves the old or the new pack") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  REQUIRE(add(file, big_entry(1, 200000)).has_value());
  std::mt19937 random(11);
  for (int i = 0; i < 30; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (int n = 2;; ++n) (void)add(file, big_entry(2 + n % 5, 200000));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 8000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto all = spaces(file);  // opens, and every entry loads
    REQUIRE(std::count(all.begin(), all.end(), 1u) == 1);
  }
}

TEST_CASE("32 concurrent writers lose nothing") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  std::vector<pid_t> children;
  for (int writer = 0; writer < 32; ++writer) {
    const pid_t child = fork();
    if (child == 0) {
      for (int i = 0; i < 3; ++i)
        if (not add(file, small_entry(writer * 3 + i))) _exit(1);
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int state = 0;
    waitpid(child, &state, 0);
    CHECK(state == 0);
  }
  auto all = spaces(file);
  std::sort(all.begin(), all.end());
  REQUIRE(all.size() == 96);
  for (std::size_t i = 0; i < all.size(); ++i) CHECK(all[i] == i);
  CHECK(folder.names() == std::vector<std::string>{"p.pack", "p.pack.lock"});
}

TEST_CASE("threads of one process may add at the same time") {
  Folder folder;
  const fs::path file = folder / "p.pack";
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 4; ++i) (void)add(file, small_entry(t * 4 + i));
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(spaces(file).size() == 32);
}

TEST_CASE("opening a large pack is quick") {
  Folder folder;
  std::vector<PackEntry> entries;
  for (int i = 0; i < 400; ++i) entries.push_back(big_entry(i, 50000));
  write_bytes(folder / "p.pack", encode_pack(entries));
  const auto begin = std::chrono::steady_clock::now();
  const auto pack = Pack::open(folder / "p.pack");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  REQUIRE(pack->size() == 400);
  CHECK(seconds.count() < 0.02);  // reading all of its 20 MB would take longer than the index's 0.1 MB
}
