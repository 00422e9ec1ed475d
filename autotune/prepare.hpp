#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "autotune/compiled.hpp"
#include "autotune/evaluator.hpp"
#include "autotune/shipped.hpp"

namespace glaive {

struct PrepareOptions {
  int threads = 1;  ///< compilers at work
  std::filesystem::path pack;
  const WinnersTable* table = nullptr;        ///< null: every case gets a default
  const CompiledWinners* compiled = nullptr;  ///< whose code is taken instead of compiling it
};

/// What became of one case.
struct Prepared {
  enum class State : std::uint8_t { ready, already, unsupported, failed } state = State::failed;
  Case what;
  std::string variant;
  std::string sentence;           ///< for people
  std::optional<bool> shipped{};  ///< whether the variant is a table's, or a default; nothing where neither was taken
};

/// Puts into the pack, without a race, what is shipped for each case that is not tuned: compiled in threads, and
/// verified briefly, since this compiler is not the one that it won with. Code that was compiled ahead and fails here
/// is compiled here. Of a variant that fails the next best takes the place, in the end the default. Evidence and policy
/// say `shipped`, which is less than any effort: tuning goes on from it. What an earlier call of the same build put
/// there stays. Fails when the pack or the system does.
Result<std::vector<Prepared>> prepare(Evaluator& evaluator, std::span<const Case> cases, const PrepareOptions& options);

/// The sentence about a GPU that was not tuned on: what its cases got, and what would be better; empty for one that
/// was.
std::string foreign_table(const WinnersTable* table, const DeviceInfo& device, std::span<const Prepared> prepared);

}  // namespace glaive
