#pragma once
// Winners in packs: under which key one is filed, and which makes tuning needless.
#include <filesystem>
#include <optional>

#include "autotune/space.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// Under which the winner of `what` is filed when it is tuned on `device` with this effort and so many threads.
WinnerKey winner_key(const Case& what, const DeviceInfo& device, Effort effort, int threads);

/// Policy of a winner that nobody has raced here.
std::string shipped_policy(int threads);

/// The entry that makes tuning `what` needless: its key with this effort or a higher one.
std::optional<std::size_t> find_tuned(const Pack& pack, const Case& what, const DeviceInfo& device, Effort effort,
                                      int threads);

/// As Pack::open; of a file that is no pack, or a damaged one, the error says what to do about it.
Result<Pack> open_pack(const std::filesystem::path& file);
/// The same; nothing when there is no such file.
Result<std::optional<Pack>> open_pack_if_any(const std::filesystem::path& file);

}  // namespace glaive
