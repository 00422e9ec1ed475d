#include "runtime/cpu.hpp"

#include <sys/resource.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

std::size_t open_files() {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), {}));
}

std::int64_t which(const LoadedCode& code) {
  std::int64_t answer = 0;
  const std::uint64_t words[] = {reinterpret_cast<std::uintptr_t>(&answer)};
  (*code.entry("which"))(words, 0, nullptr);
  return answer;
}

template <class Body>
void run(WorkerPool& pool, std::int64_t tasks, Body body) {
  pool.run(
      tasks, [](void* context, std::int64_t task, int worker) { (*static_cast<Body*>(context))(task, worker); }, &body);
}

/// Workspace as a caller would hand it over.
struct Memory {
  explicit Memory(std::int64_t bytes)
      : pointer(std::aligned_alloc(64, static_cast<std::size_t>((bytes + 64) / 64 * 64))) {}
  Memory(const Memory&) = delete;
  ~Memory() { std::free(pointer); }
  void* pointer;
};

}  // namespace

TEST_CASE("words hold pointers, numbers and the bits of scalars") {
  Words words;
  int x = 0;
  words.set_pointer(Arg::q, &x);
  words.set_scalar(Arg::scale, 1.0f);
  words[Arg::q_head] = 77;
  CHECK(words[Arg::q] == reinterpret_cast<std::uintptr_t>(&x));
  CHECK(words[Arg::scale] == 0x3f800000u);
  CHECK(words[Arg::q_head] == 77);
  CHECK(words[Arg::workspace] == 0);
}

TEST_CASE("code is loaded from memory, with no file and no descriptor left open") {
  const std::size_t before = open_files();
  const auto code = LoadedCode::load(kernel_object());
  REQUIRE(code.has_value());
  CHECK(open_files() == before);
  CHECK(which(*code) == 1);
  const auto missing = code->entry("no_such_entry");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().status == Status::failed);
  CHECK(contains(missing.error().message, "no_such_entry"));
}

TEST_CASE("code objects loaded one after the other and together stay apart") {
  // The loader knows objects by path, and the same descriptor number comes up every time.
  std::vector<LoadedCode> kept;
  for (int i = 0; i < 40; ++i) {
    const auto one = LoadedCode::load(kernel_object(TEST_KERNEL_1)),
               two = LoadedCode::load(kernel_object(TEST_KERNEL_2));
    REQUIRE(one.has_value());
    REQUIRE(two.has_value());
    REQUIRE(which(*one) == 1);
    REQUIRE(which(*two) == 2);
    kept.push_back(i % 2 ? *one : *two);
  }
  for (int i = 0; i < 40; ++i) REQUIRE(which(kept[static_cast<std::size_t>(i)]) == (i % 2 ? 1 : 2));
}

TEST_CASE("code is unloaded with its last owner") {
  const auto mapped = [] {
    const auto maps = read_bytes("/proc/self/maps");
    return contains({reinterpret_cast<const char*>(maps.data()), maps.size()}, "glaive-code");
  };
  {
    auto code = LoadedCode::load(kernel_object());
    REQUIRE(code.has_value());
    const LoadedCode other = *code;
    code = fail(Status::failed, "");
    CHECK(mapped());
    CHECK(which(other) == 1);
  }
  CHECK_FALSE(mapped());
}

TEST_CASE("code that cannot run here is refused before the loader sees it") {
  CodeObject code = kernel_object();
  code.target = *parse_target("cuda:sm_90a");
  CHECK(LoadedCode::load(code).error().status == Status::wrong_device);
  code.target = {Target::Kind::cpu, "x86-64-v4", {"avx1024"}};
  CHECK(LoadedCode::load(code).error().status == Status::wrong_device);
  code = kernel_object();
  code.format = CodeObject::Format::ptx;
  CHECK(LoadedCode::load(code).error().status == Status::wrong_device);
}

TEST_CASE("what is no shared object is refused with the loader's reason") {
  CodeObject code = kernel_object();
  for (const char* text : {"",
                           "\x7f"
                           "ELF",
                           "not code at all"}) {
    const std::string rubbish = text;
    code.bytes.assign(reinterpret_cast<const std::byte*>(rubbish.data()),
                      reinterpret_cast<const std::byte*>(rubbish.data()) + rubbish.size());
    const std::size_t before = open_files();
    const auto loaded = LoadedCode::load(code);
    REQUIRE_FALSE(loaded.has_value());
    CHECK(loaded.error().status == Status::failed);
    CHECK(contains(loaded.error().message, "the loader refuses"));
    CHECK(open_files() == before);
  }
}

