#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <thread>

#include "autotune/worker/process.hpp"

namespace glaive {
namespace {

constexpr int over = 0, misused = 2;

#if defined(__SANITIZE_ADDRESS__) or defined(__SANITIZE_THREAD__)
constexpr bool can_limit_memory = false;  // sanitizers take terabytes of addresses
#else
constexpr bool can_limit_memory = true;
#endif

Pulse* pulse = nullptr;  // of this process, for the handler below

/// What our own code cannot get is an error of its case; code that is on trial may not take it all.
void no_memory() {
  if (pulse->seen().running) _exit(worker_out_of_memory);
  throw std::bad_alloc();
}

/// Whatever runs, also an endless loop, ends with the tuner.
void end_with_tuner() {
  pollfd hung_up{};
  hung_up.fd = worker_socket;
  while (poll(&hung_up, 1, -1) < 0 and errno == EINTR) {
  }
  _exit(over);
}

void limit(int resource, rlim_t most) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return;
  limit.rlim_cur = std::min(limit.rlim_cur, most);
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

void become_worker() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::signal(SIGINT, SIG_IGN);  // of the whole process group: the tuner decides
  std::signal(SIGQUIT, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, rlim_t{1} << 30);  // of what a kernel prints
  // Where the machine itself runs out of memory, a worker goes before the tuner.
  if (const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); file >= 0) {
    static_cast<void>(!write(file, "500", 3));
    close(file);
  }
  std::setvbuf(stderr, nullptr, _IONBF, 0);
}

bool receive(std::span<std::byte> bytes) {
  while (not bytes.empty()) {
    const auto count = recv(worker_socket, bytes.data(), bytes.size(), 0);
    if (count < 0 and errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

bool reply(std::span<const std::byte> payload) {
  const auto bytes = wire::frame(payload);
  for (std::span<const std::byte> left = bytes; not left.empty();) {
    const auto count = send(worker_socket, left.data(), left.size(), MSG_NOSIGNAL);
    if (count < 0 and errno == EINTR) continue;
    if (count <= 0) return false;
    left = left.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

class Server {
 public:
  Server(const MakeEvaluator& make, std::span<const Family* const> families) : make_(make), families_(families) {}

  std::vector<std::byte> answer(std::span<const std::byte> question) {
    ByteReader in(question);
    auto out = wire::begin_answer(true);
    const auto ask = static_cast<wire::Ask>(in.number<std::uint32_t>());
    try {
      if (auto answered = answer(ask, in, out); answered)
        return out.take();
      else
        return refusal(std::move(answered.error()));
    } catch (const std::bad_alloc&) {
      return refusal({{Status::out_of_memory, "no memory"}});
    } catch (const std::exception& error) {
      return refusal({{Status::failed, error.what()}});
    }
  }

 private:
  std::vector<std::byte> refusal(Failure failure) {
    auto out = wire::begin_answer(false);
    wire::put(out, failure);
    return out.take();
  }

  Evaluated<void> answer(wire::Ask ask, ByteReader& in, ByteWriter& out) {
    const auto complete = [&]() -> Evaluated<void> {
      if (in.at_end()) return {};
      return fail(Status::invalid_argument, fmt::format("question {} makes no sense", static_cast<int>(ask)));
    };
    const auto put = [&](const auto& answered) -> Evaluated<void> {
      if (not answered) return std::unexpected<Failure>(answered.error());
      wire::put(out, *answered);
      return {};
    };
    if (ask == wire::Ask::hello) {
      const auto hello = wire::get_hello(in);
      if (auto read = complete(); not read) return read;
      if (hello.version != wire::version) return fail(Status::invalid_argument, "the tuner speaks another version");
      if (hello.memory_bytes != 0 and can_limit_memory) limit(RLIMIT_DATA, hello.memory_bytes);
      auto made = make_(hello.threads, *pulse);
      if (not made) return std::unexpected<Failure>(made.error());
      evaluator_ = std::move(*made);
      wire::put(out, wire::Welcome{.version = wire::version,
                                   .device = evaluator_->device(),
                                   .workers = evaluator_->workers(),
                                   .compiler = evaluator_->compiler()});
      return {};
    }
    if (evaluator_ == nullptr) return fail(Status::invalid_argument, "a question before the greeting");
    switch (ask) {
      case wire::Ask::content_key: {
        const auto asked = wire::get_variant(in, families_);
        if (auto read = complete(); not read) return read;
        const Running running(*pulse, 0);
        auto key = evaluator_->content_key(asked.instance, asked.variant, asked.optimise, 0);
        if (not key) return std::unexpected(std::move(key.error()));
        out.text(*key);
        return {};
      }
      case wire::Ask::compile: {
        const auto asked = wire::get_variant(in, families_);
        if (auto read = complete(); not read) return read;
        const Running running(*pulse, 0);
        return put(evaluator_->compile(asked.instance, asked.variant, asked.optimise, 0));
      }
      case wire::Ask::check_memory: {
        const auto what = wire::get_case(in);
        if (auto read = complete(); not read) return read;
        if (auto fits = evaluator_->check_memory(what); not fits) return std::unexpected<Failure>(fits.error());
        return {};
      }
      case wire::Ask::verify: {
        const auto what = wire::get_case(in);
        const auto built = wire::get_built(in);
        const auto scrutiny = static_cast<Scrutiny>(in.number_in<std::uint8_t>(0, 1));
        const auto gates = wire::get_gates(in);
        if (auto read = complete(); not read) return read;
        return put(evaluator_->verify(what, built, scrutiny, gates));
      }
      case wire::Ask::race: {
        const auto asked = wire::get_race(in);
        if (auto read = complete(); not read) return read;
        return put(evaluator_->race(asked.what, asked.contenders(), asked.policy, asked.keep));
      }
      case wire::Ask::rates:
        wire::put(out, evaluator_->rates());
        return {};
      case wire::Ask::hello:
        break;
    }
    return complete();
  }

  const MakeEvaluator& make_;
  std::span<const Family* const> families_;
  std::unique_ptr<Evaluator> evaluator_;
};

}  // namespace

int serve_worker(const MakeEvaluator& make, std::span<const Family* const> families) {
  void* const page = mmap(nullptr, sizeof(Pulse), PROT_READ | PROT_WRITE, MAP_SHARED, worker_pulse, 0);
  if (page == MAP_FAILED or not receive({})) {
    fmt::print(stderr, "glaive: workers are started by glaive itself\n");
    return misused;
  }
  pulse = std::launder(static_cast<Pulse*>(page));
  become_worker();
  std::thread(end_with_tuner).detach();
  std::set_new_handler(no_memory);

  Server server(make, families);
  std::byte header[wire::header_bytes];
  while (receive(header)) {
    const auto size = wire::payload_bytes(header);
    if (not size) return misused;
    std::vector<std::byte> question(*size);
    if (not receive(question) or not reply(server.answer(question))) break;
  }
  // Nothing is put in order: what ran here may have left any state behind.
  _exit(over);
}

}  // namespace glaive
