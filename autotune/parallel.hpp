#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace glaive {

/// Calls `body(first, last)` for [0, count) in blocks of `block`, on as many threads as the machine has processors, and
/// returns when all are done. Within a body it runs on that body's thread alone. What a body writes must not depend on
/// which thread it runs on. The first exception is thrown again when all threads have ended.
void parallel(std::int64_t count, std::int64_t block,
              const std::function<void(std::int64_t first, std::int64_t last)>& body);

/// part(first, last) of each block of [0, count), in order. Blocks are the same on every machine, so that sums are.
template <class Part>
auto by_blocks(std::int64_t count, const Part& part) {
  constexpr std::int64_t block = 1 << 16;
  std::vector<decltype(part(count, count))> parts(static_cast<std::size_t>((count + block - 1) / block));
  parallel(static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i)
      parts[static_cast<std::size_t>(i)] = part(i * block, std::min(count, (i + 1) * block));
  });
  return parts;
}

}  // namespace glaive
