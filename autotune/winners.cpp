#include "autotune/winners.hpp"

#include <fmt/format.h>

#include "runtime/dispatch.hpp"

namespace glaive {

WinnerKey winner_key(const Case& what, const DeviceInfo& device, Effort effort, int threads) {
  return {.device = identity(device),
          .target = to_string(device.target),
          .problem = to_string(what.problem),
          .bucket = bucket_of(extents_of(what.problem, what.shape, threads)),
          .policy = fmt::format("v2 effort={} threads={}", to_string(effort), threads),
          .space = space_hash({what.problem, device.target})};
}

std::string shipped_policy(int threads) { return fmt::format("v2 effort=shipped threads={}", threads); }

std::optional<std::size_t> find_tuned(const Pack& pack, const Case& what, const DeviceInfo& device, Effort effort,
                                      int threads) {
  for (const auto enough : {Effort::full, Effort::normal, Effort::quick}) {
    if (enough < effort) break;
    if (const auto found = pack.find(winner_key(what, device, enough, threads))) return found;
  }
  return std::nullopt;
}

Result<Pack> open_pack(const std::filesystem::path& file) {
  auto pack = Pack::open(file);
  if (not pack and pack.error().status == Status::bad_pack)
    return fail(Status::bad_pack,
                pack.error().message + "; if it was one, move it away: tuning again takes the code from the journal");
  return pack;
}

Result<std::optional<Pack>> open_pack_if_any(const std::filesystem::path& file) {
  auto pack = open_pack(file);
  if (pack) return std::move(*pack);
  if (pack.error().status == Status::not_found) return std::nullopt;
  return std::unexpected(pack.error());
}

}  // namespace glaive
