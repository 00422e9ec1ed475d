#pragma once
#include <cstdint>
#include <functional>

namespace glaive {

/// Calls `body(first, last)` for [0, count) in blocks of `block`, on as many threads as the machine has processors, and
/// returns when all are done. Within a body it runs on that body's thread alone. What a body writes must not depend on
/// which thread it runs on. The first exception is thrown again when all threads have ended.
void parallel(std::int64_t count, std::int64_t block,
              const std::function<void(std::int64_t first, std::int64_t last)>& body);

}  // namespace glaive
