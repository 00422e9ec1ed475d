#pragma once
// Shipped winners compiled ahead, by `glaive winners --compile`: packs, one for each table, as an installation has
// them.
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "autotune/shipped.hpp"
#include "compiler/cuda.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// `share/glaive/winners` of the installation, or of the build folder, that this program is part of; empty where there
/// is none.
std::filesystem::path compiled_winners_folder();

/// Code in the packs of a folder, by what it was compiled from.
class CompiledWinners {
 public:
  CompiledWinners() = default;
  /// A pack that is damaged, or that others could have written, counts as not there: its code will be compiled.
  explicit CompiledWinners(const std::filesystem::path& folder);

  struct Found {
    CodeObject code;
    std::string compiler;  ///< CudaCompiler::build() of who made it
  };
  /// `source`: CudaCompiler::source_key().
  std::optional<Found> find(const std::string& source) const;
  /// Whether anything is of that compiler.
  bool any_of(const std::string& compiler) const { return compilers_.contains(compiler); }

 private:
  struct At {
    std::size_t pack, entry;
    std::string compiler;
  };
  std::vector<Pack> packs_;
  std::map<std::string, At> at_;
  std::set<std::string> compilers_;
};

/// Entries for the winners of a table, under the key of its GPU and the policy `shipped`, as `glaive prepare` makes
/// them; not verified, since there need be no GPU. What `have` holds of the same compiler is not compiled again. Fails
/// with the first winner that does not compile or spills.
Result<std::vector<PackEntry>> compile_winners(const WinnersTable& table, const CudaCompiler& compiler, int threads,
                                               const CompiledWinners& have);

}  // namespace glaive
