#include "runtime/cpu.hpp"

#include <dlfcn.h>
#include <immintrin.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <thread>

#include "runtime/files.hpp"
#include "runtime/text.hpp"

namespace glaive {
namespace {

int memory_file() {
#ifdef MFD_EXEC
  const int fd = memfd_create("glaive-code", MFD_CLOEXEC | MFD_EXEC);
  if (fd >= 0 or errno != EINVAL) return fd;
#endif
  return memfd_create("glaive-code", MFD_CLOEXEC);
}

/// The loader takes a path it has seen for the object it already has, even when the descriptor behind it is another by
/// now. So every load in the process spells the path its own way, bits as `/.` or `/`: first those of an address that
/// is this copy's of the library alone, for there may be several, then those of a count.
std::string unseen_path(int fd) {
  static std::atomic<std::uint64_t> loads = 0;
  constexpr int address_bits = 48;
  std::string path = "/proc/self/fd";
  const auto spell = [&](std::uint64_t bit) { path += bit != 0 ? "/." : "/"; };
  for (int bit = 0; bit < address_bits; ++bit) spell(reinterpret_cast<std::uintptr_t>(&loads) >> bit & 1);
  for (std::uint64_t rest = ++loads; rest > 1; rest >>= 1) spell(rest & 1);
  return path + "/" + std::to_string(fd);
}

Result<void> enable_tiles(const Target& target) {
  if (std::ranges::find(target.features, "amx-bf16") == target.features.end()) return {};
#ifdef SYS_arch_prctl
  constexpr int arch_req_xcomp_perm = 0x1023, tile_data = 18;
  if (syscall(SYS_arch_prctl, arch_req_xcomp_perm, tile_data) == 0) return {};
#endif
  return fail(Status::wrong_device, "the operating system refuses the use of AMX tiles");
}

void pause() { _mm_pause(); }

}  // namespace

Result<LoadedCode> LoadedCode::load(const CodeObject& code) {
  if (code.format != CodeObject::Format::shared_object)
    return fail(Status::wrong_device, "code for " + to_string(code.target) + " is not a shared object for a processor");
  if (auto runs = check_runs_here(code.target); not runs) return std::unexpected(std::move(runs).error());
  if (auto enabled = enable_tiles(code.target); not enabled) return std::unexpected(std::move(enabled).error());

  const Descriptor file(memory_file());
  if (not file) return io_failure("cannot make", "a file in memory", errno);
  {
    const FileSizeSignalHeld held;  // the limit on file sizes holds for memory, too
    for (std::span<const std::byte> rest = code.bytes; not rest.empty();) {
      const ssize_t written = write(file.get(), rest.data(), rest.size());
      if (written < 0 and errno == EINTR) continue;
      if (written <= 0) return io_failure("cannot write", "a file in memory", written < 0 ? errno : ENOSPC);
      rest = rest.subspan(static_cast<std::size_t>(written));
    }
  }
  void* const handle = dlopen(unseen_path(file.get()).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const said = dlerror();
    const std::string why = said != nullptr ? said : "no reason given";
    return fail(names_shortage(why) ? Status::io_error : Status::failed,
                "the loader refuses a code object of " + std::to_string(code.bytes.size()) + " bytes: " + why);
  }
  LoadedCode loaded;
  loaded.handle_ = std::shared_ptr<void>(handle, dlclose);
  return loaded;
}

Result<LoadedCode::Entry> LoadedCode::entry(std::string_view name) const {
  void* const address = dlsym(handle_.get(), std::string(name).c_str());
  if (address == nullptr) return fail(Status::failed, "the code object has no entry " + in_quotes(name));
  return reinterpret_cast<Entry>(address);
}

// NOTES: `remaining` is the only hand-out: whoever lowers it from r to r-1 owns task `tasks - r`. The run cannot end
// while that task is unfinished, so the owner may read body, context and tasks without a lock; a worker that comes
// late, even into the next run, either takes a task of the run that is on or finds none. No worker has to wake up for a
// run to end.
struct WorkerPool::Impl {
  static constexpr int spins = 4000;  // tens of microseconds: bridges the gap between the stages of a plan

