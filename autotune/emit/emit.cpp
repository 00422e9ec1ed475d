#include "autotune/emit/emit.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "autotune/emit/folder.hpp"

namespace glaive {
namespace {

using namespace emission;

/// Headers that the file <name>.h would hide, libraries, CMake's targets, and a word of the launcher's own.
constexpr std::string_view taken_names =
    " alloca assert complex cpuid ctype cuda dlfcn elf endian errno fcntl features fenv float inttypes iso646 limits"
    " link locale malloc math memory pthread sched setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio"
    " stdlib stdnoreturn string strings tgmath threads time uchar unistd wchar wctype"
    " c dl gcc glaive m nvrtc rt"
    " all clean edit_cache help install package package_source preinstall rebuild_cache test"
    " arg_device ";

Result<void> check_name(const std::string& name) {
  const auto is_letter = [](char c) { return c >= 'a' and c <= 'z'; };
  const auto fits = [&](char c) { return is_letter(c) or (c >= '0' and c <= '9') or c == '_'; };
  if (taken_names.contains(" " + name + " "))
    return fail(Status::invalid_argument,
                fmt::format("--name {}: a header, a library or a target of CMake has that name; choose another", name));
  constexpr std::size_t longest = 32;
  if (not name.empty() and name.size() <= longest and is_letter(name.front()) and std::ranges::all_of(name, fits))
    return {};
  return fail(Status::invalid_argument,
              fmt::format("--name {}: it is a letter from a to z and at most {} of a to z, 0 to 9 and _ behind it",
                          name, longest - 1));
}

/// Puts so much of PTX as can be had before the entries, that those serve first; what cannot is noted, or fails.
Result<void> add_ptx(std::vector<PackEntry>& entries, EmitOptions::Ptx wanted, std::vector<std::string>& notes) {
  const auto is_for_gpu = [](const PackEntry& entry) { return entry.plan.target.kind == Target::Kind::cuda; };
  if (wanted == EmitOptions::Ptx::off or std::ranges::none_of(entries, is_for_gpu)) return {};
  if (const auto compiler = CudaCompiler::open()) {
    auto ptx = make_ptx(entries, **compiler, notes);
    entries.insert(entries.begin(), std::make_move_iterator(ptx.begin()), std::make_move_iterator(ptx.end()));
  } else {
    notes.push_back("no PTX for newer GPUs: " + compiler.error().message);
  }
  if (wanted == EmitOptions::Ptx::on and not notes.empty()) return fail(Status::unsupported, notes.front());
  return {};
}

Result<void> write_files(NewFolder& folder, const Selection& selection, const EmitOptions& options) {
  for (const Code& code : selection.codes)
    if (code.owns_file)
      if (auto done = folder.write(code.file, code.object.bytes); not done) return done;
  const auto header = "include/" + options.name + "_kernels.h";
  const auto texts = options.header_only ? std::vector<Text>{{header, geometry_header(selection, options.name)}}
                                         : launcher_files(selection, options.name);
  for (const auto& [path, text, executable] : texts)
    if (auto done = folder.write(path, text, executable); not done) return done;
  return {};
}

}  // namespace

Result<Emitted> emit(const Pack& pack, const std::filesystem::path& pack_file, const EmitOptions& options) {
  if (auto fits = check_name(options.name); not fits) return std::unexpected(fits.error());
  auto entries = choose(pack, options);
  if (not entries) return std::unexpected(std::move(entries).error());
  auto folder = NewFolder::at(options.out, options.replace);
  if (not folder) return std::unexpected(std::move(folder).error());
  Emitted emitted;
  if (auto added = add_ptx(*entries, options.ptx, emitted.notes); not added) return std::unexpected(added.error());
  const auto selection = arrange(*entries);
  if (not selection) return std::unexpected(selection.error());

  if (auto done = folder->begin(); not done) return std::unexpected(done.error());
  if (auto done = write_files(*folder, *selection, options); not done) return std::unexpected(done.error());
  const auto listed = folder->files();
  if (auto done = folder->write(std::string(manifest_name), manifest(*selection, options, pack_file, listed)); not done)
    return std::unexpected(done.error());
  emitted.problems = selection->problems.size();
  emitted.plans = selection->plans.size();
  emitted.codes = selection->codes.size();
  for (const Code& code : selection->codes) emitted.code_bytes += code.object.bytes.size();
  for (const WrittenFile& file : folder->files()) emitted.files.push_back(file.path);
  if (auto done = folder->put_in_place(); not done) return std::unexpected(done.error());
  return emitted;
}

}  // namespace glaive
