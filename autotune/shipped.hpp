#pragma once
// Winners that are part of the program: a text table for each model of GPU that was tuned on. Where nobody has tuned,
// what they name is compiled instead of raced.
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "autotune/space.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// One line of a table: `problem line | variant | median and interval | share of the roof | against the default`.
struct ShippedWinner {
  int line = 0;  ///< of the table
  Case what;
  std::string variant;
  std::string time, roof, against_default;  ///< for people: what it won on
};

/// Words before the winners say where they are from.
struct WinnersTable {
  std::string name{};    ///< `NVIDIA-H100-80GB-HBM3`
  std::string device{};  ///< identity(DeviceInfo)
  Target target{};
  std::string driver{}, date{}, commit{}, effort{};
  std::vector<ShippedWinner> winners{};
};

/// Errors read `name.txt:line: sentence`.
Result<WinnersTable> parse_winners(std::string_view text, std::string_view name);
std::string to_string(const WinnersTable& table);

/// The table that `device`'s entries of a pack make: of each problem and bucket the winner of the highest effort. Empty
/// of what was not tuned there. The date and the driver are the caller's to fill in.
Result<WinnersTable> winners_in(const Pack& pack, const DeviceInfo& device);

/// A table that is part of the program (autotune/winners/NAME.txt).
struct BuiltinTable {
  std::string_view name;
  std::string_view text;
};
std::span<const BuiltinTable> builtin_winners();
/// All of them, read. One that cannot be read is a mistake of the build.
Result<std::vector<WinnersTable>> shipped_winners();

/// Whose winners to take for a GPU: its own; else those of its name, then of the nearest architecture, by major and
/// then by minor version, of two as near the older one, with the number of SMs that is nearest. Null where there are
/// none, and for CPUs.
const WinnersTable* table_for(const DeviceInfo& device, std::span<const WinnersTable> tables);
/// Whether the table is of that very model.
bool is_of(const WinnersTable& table, const DeviceInfo& device);

/// What to compile for a case that nobody has tuned here.
struct ShippedChoice {
  enum class Match : std::uint8_t {
    same,     ///< its problem and bucket
    bucket,   ///< its problem, the nearest bucket
    problem,  ///< the nearest problem of its op, state and layout: by dtypes and gate form, then K and V, bucket, heads
    none,     ///< the default of the best prior
  } match = Match::none;
  const RankedVariant* variant = nullptr;  ///< of the space
  const ShippedWinner* winner = nullptr;   ///< whose it is; null for the default
  std::vector<std::string> skipped;        ///< better winners of this problem that its space does not have
};
std::string_view to_string(ShippedChoice::Match match);
/// The best choice, the shipped one that is next best, and the default, as far as they are different variants.
std::vector<ShippedChoice> shipped_choices(const Case& what, const Space& space, const WinnersTable* table);
ShippedChoice choose_shipped(const Case& what, const Space& space, const WinnersTable* table);

}  // namespace glaive