  // Not a mutex: free, it costs one exchange, and no call leaves the library.
  std::atomic<std::uint32_t> running = 0;
  void (*body)(void*, std::int64_t, int) = nullptr;
  void* context = nullptr;
  std::int64_t tasks = 0;
  alignas(64) std::atomic<std::int64_t> remaining = 0;
  alignas(64) std::atomic<std::int64_t> finished = 0;
  alignas(64) std::atomic<std::uint32_t> epoch = 0;
  std::atomic<bool> stopping = false;
  alignas(64) std::atomic<std::uint32_t> ended = 0;  // as `epoch`, for the caller
  std::vector<std::thread> threads;

  void enter() {
    while (running.exchange(1, std::memory_order_acquire) != 0) running.wait(1, std::memory_order_relaxed);
  }
  void leave() {
    running.store(0, std::memory_order_release);
    running.notify_one();
  }

  void take_tasks(int worker) noexcept {
    std::int64_t r = remaining.load(std::memory_order_acquire);
    while (r > 0) {
      if (not remaining.compare_exchange_weak(r, r - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      const std::int64_t all = tasks;
      body(context, all - r, worker);
      if (finished.fetch_add(1, std::memory_order_acq_rel) + 1 == all) {
        ended.fetch_add(1, std::memory_order_release);
        ended.notify_one();
      }
      r = remaining.load(std::memory_order_acquire);
    }
  }

  template <class Value>
  static void wait_for_change(const std::atomic<Value>& value, Value old) {
    for (int i = 0; i < spins; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause();
    }
    value.wait(old, std::memory_order_acquire);
  }

  void serve(int worker) {
    for (;;) {
      const std::uint32_t seen = epoch.load(std::memory_order_acquire);
      if (stopping.load(std::memory_order_acquire)) return;
      take_tasks(worker);
      wait_for_change(epoch, seen);
    }
  }

  void wake() {
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
  }

  void stop() {
    stopping.store(true, std::memory_order_release);
    wake();
    for (std::thread& thread : threads) thread.join();
  }
};

WorkerPool::WorkerPool(int workers) : impl_(std::make_unique<Impl>()) {
  // The process's signals go to its own threads, never to ours, which inherit the mask of this moment.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    impl_->threads.reserve(static_cast<std::size_t>(std::max(0, workers - 1)));
    for (int worker = 1; worker < workers; ++worker)
      impl_->threads.emplace_back([impl = impl_.get(), worker] { impl->serve(worker); });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    impl_->stop();
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

WorkerPool::~WorkerPool() { impl_->stop(); }

int WorkerPool::workers() const { return static_cast<int>(impl_->threads.size()) + 1; }

void WorkerPool::run(std::int64_t tasks, void (*body)(void* context, std::int64_t task, int worker), void* context) {
  if (tasks <= 0) return;
  if (impl_->threads.empty()) {
    for (std::int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
  impl_->enter();
  if (tasks == 1) {
    body(context, 0, 0);
    return impl_->leave();
  }
  impl_->body = body;
  impl_->context = context;
  impl_->tasks = tasks;
  impl_->finished.store(0, std::memory_order_relaxed);
  const std::uint32_t seen = impl_->ended.load(std::memory_order_relaxed);
  impl_->remaining.store(tasks, std::memory_order_release);
  impl_->wake();
  impl_->take_tasks(0);
  impl_->wait_for_change(impl_->ended, seen);
  impl_->leave();
}

Result<CpuKernel> CpuKernel::load(const Plan& plan, std::span<const CodeObject> code) {
  if (plan.target.kind != Target::Kind::cpu)
    return fail(Status::wrong_device, "a plan for " + to_string(plan.target) + " does not run on a processor");
  CpuKernel kernel;
  kernel.plan_ = plan;
  for (const CodeObject& object : code) {
    auto loaded = LoadedCode::load(object);
    if (not loaded) return std::unexpected(std::move(loaded).error());
    kernel.code_.push_back(std::move(*loaded));
  }
  for (const Stage& stage : plan.stages) {
    if (stage.code >= code.size())
      return fail(Status::bad_pack, "stage " + in_quotes(stage.entry) + " names code object " +
                                        std::to_string(stage.code) + " of " + std::to_string(code.size()));
    if (stage.args.size() > arg_count)
      return fail(Status::bad_pack, "stage " + in_quotes(stage.entry) + " has " + std::to_string(stage.args.size()) +
                                        " arguments, more than the " + std::to_string(arg_count) + " there are");
    if (not stage.maps.empty())
      return fail(Status::bad_pack,
                  "stage " + in_quotes(stage.entry) + " takes tensor maps, which a processor has not");
    auto entry = kernel.code_[stage.code].entry(stage.entry);
    if (not entry) return std::unexpected(std::move(entry).error());
    kernel.entries_.push_back(*entry);
  }
  return kernel;
}

void CpuKernel::run(const Words& words, const Extents& extents, void* workspace, WorkerPool& pool) const {
  Launch launch;
  launch.words = words;
  launch.extents = extents;
  launch.workspace = workspace;
  launch.words.set_pointer(Arg::workspace, workspace);
  launch.words.set_extents(extents);
  run(launch, pool);
}

void CpuKernel::run(const Launch& launch, WorkerPool& pool) const {
  struct Running {
    LoadedCode::Entry entry;
    std::byte* scratch;
    std::int64_t scratch_bytes;
    std::uint64_t words[arg_count];
  } running;
  running.scratch = static_cast<std::byte*>(launch.workspace) + shared_workspace_bytes(plan_, launch.extents);
  running.scratch_bytes = scratch_bytes_per_worker(plan_);
  for (std::size_t i = 0; i < plan_.stages.size(); ++i) {
    const Stage& stage = plan_.stages[i];
    running.entry = entries_[i];
    for (std::size_t a = 0; a < stage.args.size(); ++a) running.words[a] = launch.words[stage.args[a]];
    const auto one_task = [](void* context, std::int64_t task, int worker) {
      const auto& r = *static_cast<const Running*>(context);
      r.entry(r.words, task, r.scratch + worker * r.scratch_bytes);
    };
    pool.run(stage.tasks.at(launch.extents), one_task, &running);
  }
}

namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads) : Device(host_cpu_device(), threads), pool_(threads) {}

  bool runs(const Target& target) const override { return check_runs_here(target).has_value(); }

  Result<std::unique_ptr<const Kernel>> load(const Plan& plan, std::span<const CodeObject> code) override {
    auto kernel = CpuKernel::load(plan, code);
    if (not kernel) return std::unexpected(std::move(kernel).error());
    return std::make_unique<const Loaded>(std::move(*kernel), pool_);
  }

 private:
  class Loaded final : public Kernel {
   public:
    Loaded(CpuKernel kernel, WorkerPool& pool) : kernel_(std::move(kernel)), pool_(pool) {}
    const Plan& plan() const override { return kernel_.plan(); }
    Result<void> launch(const Launch& launch) const override {
      kernel_.run(launch, pool_);
      return {};
    }

   private:
    CpuKernel kernel_;
    WorkerPool& pool_;
  };

  WorkerPool pool_;
};

}  // namespace

Result<std::shared_ptr<Device>> open_cpu(int threads) {
  try {
    return std::make_shared<CpuDevice>(threads);
  } catch (const std::system_error& error) {
    return fail(Status::failed, "cannot start " + std::to_string(threads) + " threads: " + error.what());
  }
}

}  // namespace glaive
