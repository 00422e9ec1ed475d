#pragma once
// Shipped winners that were compiled when glaive was built: packs, one for each table, that need no compiler.
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "autotune/shipped.hpp"
#include "compiler/cuda.hpp"
#include "runtime/pack.hpp"

namespace glaive {

/// `share/glaive/winners` of the installation, or of the build folder, that this program is part of; empty where there
/// is none.
std::filesystem::path compiled_winners_folder();

/// Code in the packs of a folder, by what it was compiled from: of whatever NVRTC, since a cubin depends on none.
class CompiledWinners {
 public:
  CompiledWinners() = default;
  /// A pack that is damaged, or that others could have written, counts as not there: its code will be compiled.
  explicit CompiledWinners(const std::filesystem::path& folder);

  /// `source`: CudaCompiler::source_key().
  std::optional<CodeObject> find(const std::string& source) const;

 private:
  struct At {
    std::size_t pack, entry;
  };
  std::vector<Pack> packs_;
  std::map<std::string, At> at_;
};

/// Entries for the winners of a table, under the key of its GPU and the policy `shipped`, as `glaive prepare` makes
/// them; not verified, since there need be no GPU. Code that `have` holds is not compiled again. Fails with the first
/// winner that does not compile or spills.
Result<std::vector<PackEntry>> compile_winners(const WinnersTable& table, const CudaCompiler& compiler, int threads,
                                               const CompiledWinners& have);

}  // namespace glaive
