#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "compiler/cuda.hpp"
#include "tests/compiler/cuda/kernels.hpp"
#include "tests/files.hpp"
#include "tests/gpu/kernel_text.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

const CudaCompiler& compiler() {
  static const auto opened = CudaCompiler::open();
  REQUIRE(opened.has_value());
  return **opened;
}

CudaOptions for_target(const std::string& arch) { return {*parse_target("cuda:" + arch), {}}; }

const CudaSource all_kernels = {{"plain", "spills", "stacks", "calls"}, std::string(kernels_text)};

/// A kernel that takes NVRTC a while.
CudaSource slow_source(int statements) {
  std::string text = "extern \"C\" __global__ void slow(float* x) {\n  float r = x[threadIdx.x];\n";
  for (int i = 0; i < statements; ++i)
    text += "  r = __fmaf_rn(r, r, x[" + std::to_string(i * 7919 % 65536) + " + threadIdx.x * (int)r]);\n";
  return {{"slow"}, text + "  x[threadIdx.x] = r;\n}\n"};
}

struct PtxasFacts {
  std::int64_t registers = 0, stack = 0, spill_bytes = 0, shared = 0;
};

/// What ptxas says of each kernel: the witness against which facts read from the binary are held.
std::map<std::string, PtxasFacts> read_log(const std::string& log) {
  std::map<std::string, PtxasFacts> all;
  std::string kernel;
  bool of_kernel = false;  // and not of a function that it calls
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    const auto after = [&](const std::string& words) {
      const auto at = line.find(words);
      return at == std::string::npos ? std::string() : line.substr(at + words.size());
    };
    const auto before = [&](const std::string& words) -> std::int64_t {
      auto at = line.find(words);
      if (at == std::string::npos) return 0;
      auto begin = at;
      while (begin > 0 and std::isdigit(static_cast<unsigned char>(line[begin - 1]))) --begin;
      return std::stoll(line.substr(begin, at - begin));
    };
    if (auto name = after("Compiling entry function '"); not name.empty()) kernel = name.substr(0, name.find('\''));
    if (auto name = after("Function properties for "); not name.empty()) of_kernel = name == kernel;
    if (contains(line, "bytes stack frame") and of_kernel) {
      all[kernel].stack = std::max(all[kernel].stack, before(" bytes stack frame"));
      all[kernel].spill_bytes = before(" bytes spill stores") + before(" bytes spill loads");
    }
    if (contains(line, "Used ")) {
      all[kernel].registers = before(" registers");
      all[kernel].shared = before(" bytes smem");
      all[kernel].stack = std::max(all[kernel].stack, before(" bytes cumulative stack size"));
    }
  }
  return all;
}

}  // namespace

TEST_CASE("facts read from a cubin are what ptxas says, on every architecture") {
  for (const char* arch : {"sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_100a", "sm_120"}) {
    INFO(arch);
    CudaReport report;
    const auto code = compiler().compile(all_kernels, for_target(arch), &report);
    if (not code) FAIL(code.error().message);
    CHECK(code->format == CodeObject::Format::cubin);
    CHECK(to_string(code->target) == std::string("cuda:") + arch);
    const auto said = read_log(report.log);
    REQUIRE(said.size() == 4);
    REQUIRE(report.kernels.size() == 4);
    std::int64_t text_bytes = 0, deepest = 0;
    for (const KernelFacts& kernel : report.kernels) {
      INFO(kernel.entry << "\n" << report.log);
      REQUIRE(said.contains(kernel.entry));
      const PtxasFacts& ptxas = said.at(kernel.entry);
      CHECK(kernel.registers == ptxas.registers);
      CHECK(kernel.stack_bytes == ptxas.stack);
      CHECK(kernel.shared_bytes == ptxas.shared);
      CHECK((kernel.spills > 0) == (ptxas.spill_bytes > 0));
      CHECK(kernel.spills * 16 >= ptxas.spill_bytes);  // an instruction moves 4 to 16 bytes
      CHECK(kernel.spills * 4 <= ptxas.spill_bytes);
      CHECK(kernel.text_bytes > 0);
      text_bytes += kernel.text_bytes;
      deepest = std::max(deepest, kernel.stack_bytes);
    }
    const auto fact = [&](const char* entry) {
      return *std::find_if(report.kernels.begin(), report.kernels.end(),
                           [&](const auto& k) { return k.entry == entry; });
    };
    CHECK(fact("plain").shared_bytes == 1024);
    CHECK(fact("plain").most_threads == 128);
    CHECK(fact("plain").parameter_bytes == 24);
    CHECK(fact("spills").spills > 0);
    CHECK(fact("spills").most_threads == 1024);
    if (arch == std::string("sm_90a")) CHECK(fact("stacks").stack_bytes == 400);  // others select without an array
    CHECK(fact("stacks").spills == 0);
    CHECK(fact("calls").stack_bytes >= 40);
    CHECK(fact("calls").most_threads == 0);
    CHECK(fact("calls").shared_bytes == 0);
    CHECK(code->text_bytes == text_bytes);
    CHECK(code->stack_bytes == deepest);
  }
}

