#include "compiler/toolkit.hpp"

namespace glaive {
namespace {

// nvJitLink's interface, as far as it is used.
using Link = struct LinkOfNvJitLink*;
enum Outcome : int { success = 0 };
constexpr int input_ptx = 2;

struct Api {
  Outcome (*create)(Link*, std::uint32_t count, const char** options);
  Outcome (*destroy)(Link*);
  Outcome (*add)(Link, int kind, const void* bytes, std::size_t size, const char* name);
  Outcome (*complete)(Link);
  Outcome (*cubin_size)(Link, std::size_t*);
  Outcome (*cubin)(Link, void*);
  Outcome (*log_size)(Link, std::size_t*);
  Outcome (*log)(Link, char*);
};

Result<Api> open_api() {
  auto library = backend::open_of_toolkit("libnvJitLink.so", "GLAIVE_NVJITLINK");
  if (not library) return std::unexpected(std::move(library).error());
  Api api = {};
  library->find(api.create, "nvJitLinkCreate");
  library->find(api.destroy, "nvJitLinkDestroy");
  library->find(api.add, "nvJitLinkAddData");
  library->find(api.complete, "nvJitLinkComplete");
  library->find(api.cubin_size, "nvJitLinkGetLinkedCubinSize");
  library->find(api.cubin, "nvJitLinkGetLinkedCubin");
  library->find(api.log_size, "nvJitLinkGetErrorLogSize");
  library->find(api.log, "nvJitLinkGetErrorLog");
  if (api.create == nullptr or api.destroy == nullptr or api.add == nullptr or api.complete == nullptr or
      api.cubin_size == nullptr or api.cubin == nullptr or api.log_size == nullptr or api.log == nullptr)
    return fail(Status::unsupported, library->path() + " is no nvJitLink of CUDA 12 or newer");
  return api;
}

}  // namespace

Result<CodeObject> assemble(const CodeObject& ptx, const Target& target) {
  if (ptx.format != CodeObject::Format::ptx)
    return fail(Status::invalid_argument, "code for " + to_string(ptx.target) + " is no PTX");
  if (target.kind != Target::Kind::cuda or cuda_arch(target).ptx)
    return fail(Status::invalid_argument,
                "PTX is assembled for an architecture such as cuda:sm_100, not for " + to_string(target));
  const CudaArch wanted = cuda_arch(target);
  if (not cuda_arch(ptx.target).runs_on(wanted.major, wanted.minor))
    return fail(Status::wrong_device, "PTX for " + to_string(ptx.target) + " does not run on " + to_string(target));
  const Result<Api> opened = open_api();
  if (not opened) return std::unexpected(opened.error());
  const Api& api = *opened;

  const std::string architecture = "-arch=" + target.arch;
  const char* options[] = {architecture.c_str()};
  Link link = nullptr;
  if (api.create(&link, 1, options) != success)
    return fail(Status::unsupported, "nvJitLink makes no code for " + to_string(target));
  struct Destroy {
    const Api& api;
    Link link;
    ~Destroy() { api.destroy(&link); }
  };
  const Destroy destroy = {api, link};
  CodeObject code;
  code.format = CodeObject::Format::cubin;
  code.target = target;
  std::size_t size = 0;
  const bool made = api.add(link, input_ptx, ptx.bytes.data(), ptx.bytes.size(), "glaive.ptx") == success and
                    api.complete(link) == success and api.cubin_size(link, &size) == success;
  if (made) code.bytes.resize(size);
  if (not made or api.cubin(link, code.bytes.data()) != success) {
    std::string log;
    if (api.log_size(link, &size) == success) log.resize(size);
    if (not log.empty()) api.log(link, log.data());
    log = backend::trimmed(std::move(log));
    return fail(Status::failed, "nvJitLink: " + (log.empty() ? "no reason given" : log));
  }
  if (auto facts = backend::take_facts(code); not facts) return std::unexpected(std::move(facts).error());
  return code;
}

}  // namespace glaive
