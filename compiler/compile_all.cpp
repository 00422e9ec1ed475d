#include <atomic>
#include <mutex>
#include <thread>

#include "compiler/cuda.hpp"
#include "compiler/key.hpp"
#include "runtime/files.hpp"

namespace glaive {

void compile_all(const CudaCompiler& compiler, std::span<const CudaJob> jobs, int threads,
                 std::chrono::milliseconds limit, std::stop_token stop,
                 const std::function<void(std::size_t, Result<CodeObject>)>& done) {
  std::atomic<std::size_t> next = 0;
  std::mutex one_at_a_time;
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      const Until until = {stop, std::chrono::steady_clock::now() + limit};
      auto code = compiler.compile(jobs[i].source, jobs[i].options, jobs[i].report, until);
      const std::lock_guard lock(one_at_a_time);
      done(i, std::move(code));
    }
  };
  std::vector<std::jthread> others;
  for (int i = 1; i < threads and others.size() + 1 < jobs.size(); ++i) {
    try {
      others.emplace_back(work);
    } catch (const std::system_error&) {
      break;  // fewer threads do the same work
    }
  }
  work();
}

Error with_source_saved(Error error, const std::string& variant, const CudaSource& source,
                        const std::filesystem::path& folder) {
  backend::KeyHash hash;
  hash.part(source.text);
  const auto file = folder / ("nvrtc-" + hash.hex().substr(0, 16) + ".cu");
  error.message = variant + ": " + error.message;
  const auto save = [&]() -> Result<void> {
    auto saved = Replacement::unguarded(file);
    if (not saved) return std::unexpected(std::move(saved).error());
    if (auto written = saved->write(std::as_bytes(std::span(source.text))); not written) return written;
    return saved->place();
  };
  const auto saved = save();
  error.message += saved ? "\n  its source: " + file.string() : "\n  its source is not saved: " + saved.error().message;
  return error;
}

}  // namespace glaive