TEST_CASE("a limit on file sizes is an error of the load that meets it, not the end of the process") {
  CHECK(in_child([] {
          const rlimit limit = {4096, 4096};
          setrlimit(RLIMIT_FSIZE, &limit);
          const auto loaded = LoadedCode::load(kernel_object());
          if (loaded or loaded.error().status != Status::io_error) return 1;
          return contains(loaded.error().message, "File too large") ? 0 : 2;
        }) == 0);
}

TEST_CASE("a load that is short of descriptors says so with a status of its own") {
  const CodeObject code = kernel_object();
  for (const rlim_t left : {0, 1}) {  // no memory file; one, but the loader cannot open it
    INFO(left);
    CHECK(in_child([&] {
            const int lowest = dup(0);
            close(lowest);
            const rlimit limit = {static_cast<rlim_t>(lowest) + left, static_cast<rlim_t>(lowest) + left};
            setrlimit(RLIMIT_NOFILE, &limit);
            const auto loaded = LoadedCode::load(code);
            if (loaded or loaded.error().status != Status::io_error) return 1;
            return contains(loaded.error().message, "Too many open files") ? 0 : 2;
          }) == 0);
  }
}

TEST_CASE("a pool runs every task once, with workers in range") {
  for (const int workers : {1, 2, 3, 8}) {
    WorkerPool pool(workers);
    CHECK(pool.workers() == workers);
    for (const std::int64_t tasks : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> ran(static_cast<std::size_t>(tasks));
      std::atomic<bool> in_range = true;
      run(pool, tasks, [&](std::int64_t task, int worker) {
        ran[static_cast<std::size_t>(task)].fetch_add(1);
        if (worker < 0 or worker >= workers) in_range = false;
      });
      CHECK(std::all_of(ran.begin(), ran.end(), [](const auto& n) { return n == 1; }));
      CHECK(in_range);
    }
  }
}

TEST_CASE("a pool of no or fewer workers is the calling thread") {
  for (const int workers : {0, -3, 1}) {
    WorkerPool pool(workers);
    CHECK(pool.workers() == 1);
    const auto caller = std::this_thread::get_id();
    bool same = true;
    run(pool, 10,
        [&](std::int64_t, int worker) { same = same and worker == 0 and std::this_thread::get_id() == caller; });
    CHECK(same);
  }
}

