#pragma once
#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "autotune/pulse.hpp"
#include "autotune/worker/wire.hpp"
#include "autotune/worker/worker.hpp"

namespace glaive {

// Where a worker finds what it shares with the tuner.
inline constexpr int worker_socket = 3, worker_pulse = 4;
/// A worker ends with this code when the code it runs, or compiles, took more memory than it may.
inline constexpr int worker_out_of_memory = 86;

/// Runs functions on one thread that lives as long as this object: the system kills a worker when the thread that
/// started it ends, and threads that compile come and go.
class Starter {
 public:
  Starter();
  Starter(const Starter&) = delete;
  ~Starter();
  void run(const std::function<void()>& function);  ///< returns when it is done

 private:
  std::mutex turns_, mutex_;
  std::condition_variable changed_;
  const std::function<void()>* next_ = nullptr;
  bool over_ = false;
  std::thread thread_;
};

/// Seconds that a worker may stand still: in code that is not trusted, and in our own.
struct Limits {
  double running = 60, trusted = 60;
};

/// How a worker ended that should have answered.
struct Death {
  Drop drop = Drop::crash;
  bool from_outside = false;       ///< killed by a person or the system, not by what it did
  std::optional<std::size_t> who;  ///< ran when it ended, or last
  std::string sentence;
};

/// One worker process, started when it is first asked and again after each death.
class WorkerProcess {
 public:
  WorkerProcess(Starter& starter, const WorkerOptions& options, wire::Hello hello)
      : starter_(starter), options_(options), hello_(hello) {}
  WorkerProcess(const WorkerProcess&) = delete;
  ~WorkerProcess();

  /// What it says of itself. Fails with io_error when it cannot be started.
  Result<wire::Welcome> welcome();

  /// The payload of its answer; how it died instead of answering; or an io_error when it cannot be started.
  using Answer = std::expected<std::vector<std::byte>, std::variant<Error, Death>>;
  Answer ask(std::span<const std::byte> payload, Limits limits);

  /// Ends it; whoever asks next gets a new one.
  void retire() { bury(Death{}); }

 private:
  /// Also `again` times more, when it is killed from outside before it has said a word.
  Result<void> start(int again = 2);
  std::expected<std::vector<std::byte>, Death> exchange(std::span<const std::byte> payload, Limits limits);
  Death bury(std::optional<Death> known);
  std::string last_words() const;

  Starter& starter_;
  const WorkerOptions& options_;
  wire::Hello hello_;
  std::optional<wire::Welcome> welcome_;
  pid_t pid_ = 0;
  int socket_ = -1, log_ = -1;
  Pulse* pulse_ = nullptr;
};

}  // namespace glaive
