#include <dlfcn.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <new>
#include <optional>
#include <ranges>
#include <thread>

#include "compiler/key.hpp"
#include "compiler/toolkit.hpp"

namespace glaive {
namespace {

/// Of what compile() adds to a source; part of every key.
constexpr std::string_view schema = "glaive-cuda 1";

// NVRTC's interface, as far as it is used, so that no header of the toolkit is needed.
using Program = struct ProgramOfNvrtc*;
enum Outcome : int { success = 0, out_of_memory = 1, invalid_option = 5, compilation = 6, cancelled = 16 };

struct Api {
  Outcome (*version)(int* major, int* minor);
  const char* (*error_string)(Outcome);
  Outcome (*count_architectures)(int* count);
  Outcome (*get_architectures)(int* architectures);
  Outcome (*create)(Program*, const char* text, const char* name, int headers, const char* const* header_texts,
                    const char* const* header_names);
  Outcome (*destroy)(Program*);
  Outcome (*compile)(Program, int count, const char* const* options);
  Outcome (*log_size)(Program, std::size_t*);
  Outcome (*log)(Program, char*);
  Outcome (*ptx_size)(Program, std::size_t*);
  Outcome (*ptx)(Program, char*);
  Outcome (*cubin_size)(Program, std::size_t*);
  Outcome (*cubin)(Program, char*);
  Outcome (*set_callback)(Program, int (*)(void*, void*), void*);  // since 12.9; null before
};

/// nothing, or the first function that the library lacks.
const char* find_all(const Library& library, Api& api) {
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    library.find(function, name);
    if (function == nullptr and missing == nullptr) missing = name;
  };
  find(api.version, "nvrtcVersion");
  find(api.error_string, "nvrtcGetErrorString");
  find(api.count_architectures, "nvrtcGetNumSupportedArchs");
  find(api.get_architectures, "nvrtcGetSupportedArchs");
  find(api.create, "nvrtcCreateProgram");
  find(api.destroy, "nvrtcDestroyProgram");
  find(api.compile, "nvrtcCompileProgram");
  find(api.log_size, "nvrtcGetProgramLogSize");
  find(api.log, "nvrtcGetProgramLog");
  find(api.ptx_size, "nvrtcGetPTXSize");
  find(api.ptx, "nvrtcGetPTX");
  find(api.cubin_size, "nvrtcGetCUBINSize");
  find(api.cubin, "nvrtcGetCUBIN");
  library.find(api.set_callback, "nvrtcSetFlowCallback");
  return missing;
}

/// ` (libnvrtc.so.13.0.88, 104857600 bytes)`: NVRTC tells no patch version, but builds differ in name or size, which
/// are the same on every machine.
std::string patch_of(const void* function) {
  Dl_info info{};
  if (dladdr(function, &info) == 0 or info.dli_fname == nullptr) return {};
  std::error_code error;
  const auto file = std::filesystem::canonical(info.dli_fname, error);
  if (error) return {};
  const auto bytes = std::filesystem::file_size(file, error);
  return " (" + file.filename().string() + (error ? "" : ", " + std::to_string(bytes) + " bytes") + ")";
}

/// So that the log says what each kernel takes of an SM.
constexpr const char* verbose = "--ptxas-options=-v";

int ask(void* until, void*) { return static_cast<const Until*>(until)->over() ? 1 : 0; }

std::string list(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text;
}

/// `sm_90a` -> `arch=sm_90a` as NVRTC takes it; refused where this NVRTC does not know the number.
Result<void> check_target(const Target& target, const std::vector<int>& known, const std::string& build) {
  if (target.kind != Target::Kind::cuda)
    return fail(Status::invalid_argument, "CUDA C++ is compiled for GPUs, not for " + to_string(target));
  if (std::ranges::find(known, cuda_arch(target).number()) != known.end()) return {};
  return fail(Status::unsupported, build + " makes no code for " + to_string(target) + "; it knows sm_" + list(known) +
                                       ". PTX for the highest of them, cuda:compute_" + std::to_string(known.back()) +
                                       ", runs on newer GPUs");
}

/// A log without what ptxas tells of the kernels that it did compile.
std::string complaints(std::string_view log) {
  std::string kept;
  for (const auto line : std::views::split(log, '\n')) {
    const std::string_view text(line);
    const bool tells = text.starts_with("ptxas ") and not text.contains("error") and not text.contains("fatal");
    if (not tells and not text.empty()) kept += (kept.empty() ? "" : "\n") + std::string(text);
  }
  return kept;
}

std::unexpected<Error> refuse_mlir() {
  return fail(Status::invalid_argument, "NVRTC takes CUDA C++; this source is MLIR, which is compiled for CPUs only");
}

}  // namespace