TEST_CASE("PTX for what is newer, and nvJitLink that makes a cubin of it") {
  const auto ptx = compiler().compile(all_kernels, for_target("compute_90"));
  REQUIRE(ptx.has_value());
  CHECK(ptx->format == CodeObject::Format::ptx);
  CHECK(contains(std::string(reinterpret_cast<const char*>(ptx->bytes.data()), ptx->bytes.size()), ".target sm_90"));
  for (const char* arch : {"sm_90", "sm_100", "sm_120"}) {
    const auto cubin = assemble(*ptx, *parse_target(std::string("cuda:") + arch));
    if (not cubin) FAIL(cubin.error().message);
    const auto facts = cubin_facts(cubin->bytes);
    REQUIRE(facts.has_value());
    CHECK(facts->size() == 4);
    CHECK(cubin->text_bytes > 0);
  }
  CHECK(assemble(*ptx, *parse_target("cuda:sm_80")).error().status == Status::wrong_device);
  CHECK(assemble(*ptx, *parse_target("cuda:compute_100")).error().status == Status::invalid_argument);
  auto broken = *ptx;
  broken.bytes.resize(broken.bytes.size() / 2);
  const auto refused = assemble(broken, *parse_target("cuda:sm_100"));
  REQUIRE_FALSE(refused.has_value());
  CHECK(contains(refused.error().message, "nvJitLink: "));
}

TEST_CASE("an error of the source is told with its line, and the source is saved under the variant's name") {
  const Folder folder;
  const CudaSource source = {{"k"}, "extern \"C\" __global__ void k(float* x) {\n  x[0] = undeclared;\n}\n"};
  const auto code = compiler().compile(source, for_target("sm_90a"));
  REQUIRE_FALSE(code.has_value());
  CHECK(code.error().status == Status::failed);
  CHECK(contains(code.error().message, "glaive.cu(2)"));
  CHECK(contains(code.error().message, "undeclared"));
  const Error told = with_source_saved(code.error(), "stream(C=64)", source, folder.path());
  CHECK(told.message.starts_with("stream(C=64): NVRTC: "));
  REQUIRE(folder.names().size() == 1);
  CHECK(contains(told.message, (folder.path() / folder.names()[0]).string()));
  const auto saved = read_bytes(folder.path() / folder.names()[0]);
  CHECK(std::string(reinterpret_cast<const char*>(saved.data()), saved.size()) == source.text);
  const Error unsaved = with_source_saved(code.error(), "v", source, folder / "none" / "such");
  CHECK(contains(unsaved.message, "not saved"));
}

TEST_CASE("what NVRTC cannot be asked for is refused in a sentence") {
  const auto refusal = [](const Source& source, const CudaOptions& options) {
    const auto code = compiler().compile(source, options);
    REQUIRE_FALSE(code.has_value());
    return code.error();
  };
  CHECK(contains(refusal(MlirSource{}, for_target("sm_90a")).message, "MLIR"));
  CHECK(refusal(all_kernels, for_target("sm_52")).status == Status::unsupported);
  CHECK(contains(refusal(all_kernels, for_target("sm_990")).message, "cuda:compute_"));
  CHECK(refusal(all_kernels, {*parse_target("cpu:x86-64-v3"), {}}).status == Status::invalid_argument);
  CHECK(contains(refusal(all_kernels, {*parse_target("cuda:sm_90a"), {"--no-such-option"}}).message, "no-such-option"));
  CHECK(contains(refusal({CudaSource{{"other"}, all_kernels.text}}, for_target("sm_90a")).message, "'other'"));
}

