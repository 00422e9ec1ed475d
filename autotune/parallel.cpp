#include "autotune/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace glaive {
namespace {

thread_local bool within = false;

}  // namespace

void parallel(std::int64_t count, std::int64_t block,
              const std::function<void(std::int64_t first, std::int64_t last)>& body) {
  const std::int64_t blocks = (count + block - 1) / block;
  const std::int64_t threads = std::min<std::int64_t>(std::thread::hardware_concurrency(), blocks);
  if (threads <= 1 or within) {
    if (count > 0) body(0, count);
    return;
  }
  std::atomic<std::int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr thrown;
  const auto work = [&] {
    within = true;
    try {
      for (std::int64_t i; (i = next++) < blocks;) body(i * block, std::min(count, (i + 1) * block));
    } catch (...) {
      next = blocks;
      const std::lock_guard lock(mutex);
      if (not thrown) thrown = std::current_exception();
    }
    within = false;
  };
  {
    std::vector<std::jthread> helpers;
    helpers.reserve(static_cast<std::size_t>(threads));
    try {
      while (std::ssize(helpers) + 1 < threads) helpers.emplace_back(work);
      // NOLINTNEXTLINE(bugprone-empty-catch): fewer threads do it, too
    } catch (const std::system_error&) {
    }
    work();
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace glaive
