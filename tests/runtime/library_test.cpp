// libglaive.so as a program sees it: its symbols, its needs, its header, and what a process that uses it has mapped.
#include <dlfcn.h>

#include <sstream>

#include "runtime/glaive.h"
#include "runtime/glaive.hpp"
#include "tests/runtime/allocations.hpp"
#include "tests/runtime/examples.hpp"
#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("library: it exports glaive_* and nothing else") {
  const Output nm = run_command("nm -D --defined-only " LIBGLAIVE);
  REQUIRE(nm.exit == 0);
  std::istringstream lines(nm.text);
  int functions = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string kind_and_name = line.substr(line.find(' ') + 1);
    INFO(line);
    if (kind_and_name == "A GLAIVE_0") continue;
    CHECK(kind_and_name.starts_with("T glaive_"));
    ++functions;
  }
  const auto header = read_bytes(fs::path(HEADER_ROOT) / "runtime/glaive.h");
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  int declared = 0;
  for (std::size_t at = 0; (at = text.find("\nGLAIVE_API ", at)) != text.npos; ++at) ++declared;
  CHECK(functions == declared);
}

TEST_CASE("library: it needs the C library, libm and the loader alone, and is named for its version") {
  const Output dynamic = run_command("readelf -d " LIBGLAIVE);
  REQUIRE(dynamic.exit == 0);
  CHECK(contains(dynamic.text, "soname: [libglaive.so.0]"));
  std::istringstream lines(dynamic.text);
  for (std::string line; std::getline(lines, line);) {
    if (not contains(line, "(NEEDED)")) continue;
    INFO(line);
#if not GLAIVE_SANITIZED
    CHECK((contains(line, "[libc.so.6]") or contains(line, "[libm.so.6]") or contains(line, "[ld-linux-x86-64.so.2]")));
#endif
    CHECK_FALSE(contains(line, "libstdc++"));
  }
}

TEST_CASE("library: a C program runs a pack's kernel, and has neither libstdc++ nor LLVM mapped") {
  Folder folder;
  const PackEntry entry = kernel_entry();
  REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
  const Output output = run_command(C_FIRST_CALL " " + (folder / "p.pack").string() + " '" + kernel_problem + "'");
  INFO(output.text);
  CHECK(output.exit == 0);
  CHECK(contains(output.text, "sum 1536.0\n"));
  CHECK(contains(output.text, "libglaive.so.0"));
  CHECK(contains(output.text, "glaive-code"));
#if not GLAIVE_SANITIZED
  for (const char* library : {"libstdc++", "libgcc_s", "LLVM", "MLIR", "libcuda"})
    CHECK_FALSE(contains(output.text, library));
#endif
}

