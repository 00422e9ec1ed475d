#include "tests/templates/emulator/emulated.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "runtime/tensor_map.hpp"
#include "templates/cuda/cuda.hpp"
#include "tests/templates/emulator/tensor_map.hpp"

namespace glaive {
namespace {

const std::string compiler = GLAIVE_HOST_COMPILER;

std::string host_text(const CudaSource& source, const Plan& plan, const Emulated::Edit& edit) {
  std::string text = source.text;
  if (edit) edit(text);
  for (const std::string_view helpers : {cuda::text_of("ptx.cuh"), cuda::text_of("hopper.cuh")})
    if (const auto at = text.find(helpers); at != text.npos) text.erase(at, helpers.size());
  text = "#include \"" GLAIVE_EMULATOR "\"\n" + text;
  for (const Stage& stage : plan.stages) {
    std::string arguments;
    for (std::size_t i = 0; i < stage.args.size(); ++i)
      arguments += (i == 0 ? "words[" : ", words[") + std::to_string(i) + "]";
    if (not stage.maps.empty()) arguments += ", *static_cast<const Maps*>(maps)";
    text += "extern \"C\" void emulate_" + stage.entry +
            "(const unsigned long* words, const void* maps, unsigned grid, int order) {\n" + "  using namespace " +
            stage.entry + "_text;\n" + "  emulator::run(grid, cluster, threads, shared_bytes, order, [&] { " +
            stage.entry + "(" + arguments + "); });\n}\n";
  }
  return text;
}

/// What the driver does on a GPU.
cuda::Outcome encode(cuda::EncodedMap* encoded, cuda::MapElements elements, std::uint32_t rank, cuda::Address base,
                     const std::uint64_t* extents, const std::uint64_t* strides, const std::uint32_t* box,
                     const std::uint32_t*, cuda::MapInterleave, cuda::MapSwizzle swizzle, cuda::MapPromotion,
                     cuda::MapFill) {
  if (rank != 3 or extents[2] == 0) return cuda::invalid_value;
  emulator::TensorMap map = {};
  map.base = static_cast<char*>(base);
  std::copy_n(extents, 3, map.extents);
  std::copy_n(strides, 2, map.strides);
  std::copy_n(box, 3, map.box);
  map.element_bytes = elements == cuda::map_u16 ? 2 : 4;
  map.swizzled = swizzle == cuda::map_swizzle_128_bytes;
  std::memcpy(encoded, &map, sizeof map);
  return cuda::success;
}

}  // namespace

bool Emulated::available() { return std::system((compiler + " --version >/dev/null 2>&1").c_str()) == 0; }

Emulated::Emulated(const Instance& instance, const Variant& variant, const Edit& edit)
    : plan_(variant.family->plan(instance, variant.config)) {
  const auto source = std::get<CudaSource>(variant.family->instantiate(instance, variant.config));
  std::string folder = (std::filesystem::temp_directory_path() / "glaive-emulator-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no temporary folder");
  const auto remove = [&] { std::filesystem::remove_all(folder); };
  std::ofstream(folder + "/kernel.cpp") << host_text(source, plan_, edit);
  const std::string command = compiler + " " GLAIVE_EMULATOR_FLAGS " -shared -o " + folder + "/kernel.so " + folder +
                              "/kernel.cpp >" + folder + "/log 2>&1";
  if (std::system(command.c_str()) != 0) {
    std::ostringstream log;
    log << std::ifstream(folder + "/log").rdbuf();
    remove();
    throw std::runtime_error(plan_.variant + ": " + log.str());
  }
  library_ = dlopen((folder + "/kernel.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  remove();
  if (library_ == nullptr) throw std::runtime_error(plan_.variant + ": " + dlerror());
  for (const Stage& stage : plan_.stages)
    entries_.push_back(reinterpret_cast<Entry*>(dlsym(library_, ("emulate_" + stage.entry).c_str())));
}

Emulated::~Emulated() {
  if (library_ != nullptr) dlclose(library_);
}

void Emulated::run(Words words, const Extents& extents) {
  Guarded workspace((workspace_bytes(plan_, extents) + 3) / 4);
  words.set_pointer(Arg::workspace, workspace.memory());
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Stage& stage = plan_.stages[i];
    cuda::EncodedMap maps[most_tensor_maps];
    words[Arg::mapped] = not stage.maps.empty() and cuda::map_tensors(stage, words, extents, encode, maps);
    std::vector<std::uint64_t> arguments;
    for (const Arg arg : stage.args) arguments.push_back(words[arg]);
    entries_[i](arguments.data(), maps, static_cast<unsigned>(stage.tasks.at(extents)), runs_ % 3);
  }
  ++runs_;
  if (not workspace.guards_intact()) throw std::runtime_error(plan_.variant + " wrote outside its workspace");
}

}  // namespace glaive