TEST_CASE("a library that is none, or is not there, is told") {
  const auto none = CudaCompiler::open("/nowhere/libnvrtc.so.13");
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().status == Status::not_found);
  CHECK(contains(none.error().message, "/nowhere/libnvrtc.so.13"));
  const auto other = CudaCompiler::open("libm.so.6");
  REQUIRE_FALSE(other.has_value());
  CHECK(other.error().status == Status::unsupported);
  setenv("GLAIVE_NVRTC", "/nowhere/else.so", 1);
  const auto named = CudaCompiler::open();
  unsetenv("GLAIVE_NVRTC");
  REQUIRE_FALSE(named.has_value());
  CHECK(contains(named.error().message, "GLAIVE_NVRTC"));
  CHECK(contains(named.error().message, "/nowhere/else.so"));
}

TEST_CASE("every field of the options and of the source changes the key") {
  const CudaSource base = {{"plain"}, std::string(kernels_text)};
  const auto key = [](const CudaSource& source, const CudaOptions& options) {
    return compiler().content_key(source, options).value();
  };
  const CudaOptions options = {*parse_target("cuda:sm_90a"), {"--maxrregcount=64"}};
  const auto expected = key(base, options);
  CHECK(expected.size() == 32);
  CHECK(key(base, options) == expected);
  std::set<std::string> keys = {expected};
  const auto differs = [&](const CudaSource& source, const CudaOptions& changed) {
    CHECK(keys.insert(key(source, changed)).second);
  };
  differs({{"plain"}, base.text + " "}, options);
  differs({{"stacks"}, base.text}, options);
  differs({{"plain", "stacks"}, base.text}, options);
  differs({{}, base.text}, options);
  differs(base, {*parse_target("cuda:sm_90"), options.flags});
  differs(base, {*parse_target("cuda:compute_90a"), options.flags});
  differs(base, {options.target, {}});
  differs(base, {options.target, {"--maxrregcount=65"}});
  differs(base, {options.target, {"--maxrregcount=64", "--use_fast_math"}});
  // What moves from one field to the next is not the same.
  differs({{"--use_fast_math", "plain"}, base.text}, options);
  CHECK(contains(compiler().build(), "NVRTC "));
  CHECK_FALSE(compiler().content_key(MlirSource{}, options).has_value());
}

TEST_CASE("the same source gives the same bytes, alone and beside others") {
  const auto alone = compiler().compile(all_kernels, for_target("sm_90a"));
  REQUIRE(alone.has_value());
  std::vector<CudaJob> jobs;
  for (int i = 0; i < 6; ++i) {
    jobs.push_back({all_kernels, for_target("sm_90a")});
    if (i % 2 == 1) jobs.back().source.text += "static_assert(sizeof(int) == 5, \"no\");\n";
  }
  std::vector<int> seen(jobs.size(), 0);
  std::vector<Result<CodeObject>> codes(jobs.size());  // Catch2 asserts on one thread only
  compile_all(compiler(), jobs, 3, std::chrono::minutes(5), {}, [&](std::size_t i, Result<CodeObject> code) {
    ++seen[i];
    codes[i] = std::move(code);
  });
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    CHECK(codes[i].has_value() == (i % 2 == 0));
    if (codes[i]) CHECK(codes[i]->bytes == alone->bytes);
  }
  CHECK(seen == std::vector<int>(jobs.size(), 1));
}

TEST_CASE("a compilation that is cancelled, or takes too long, is over at once, and so are those that wait") {
  // ptxas takes some ten seconds for this one, in one pass, in which it asks nobody.
  const auto slow = slow_source(2000);
  const auto options = for_target("sm_90a");
  const auto start = std::chrono::steady_clock::now();
  const auto late = compiler().compile(slow, options, nullptr, {{}, start + std::chrono::milliseconds(50)});
  REQUIRE_FALSE(late.has_value());
  CHECK(contains(late.error().message, "longer than it may"));

  std::stop_source stop;
  std::jthread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop.request_stop();
  });
  const std::vector<CudaJob> jobs(4, {slow, options});
  std::size_t cancelled = 0;
  compile_all(compiler(), jobs, 2, std::chrono::minutes(5), stop.get_token(), [&](std::size_t, const auto& code) {
    cancelled += not code and contains(code.error().message, "cancelled");
  });
  CHECK(cancelled == 4);
  // And the compiler is as good as before.
  CHECK(compiler().compile(all_kernels, options).has_value());
}

TEST_CASE("the kernel that the GPU tests serve compiles") {
  const std::size_t words = 31;
  CudaReport report;
  const auto code = compiler().compile(CudaSource{{"forward"}, kernel_text(words)}, for_target("sm_90a"), &report);
  if (not code) FAIL(code.error().message);
  CHECK(report.kernels[0].parameter_bytes == 8 * words);
}