TEST_CASE("library: of two copies in one process, shared and linked in, each runs its own kernels") {
  Folder folder;
  const PackEntry entry = kernel_entry();
  REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
  void* const shared = dlopen(LIBGLAIVE, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(shared != nullptr);
  const auto call = [&]<class F, class... Args>(F*, const char* name, Args... args) {
    return reinterpret_cast<F*>(dlsym(shared, name))(args...);
  };
  glaive_device* device = nullptr;
  glaive_pack* pack = nullptr;
  glaive_plan* plan = nullptr;
  glaive_problem problem = {};
  problem.size = sizeof problem;
  glaive_shape shape = {};
  shape.size = sizeof shape;
  shape.sequences = 1, shape.tokens = 5;
  REQUIRE(call(&glaive_device_open, "glaive_device_open", "cpu", 1, &device) == GLAIVE_OK);
  REQUIRE(call(&glaive_pack_open, "glaive_pack_open", (folder / "p.pack").c_str(), &pack) == GLAIVE_OK);
  REQUIRE(call(&glaive_problem_parse, "glaive_problem_parse", kernel_problem, &problem) == GLAIVE_OK);
  REQUIRE(call(&glaive_plan_find, "glaive_plan_find", device, pack, &problem, &shape, &plan) == GLAIVE_OK);

  // The first load of this copy, as that was of the other, and by the same descriptor, which is free again.
  const auto code = LoadedCode::load(kernel_object(TEST_KERNEL_2));
  REQUIRE(code.has_value());
  std::int64_t which = 0;
  const std::uint64_t words[] = {reinterpret_cast<std::uint64_t>(&which)};
  (*code->entry("which"))(words, 0, nullptr);
  CHECK(which == 2);

  call(&glaive_plan_close, "glaive_plan_close", plan);
  call(&glaive_pack_close, "glaive_pack_close", pack);
  call(&glaive_device_close, "glaive_device_close", device);
}

TEST_CASE("library: the first example prints the norm of o, and a sentence where it cannot") {
  Folder folder;
  const PackEntry entry = kernel_entry();
  REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
  const std::string pack = (folder / "p.pack").string();
  const Output good = run_command(FIRST_CALL " " + pack + " 'H4 Hkv2 K8 V8'");
  INFO(good.text);
  CHECK(good.exit == 0);
  CHECK(contains(good.text, "norm of o: "));
  CHECK_FALSE(contains(good.text, "nan"));
  const Output bad = run_command(FIRST_CALL " " + pack + " 'H4 Hkv3 K8 V8'");
  CHECK(bad.exit == 1);
  CHECK(contains(bad.text, "glaive: problem \"H4 Hkv3 K8 V8\", column 4: \"Hkv3\" does not divide \"H4\""));
  CHECK(run_command(FIRST_CALL " " + pack + ".none 'H4 K8 V8'").exit == 1);
}

TEST_CASE("library: the example of prefill and decode compares them with one forward") {
  Folder folder;
  PackEntry entries[] = {kernel_entry(), kernel_entry()};
  entries[1].key.problem = "step H4 Hkv2 K8 V8 f32";
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
  examples_agree({"02_prefill_then_decode"}, folder / "p.pack", kernel_problem, "cpu");
  REQUIRE(add_to_pack(folder / "forward.pack", {entries, 1}).has_value());
  const Output bad = run_command(EXAMPLES "/02_prefill_then_decode " + (folder / "forward.pack").string() + " '" +
                                 kernel_problem + "'");
  CHECK(bad.exit == 1);
  CHECK(contains(bad.text, "no kernel for `step H4 Hkv2 K8 V8 f32`"));
}

TEST_CASE("library: the header is C99 and C++17, the wrapper C++17") {
  const std::string include = " -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I" HEADER_ROOT " " HEADER_ROOT;
  const auto compiles = [&](const std::string& command) {
    const Output output = run_command(command);
    INFO(output.text);
    CHECK(output.exit == 0);
  };
  compiles(C_COMPILER " -std=c99 -xc" + include + "/runtime/glaive.h");
  compiles(CXX_COMPILER " -std=c++17 -xc++" + include + "/runtime/glaive.h");
  compiles("echo '#include \"runtime/glaive.hpp\"' | " CXX_COMPILER
           " -std=c++17 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I" HEADER_ROOT " -xc++ -");
}

TEST_CASE("library: the C++ wrapper throws what the C functions say") {
  Folder folder;
  try {
    const api::Pack pack((folder / "none").string());
    FAIL("no pack, no exception");
  } catch (const api::Error& error) {
    CHECK(error.status() == GLAIVE_NOT_FOUND);
    CHECK(contains(error.what(), "none"));
  }
  CHECK_THROWS_AS(api::Problem("H4 K8"), api::Error);
  CHECK_THROWS_AS(api::Device("tpu"), api::Error);
}

TEST_CASE("library: a call allocates nothing") {
  Folder folder;
  const PackEntry entry = kernel_entry();
  REQUIRE(add_to_pack(folder / "p.pack", {&entry, 1}).has_value());
  const api::Device device("cpu", 2);
  const api::Pack pack((folder / "p.pack").string());
  const api::Problem problem(kernel_problem);
  const api::Shape shape{api::Sequences(2), api::Tokens(3)};
  const api::Plan plan(device, pack, problem, shape);
  CHECK(plan.match() == GLAIVE_MATCH_EXACT);
  CHECK(plan.variant() == "test(C=1)");
  const api::Workspace workspace(device, plan.workspace_bytes(shape));
  std::vector<float> in(2 * 3 * 4 * 8, 0.5f), o(2 * 3 * 4 * 8);
  api::Args args;
  args.q = in.data(), args.k = in.data(), args.v = in.data(), args.g = in.data(), args.o = o.data();
  const int before = allocations();
  for (int i = 0; i < 100; ++i) plan(shape, args, workspace);
  CHECK(allocations() == before);
}
