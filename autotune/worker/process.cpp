#include "autotune/worker/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

namespace glaive {
namespace {

/// Seconds between looks at a worker that does not answer.
constexpr double longest_tick = 0.5;

std::unexpected<Error> cannot_start(const std::string& why) {
  return fail(Status::io_error, fmt::format("the worker process cannot be started: {}", why));
}

/// Above the numbers that a worker's descriptors get, so that none lies in another's way.
int move_up(int descriptor) {
  if (descriptor < 0) return descriptor;
  const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, 2 * worker_pulse);
  const int error = errno;
  close(descriptor);
  errno = error == EINVAL ? EMFILE : error;  // the limit lies below that number
  return moved;
}

bool is_from_outside(int signal) {
  return signal == SIGKILL or signal == SIGTERM or signal == SIGHUP or signal == SIGINT or signal == SIGQUIT;
}

/// Waits up to `seconds`. The status, or nothing while it still lives.
std::optional<int> wait_for(pid_t child, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (auto pause = std::chrono::microseconds(100);; pause = std::min(2 * pause, std::chrono::microseconds(20'000))) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (ended < 0 and errno != EINTR) return 0;
    if (std::chrono::steady_clock::now() >= end) return std::nullopt;
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

Starter::Starter()
    : thread_([this] {
        std::unique_lock lock(mutex_);
        for (;;) {
          changed_.wait(lock, [&] { return over_ or next_ != nullptr; });
          if (over_) return;
          (*next_)();
          next_ = nullptr;
          changed_.notify_all();
        }
      }) {}

Starter::~Starter() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Starter::run(const std::function<void()>& function) {
  const std::lock_guard turn(turns_);
  std::unique_lock lock(mutex_);
  next_ = &function;
  changed_.notify_all();
  changed_.wait(lock, [&] { return next_ == nullptr; });
}

WorkerProcess::~WorkerProcess() { retire(); }

Result<void> WorkerProcess::start(int again) {
  if (pid_ > 0) return {};
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return cannot_start(std::strerror(errno));
  socket_ = ends[0];
  const int other_end = move_up(ends[1]);
  const int log = move_up(memfd_create("glaive-worker-log", MFD_CLOEXEC));
  const int shared = move_up(memfd_create("glaive-worker-pulse", MFD_CLOEXEC));
  std::string why;
  void* page = MAP_FAILED;
  if (other_end >= 0 and log >= 0 and shared >= 0 and ftruncate(shared, sizeof(Pulse)) == 0)
    page = mmap(nullptr, sizeof(Pulse), PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  if (page == MAP_FAILED) {
    why = std::strerror(errno);
  } else {
    pulse_ = new (page) Pulse;
    fcntl(socket_, F_SETFL, O_NONBLOCK);

    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, log, 1);
    posix_spawn_file_actions_adddup2(&files, log, 2);
    posix_spawn_file_actions_adddup2(&files, other_end, worker_socket);
    posix_spawn_file_actions_adddup2(&files, shared, worker_pulse);
    posix_spawn_file_actions_addclosefrom_np(&files, worker_pulse + 1);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

    std::vector<char*> words{const_cast<char*>(options_.program.c_str())};
    for (const auto& word : options_.arguments) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    int refused = 0;
    starter_.run(
        [&] { refused = posix_spawn(&pid_, options_.program.c_str(), &files, &attributes, words.data(), environ); });
    if (refused != 0) {
      pid_ = 0;
      why = std::strerror(refused);
    }
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  log_ = log;
  if (shared >= 0) close(shared);
  if (other_end >= 0) close(other_end);
  if (not why.empty()) {
    retire();
    return cannot_start(why);
  }

  auto out = wire::begin(wire::Ask::hello);
  wire::put(out, hello_);
  const auto bytes = out.take();
  const auto answer = exchange(bytes, {.running = options_.trusted_seconds, .trusted = options_.trusted_seconds});
  if (not answer and answer.error().from_outside and again > 0) return start(again - 1);
  if (not answer) return cannot_start(answer.error().sentence);
  ByteReader in(*answer);
  if (not wire::get_answered(in)) {
    auto failure = wire::get_failure(in);
    retire();
    return std::unexpected<Error>(std::move(failure));
  }
  welcome_ = wire::get_welcome(in);
  if (in.at_end() and welcome_->version == wire::version) return {};
  retire();
  return cannot_start("it speaks another version");
}

Result<wire::Welcome> WorkerProcess::welcome() {
  if (auto started = start(); not started) return std::unexpected(started.error());
  return *welcome_;
}

WorkerProcess::Answer WorkerProcess::ask(std::span<const std::byte> payload, Limits limits) {
  if (auto started = start(); not started) return std::unexpected(started.error());
  auto answer = exchange(payload, limits);
  if (not answer) return std::unexpected(std::move(answer.error()));
  return std::move(*answer);
}

/// Sends, then receives, and looks at the pulse whenever nothing moves for a while. What stands still is counted in
/// looks, not by the clock, so that a machine or a process group that was suspended is not taken for a hang.
std::expected<std::vector<std::byte>, Death> WorkerProcess::exchange(std::span<const std::byte> payload,
                                                                     Limits limits) {
  const auto request = wire::frame(payload);
  std::size_t sent = 0, expected = 0;
  std::vector<std::byte> received;
  pulse_->reset();
  auto seen = pulse_->seen();
  double still = 0;
  const double tick = std::clamp(std::min(limits.running, limits.trusted) / 10, 0.01, longest_tick);

  for (;;) {
    pollfd wait{};
    wait.fd = socket_;
    wait.events = static_cast<short>(sent < request.size() ? POLLOUT | POLLIN : POLLIN);
    const int ready = poll(&wait, 1, static_cast<int>(tick * 1e3));
    if (ready < 0 and errno != EINTR) return std::unexpected(bury(std::nullopt));
    if (ready == 0) {
      const auto now = pulse_->seen();
      still = now.beat == seen.beat ? still + tick : 0;
      seen = now;
      const double limit = seen.running ? limits.running : limits.trusted;
      if (still < limit) continue;
      return std::unexpected(bury(Death{.drop = Drop::hang,
                                        .from_outside = false,
                                        .who = seen.who,
                                        .sentence = fmt::format("did not end in {:.3g} s and was killed", limit)}));
    }
    if ((wait.revents & POLLOUT) != 0) {
      const auto count = send(socket_, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
      if (count < 0 and errno != EAGAIN and errno != EINTR) return std::unexpected(bury(std::nullopt));
      if (count > 0) sent += static_cast<std::size_t>(count);
    }
    if ((wait.revents & ~POLLOUT) == 0) continue;
    std::byte buffer[1 << 16];
    const auto count = recv(socket_, buffer, sizeof buffer, 0);  // NOLINT(*BlockInCriticalSection): it does not block
    if (count < 0 and (errno == EAGAIN or errno == EINTR)) continue;
    if (count <= 0) return std::unexpected(bury(std::nullopt));
    still = 0;
    received.insert(received.end(), buffer, buffer + count);
    if (expected == 0 and received.size() >= wire::header_bytes) {
      const auto size = wire::payload_bytes(std::span(received).first<wire::header_bytes>());
      if (size and *size > 0) expected = wire::header_bytes + *size;
    }
    const bool header_is_bad = expected == 0 and received.size() >= wire::header_bytes;
    if (header_is_bad or (expected != 0 and received.size() > expected) or sent < request.size())
      return std::unexpected(bury(Death{.drop = Drop::crash,
                                        .from_outside = false,
                                        .who = pulse_->seen().who,
                                        .sentence = "garbled the worker's answers"}));
    if (expected == 0 or received.size() < expected) continue;
    received.erase(received.begin(), received.begin() + wire::header_bytes);
    return received;
  }
}

/// Ends the process, if it has not ended, and releases what belonged to it. `known` is why we end it; without, the way
/// it ended tells.
Death WorkerProcess::bury(std::optional<Death> known) {
  Death death = known.value_or(Death{});
  if (not known and pulse_ != nullptr) death.who = pulse_->seen().who;
  if (pid_ > 0) {
    // Its end of the socket closes a moment before it can be waited for.
    auto status = known ? std::nullopt : wait_for(pid_, 1);
    const bool killed = not status.has_value();
    if (killed) {
      kill(pid_, SIGKILL);
      status = wait_for(pid_, 10);  // longer only where a driver does not let go of it
    }
    if (not known) {
      const auto words = last_words();
      if (killed) {
        death.sentence = "closed the worker's connection";
      } else if (WIFSIGNALED(*status)) {
        const int signal = WTERMSIG(*status);
        death.from_outside = is_from_outside(signal);
        death.sentence =
            fmt::format("{} SIG{} ({})", death.from_outside ? "the worker was killed from outside by" : "crashed with",
                        sigabbrev_np(signal), sigdescr_np(signal));
        // What is written without exceptions says so and aborts.
        if (signal == SIGABRT and (words.contains("out of memory") or words.contains("bad_alloc")))
          death.drop = Drop::memory;
      } else if (WEXITSTATUS(*status) == worker_out_of_memory) {
        death.drop = Drop::memory;
        death.sentence = hello_.memory_bytes == 0 ? "took more memory than there is"
                                                  : fmt::format("took more than the {:.1f} GB of a worker",
                                                                static_cast<double>(hello_.memory_bytes) / 1e9);
      } else {
        death.sentence = fmt::format("ended the worker with exit code {}", WEXITSTATUS(*status));
      }
      if (not words.empty()) death.sentence += ": " + words;
    }
  }
  if (socket_ >= 0) close(socket_);
  if (log_ >= 0) close(log_);
  if (pulse_ != nullptr) munmap(pulse_, sizeof(Pulse));
  pid_ = 0;
  socket_ = log_ = -1;
  pulse_ = nullptr;
  return death;
}

/// The last line that it wrote for people, such as LLVM's reason for giving up.
std::string WorkerProcess::last_words() const {
  constexpr off_t most = 400;
  const off_t size = lseek(log_, 0, SEEK_END);
  if (size <= 0) return {};
  std::string text(static_cast<std::size_t>(std::min(size, most)), ' ');
  const auto count = pread(log_, text.data(), text.size(), size - static_cast<off_t>(text.size()));
  text.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  while (not text.empty() and (text.back() == '\n' or text.back() == ' ')) text.pop_back();
  const auto line = text.rfind('\n');
  if (line != std::string::npos) text.erase(0, line + 1);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 or c == 0x7f) c = '?';
  return text;
}

}  // namespace glaive