std::string to_string(const CudaOptions& options) {
  std::string text = to_string(options.target);
  for (const std::string& flag : options.flags) text += " " + flag;
  return text;
}

struct CudaCompiler::Impl {
  Library library;
  Api api = {};
  std::string build;
  std::vector<int> architectures;

  /// What `size` and `get` give of a program.
  template <class Text>
  Text fetch(Outcome (*size)(Program, std::size_t*), Outcome (*get)(Program, char*), Program program) const {
    std::size_t bytes = 0;
    Text text;
    if (size(program, &bytes) != success) return text;
    text.resize(bytes);
    if (get(program, reinterpret_cast<char*>(text.data())) != success) text.clear();
    return text;
  }

  Result<CodeObject> compile(const CudaSource& source, const CudaOptions& options, CudaReport& report,
                             const Until& until) const;

  static std::unexpected<Error> is_over(const Until& until) {
    return fail(Status::failed, until.stop.stop_requested() ? "NVRTC: cancelled" : "NVRTC: took longer than it may");
  }
  std::unexpected<Error> explain(Outcome outcome, const std::string& log, const Until& until) const {
    if (until.over()) return is_over(until);
    const Status status = outcome == out_of_memory ? Status::out_of_memory : Status::failed;
    return fail(status, "NVRTC: " + (log.empty() ? std::string(api.error_string(outcome)) : log));
  }
};

