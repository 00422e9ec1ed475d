#pragma once
// What of a pack is emitted, each problem, plan and code object once.
#include "autotune/emit/emit.hpp"
#include "runtime/fit.hpp"
#include "runtime/problem.hpp"

namespace glaive::emission {

/// A code object as a file.
struct Code {
  CodeObject object;
  std::string checksum;   ///< 32 hex digits of XXH3
  std::string file;       ///< `code/stream_wgmma-sm_90a-1f00c2d45b6e7a88.cubin`
  bool owns_file = true;  ///< false where the same bytes are there for another target
};

struct EmittedPlan {
  Plan plan;                       ///< its stages name `codes` of the pack entry
  std::vector<std::size_t> codes;  ///< the same, by number among all
};

struct Entry {
  std::size_t problem = 0, plan = 0;
  WinnerKey key;
  Target target;    ///< of the key
  int threads = 0;  ///< it was measured with; 0 = it does not matter
  std::string evidence;
  Measured measured;
  std::optional<double> regret_per_step;
};

struct Selection {
  std::vector<Problem> problems;
  std::vector<Code> codes;
  std::vector<EmittedPlan> plans;
  std::vector<Entry> entries;  ///< of equally good ones the last serves
  bool has(Target::Kind kind) const;
};

/// The entries that options ask for. Fails as emit() does.
Result<std::vector<PackEntry>> choose(const Pack& pack, const EmitOptions& options);

/// PTX for GPUs newer than those of `entries`: of each winner's own variant where its family has one for any GPU, and
/// of the portable families' default, with little shared memory. Notes say what could not be made.
std::vector<PackEntry> make_ptx(std::span<const PackEntry> entries, const CudaCompiler& compiler,
                                std::vector<std::string>& notes);

Result<Selection> arrange(std::span<const PackEntry> entries);

std::string checksum_of(std::span<const std::byte> bytes);
std::string checksum_of(std::string_view text);

std::string upper(std::string text);
std::string c_string(std::string_view text);
/// A text that stays within a comment in C.
std::string c_comment(std::string_view text);

// The texts of the files.
struct Text {
  std::string path, text;
  bool executable = false;
};
std::vector<Text> launcher_files(const Selection& selection, const std::string& name);
std::string geometry_header(const Selection& selection, const std::string& name);
struct WrittenFile {
  std::string path;
  std::size_t bytes = 0;
  std::string checksum;
};
std::string manifest(const Selection& selection, const EmitOptions& options, const std::filesystem::path& pack_file,
                     std::span<const WrittenFile> files);
/// What marks a manifest as one of ours.
inline constexpr std::string_view manifest_name = "manifest.json", manifest_kind = "glaive emit";

}  // namespace glaive::emission
