#pragma once
// A pack as files that an engine links: docs/emit.md.
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compiler/cuda.hpp"
#include "runtime/pack.hpp"

namespace glaive {

struct EmitOptions {
  std::filesystem::path out;          ///< folder to be made
  std::string name = "gla";           ///< of the files, and of what they declare: a C identifier in lower case
  std::vector<std::string> targets;   ///< `cuda:sm_90a`, or all of a kind, `cpu`; none = all of the pack
  std::vector<std::string> problems;  ///< lines with or without a shape; none = all of the pack
  bool header_only = false;           ///< names, geometry and argument order, for engines that launch by themselves
  bool replace = false;               ///< put in the place of what an earlier emit wrote to `out`
  enum class Ptx { off, if_possible, on } ptx = Ptx::off;  ///< for GPUs newer than those of the chosen code, by NVRTC
};

struct Emitted {
  std::size_t problems = 0, plans = 0, codes = 0, code_bytes = 0;
  std::vector<std::string> files;  ///< relative to the folder, in the order written
  std::vector<std::string> notes;  ///< what was left out, and why
};

/// Writes the folder as a whole: beside it under a temporary name, then by rename, so that a failure leaves what was
/// there. `pack_file` is what the manifest names. Fails with invalid_argument for a name, target or problem that there
/// is not, naming those that there are; with bad_pack for a damaged entry; with io_error where the folder cannot be
/// written, or holds anything but what an earlier emit wrote; with unsupported where PTX is `on` and cannot be had.
Result<Emitted> emit(const Pack& pack, const std::filesystem::path& pack_file, const EmitOptions& options);

}  // namespace glaive