CudaCompiler::CudaCompiler(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
CudaCompiler::~CudaCompiler() = default;
const std::string& CudaCompiler::library() const { return impl_->library.path(); }
std::string CudaCompiler::build() const { return impl_->build; }
const std::vector<int>& CudaCompiler::architectures() const { return impl_->architectures; }

Target CudaCompiler::target_for(const Target& gpu) const {
  const auto& known = architectures();
  const auto at_least = std::ranges::lower_bound(known, cuda_arch(gpu).number());
  if (at_least == known.begin() or (at_least != known.end() and *at_least == cuda_arch(gpu).number())) return gpu;
  Target target = gpu;
  target.arch = "compute_" + std::to_string(*std::prev(at_least));
  return target;
}

Result<std::shared_ptr<const CudaCompiler>> CudaCompiler::open(const std::string& library) {
  auto impl = std::make_shared<Impl>();
  auto opened = library.empty() ? backend::open_of_toolkit("libnvrtc.so", "GLAIVE_NVRTC")
                                : Library::open("NVRTC", std::span(&library, 1));
  if (not opened) return std::unexpected(std::move(opened).error());
  impl->library = std::move(*opened);
  const std::string& path = impl->library.path();
  Api& api = impl->api;
  const char* const missing = find_all(impl->library, api);
  int major = 0, minor = 0;
  if (api.version == nullptr or api.version(&major, &minor) != success)
    return fail(Status::unsupported, path + " is no NVRTC: it does not tell its version");
  const std::string version = "NVRTC " + std::to_string(major) + "." + std::to_string(minor);
  if (major < 12 or missing != nullptr)
    return fail(Status::unsupported, path + " is " + version + "; 12.0 or newer is needed" +
                                         (missing == nullptr ? "" : std::string(" (it lacks ") + missing + ")"));
  int count = 0;
  if (api.count_architectures(&count) == success and count > 0) {
    impl->architectures.resize(static_cast<std::size_t>(count));
    if (api.get_architectures(impl->architectures.data()) != success) impl->architectures.clear();
  }
  if (impl->architectures.empty()) return fail(Status::unsupported, path + " makes code for no architecture");
  std::ranges::sort(impl->architectures);
  impl->build = std::string(schema) + ", " + version + patch_of(reinterpret_cast<const void*>(api.version));
  return std::shared_ptr<const CudaCompiler>(new CudaCompiler(std::move(impl)));
}

Result<CodeObject> CudaCompiler::Impl::compile(const CudaSource& source, const CudaOptions& options, CudaReport& report,
                                               const Until& until) const {
  Program made = nullptr;
  if (const Outcome outcome = api.create(&made, source.text.c_str(), "glaive.cu", 0, nullptr, nullptr);
      outcome != success)
    return explain(outcome, "", until);
  struct Destroy {
    const Api& api;
    void operator()(Program program) const { api.destroy(&program); }
  };
  const std::unique_ptr<ProgramOfNvrtc, Destroy> program(made, Destroy{api});
  if (api.set_callback != nullptr) api.set_callback(program.get(), ask, const_cast<Until*>(&until));

  const std::string architecture = "--gpu-architecture=" + options.target.arch;
  std::vector<const char*> flags = {architecture.c_str(), verbose};
  for (const std::string& flag : options.flags) flags.push_back(flag.c_str());
  if (until.over()) return explain(cancelled, "", until);
  const Outcome outcome = api.compile(program.get(), static_cast<int>(flags.size()), flags.data());
  std::string log = backend::trimmed(fetch<std::string>(api.log_size, api.log, program.get()));
  report.log = log;
  if (outcome != success) return explain(outcome, complaints(log), until);

  const bool ptx = cuda_arch(options.target).ptx;
  CodeObject code;
  code.format = ptx ? CodeObject::Format::ptx : CodeObject::Format::cubin;
  code.target = options.target;
  code.bytes =
      fetch<std::vector<std::byte>>(ptx ? api.ptx_size : api.cubin_size, ptx ? api.ptx : api.cubin, program.get());
  if (code.bytes.empty()) return fail(Status::failed, "NVRTC: it compiled the source and gives no code");
  if (ptx) return code;
  auto kernels = backend::take_facts(code);
  if (not kernels) return std::unexpected(std::move(kernels).error());
  for (const std::string& entry : source.entries)
    if (std::ranges::find(*kernels, entry, &KernelFacts::entry) == kernels->end())
      return fail(Status::failed, "NVRTC: no kernel of the source is called '" + entry + "'; is it extern \"C\"?");
  report.kernels = std::move(*kernels);
  return code;
}

namespace {

/// A compilation that its caller need not wait for; the last of the two to let go ends it.
struct Running {
  CudaSource source;
  CudaOptions options;
  Until until;
  CudaReport report;
  std::mutex mutex;
  std::condition_variable_any ended;
  std::optional<Result<CodeObject>> code;
};

}  // namespace

Result<CodeObject> CudaCompiler::compile(const Source& given, const CudaOptions& options, CudaReport* report,
                                         const Until& until) const {
  if (report != nullptr) *report = {};
  if (not std::holds_alternative<CudaSource>(given)) return refuse_mlir();
  const auto& source = std::get<CudaSource>(given);
  if (auto known = check_target(options.target, impl_->architectures, impl_->build); not known)
    return std::unexpected(std::move(known).error());
  if (until.never()) {
    CudaReport own;
    return impl_->compile(source, options, report != nullptr ? *report : own, until);
  }

  // NOTES: NVRTC asks between its passes whether to go on, not within one, and a pass may take minutes. So it runs on a
  // thread that can be left behind.
  const auto running = std::make_shared<Running>(source, options, until);
  try {
    std::thread([running, impl = impl_] {
      Result<CodeObject> code;
      try {
        code = impl->compile(running->source, running->options, running->report, running->until);
      } catch (const std::bad_alloc&) {
        code = fail(Status::out_of_memory, "NVRTC: no memory for what it made");
      }
      const std::lock_guard lock(running->mutex);
      running->code = std::move(code);
      running->ended.notify_one();
    }).detach();
  } catch (const std::system_error& error) {
    return fail(Status::io_error, std::string("no thread can be had to compile on: ") + error.what());
  }
  std::unique_lock lock(running->mutex);
  const auto is_there = [&] { return running->code.has_value(); };
  // A deadline at the end of time overflows where a library adds to it.
  if (until.deadline == Until::no_deadline)
    running->ended.wait(lock, until.stop, is_there);
  else
    running->ended.wait_until(lock, until.stop, until.deadline, is_there);
  if (not running->code) return Impl::is_over(until);
  if (report != nullptr) *report = std::move(running->report);
  return std::move(*running->code);
}

Result<std::string> CudaCompiler::content_key(const Source& given, const CudaOptions& options) const {
  if (not std::holds_alternative<CudaSource>(given)) return refuse_mlir();
  backend::KeyHash hash;
  hash.part(build());
  hash.part(source_key(std::get<CudaSource>(given), options));
  return hash.hex();
}

std::string CudaCompiler::source_key(const CudaSource& source, const CudaOptions& options) {
  backend::KeyHash hash;
  hash.part(schema);
  hash.part(to_string(options.target));
  hash.part(std::to_string(options.flags.size()));
  for (const std::string& flag : options.flags) hash.part(flag);
  for (const std::string& entry : source.entries) hash.part(entry);
  hash.part(source.text);
  return hash.hex();
}

}  // namespace glaive