TEST_CASE("a pool runs again and again, asleep or awake, and every run is complete when it returns") {
  WorkerPool pool(4);
  for (int round = 0; round < 5000; ++round) {
    std::int64_t sum[4] = {};  // plain memory: each worker writes its own
    const std::int64_t tasks = 1 + round % 13;
    run(pool, tasks, [&](std::int64_t task, int worker) { sum[worker] += task + 1; });
    REQUIRE(sum[0] + sum[1] + sum[2] + sum[3] == tasks * (tasks + 1) / 2);
    if (round % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

TEST_CASE("no worker runs two tasks at a time, and tasks are spread over workers") {
  WorkerPool pool(4);
  std::atomic<int> busy[4] = {};
  std::atomic<bool> clash = false;
  std::atomic<int> used = 0;
  int ran[4] = {};
  run(pool, 64, [&](std::int64_t, int worker) {
    if (busy[worker].fetch_add(1) != 0) clash = true;
    if (ran[worker]++ == 0) ++used;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    busy[worker].fetch_sub(1);
  });
  CHECK_FALSE(clash);
  CHECK(used == 4);
  CHECK(*std::max_element(ran, ran + 4) <= 40);  // handed out as workers come free
}

TEST_CASE("a run returns when its last task is done, not when the caller has no more to do") {
  WorkerPool pool(4);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> started = 0, done = 0;
    run(pool, 4, [&](std::int64_t, int worker) {
      for (++started; started < 4;) std::this_thread::yield();  // so that each worker has one task
      if (worker != 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ++done;
    });
    REQUIRE(done == 4);
  }
}

TEST_CASE("several threads may call one pool: runs queue up") {
  WorkerPool pool(3);
  constexpr int callers = 4;
  std::atomic<int> ready = 0, ran = 0, active[callers] = {};
  std::atomic<bool> overlapped = false;
  std::vector<std::thread> threads;
  for (int caller = 0; caller < callers; ++caller)
    threads.emplace_back([&, caller] {
      for (++ready; ready < callers;) std::this_thread::yield();
      for (int i = 0; i < 5; ++i)
        run(pool, 6, [&](std::int64_t, int) {
          active[caller].fetch_add(1);
          std::this_thread::sleep_for(std::chrono::microseconds(300));
          for (int other = 0; other < callers; ++other)
            if (other != caller and active[other] != 0) overlapped = true;
          ran.fetch_add(1);
          active[caller].fetch_sub(1);
        });
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(ran == callers * 5 * 6);
  CHECK_FALSE(overlapped);
}

TEST_CASE("pools come and go") {
  for (int i = 0; i < 200; ++i) {
    WorkerPool pool(1 + i % 4);
    std::atomic<int> n = 0;
    if (i % 3) run(pool, 5, [&](std::int64_t, int) { ++n; });
    REQUIRE(n == (i % 3 ? 5 : 0));
  }
}

TEST_CASE("a kernel runs its stages in order, each complete before the next") {
  Plan plan;
  plan.variant = "order";
  plan.target = base_target();
  Stage write, sum;
  write.entry = "write_numbers";
  write.tasks = {1, {{Axis::tokens, 1}}};
  write.args = {Arg::workspace};
  sum.entry = "sum_numbers";
  sum.args = {Arg::workspace, Arg::o, Arg::tokens};
  sum.scratch_bytes = 8;
  plan.stages = {write, sum};
  plan.workspace = {{8, {{Axis::tokens, 1}}}};
  const CodeObject code[] = {kernel_object()};
  const auto kernel = CpuKernel::load(plan, code);
  REQUIRE(kernel.has_value());
  WorkerPool pool(3);
  for (const std::int64_t tokens : {1, 2, 100, 1000}) {
    const Extents e = extents_of(*parse_problem(kernel_problem), Shape::uniform(Sequences(1), Tokens(tokens)), 3);
    Memory workspace(workspace_bytes(plan, e));
    std::int64_t o = 0;
    Words words;
    words.set_pointer(Arg::o, &o);
    kernel->run(words, e, workspace.pointer, pool);
    CHECK(o == tokens * (tokens + 1) / 2);
  }
}

TEST_CASE("each worker has scratch of its own, aligned, behind the shared workspace") {
  constexpr int workers = 4;
  Plan plan;
  plan.variant = "scratch";
  plan.target = base_target();
  Stage stage;
  stage.entry = "note_scratch";
  stage.tasks = {workers, {}};
  stage.args = {Arg::o, Arg::tokens};
  stage.scratch_bytes = 100;
  plan.stages = {stage};
  plan.workspace = {{10, {}}};
  const CodeObject code[] = {kernel_object()};
  const auto kernel = CpuKernel::load(plan, code);
  REQUIRE(kernel.has_value());
  WorkerPool pool(workers);
  const Extents e = extents_of(*parse_problem(kernel_problem), Shape::uniform(Sequences(1), Tokens(workers)), workers);
  REQUIRE(workspace_bytes(plan, e) == 64 + workers * 128);
  Memory workspace(workspace_bytes(plan, e));
  std::int64_t noted[1 + workers] = {};
  Words words;
  words.set_pointer(Arg::o, noted);
  kernel->run(words, e, workspace.pointer, pool);
  std::sort(noted + 1, noted + 1 + workers);
  const auto base = reinterpret_cast<std::intptr_t>(workspace.pointer);
  for (int worker = 0; worker < workers; ++worker) CHECK(noted[1 + worker] - base == 64 + worker * 128);
}

TEST_CASE("a kernel whose plan and code do not fit is refused") {
  const CodeObject code[] = {kernel_object()};
  Plan plan = kernel_plan();
  CHECK(CpuKernel::load(plan, code).has_value());
  plan.stages[0].code = 1;
  CHECK(CpuKernel::load(plan, code).error().status == Status::bad_pack);
  plan = kernel_plan();
  plan.stages[0].entry = "missing";
  CHECK(contains(CpuKernel::load(plan, code).error().message, "missing"));
  plan = kernel_plan();
  plan.stages[0].args.resize(arg_count + 1);
  CHECK(CpuKernel::load(plan, code).error().status == Status::bad_pack);
  plan = kernel_plan();
  plan.stages[0].maps.resize(1);
  CHECK(contains(CpuKernel::load(plan, code).error().message, "tensor maps"));
  plan = kernel_plan();
  plan.target = *parse_target("cuda:sm_90a");
  CHECK(CpuKernel::load(plan, code).error().status == Status::wrong_device);
}
