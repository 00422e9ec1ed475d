#include <cstdio>
#include <map>
#include <thread>

#include "tests/catch.hpp"
#include "tests/compiler/recipes.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

const CompileOptions base{.target = {.kind = Target::Kind::cpu, .arch = "x86-64-v4", .features = {"avx512bf16"}},
                          .tune_cpu = "znver4",
                          .effort = CompileOptions::Effort::full};

std::string key(const MlirSource& source, const CompileOptions& options = base) {
  MlirCompiler compiler;
  const auto found = compiler.content_key(source, options);
  if (not found) FAIL(found.error().message);
  return *found;
}

/// An entry and a helper of the entry's type, so that both or either can be entries.
MlirSource pair_source(std::vector<std::string> entries, const std::string& constant = "1.5") {
  std::string text;
  for (const std::string name : {"a", "ab", "b"})
    text += "llvm.func @" + name + "(%words: !llvm.ptr, %task: i64, %scratch: !llvm.ptr) {\n%x = arith.constant " +
            constant + " : f32\nllvm.store %x, %scratch : f32, !llvm.ptr\nllvm.return\n}\n";
  return text_source(text, std::move(entries));
}

}  // namespace

TEST_CASE("a key is 32 hex digits, the same in each compiler and thread, before and after compiling") {
  const auto source = axpy_source(8, 4);
  const auto expected = key(source);
  CHECK(expected.size() == 32);
  CHECK(expected.find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(key(source) == expected);
  std::string in_thread;
  std::thread([&] { in_thread = MlirCompiler().content_key(source, base).value_or("error"); }).join();
  CHECK(in_thread == expected);
  MlirCompiler used;
  REQUIRE(used.compile(tile_source(2, 8, 2), base));
  REQUIRE(used.content_key(tile_source(3, 8, 2), base));
  CHECK(used.content_key(source, base).value_or("error") == expected);
}

TEST_CASE("print a key", "[.print-key]") { std::printf("key=%s\n", key(axpy_source(8, 4)).c_str()); }

TEST_CASE("a key is the same in each process") {
  std::FILE* child = popen("exec \"$(readlink /proc/$PPID/exe)\" '[.print-key]' 2>&1", "r");
  REQUIRE(child);
  std::string output;
  for (char buffer[256]; std::fgets(buffer, sizeof buffer, child);) output += buffer;
  REQUIRE(pclose(child) == 0);
  CHECK(output.find("key=" + key(axpy_source(8, 4))) != std::string::npos);
}

TEST_CASE("every field of the options and of the source changes the key") {
  std::map<std::string, std::string> seen;  // key -> what it belongs to
  const auto differs = [&](const std::string& what, const std::string& found) {
    const auto [at, fresh] = seen.emplace(found, what);
    INFO(what << " has the key of " << at->second);
    CHECK(fresh);
  };
  const auto with = [](auto change) {
    auto options = base;
    change(options);
    return options;
  };
  const auto source = pair_source({"a"});
  differs("the base", key(source));
  differs("another level", key(source, with([](auto& o) { o.target.arch = "x86-64-v3"; })));
  differs("no feature", key(source, with([](auto& o) { o.target.features.clear(); })));
  differs("another feature", key(source, with([](auto& o) { o.target.features = {"avx512fp16"}; })));
  differs("one more feature", key(source, with([](auto& o) { o.target.features.push_back("avx512fp16"); })));
  differs("another processor", key(source, with([](auto& o) { o.tune_cpu = "znver5"; })));
  differs("no processor", key(source, with([](auto& o) { o.tune_cpu.clear(); })));
  differs("another effort", key(source, with([](auto& o) { o.effort = CompileOptions::Effort::light; })));
  differs("another entry", key(pair_source({"b"})));
  differs("one more entry", key(pair_source({"a", "b"})));
  differs("names cut elsewhere", key(pair_source({"ab"})));
  differs("another constant", key(pair_source({"a"}, "1.5000001")));
  differs("another kind of constant", key(pair_source({"a"}, "-1.5")));
  differs("another parameter", key(axpy_source(8, 4)));
  differs("and another", key(axpy_source(8, 2)));
  differs("and another", key(axpy_source(4, 4)));
}

TEST_CASE("constants that print alike as decimals are told apart, and large ones are printed whole") {
  const auto long_source = [](const std::string& last) {
    std::string values;
    for (int i = 0; i < 200; ++i) values += "1.0, ";
    return body_source("%x = arith.constant dense<[" + values + last + "]> : vector<201xf32>\n" +
                       "%y = vector.extract %x[200] : f32 from vector<201xf32>\nllvm.store %y, %p0 : f32, !llvm.ptr");
  };
  CHECK(key(long_source("1.0")) != key(long_source("2.0")));
  CHECK(key(body_source("%x = arith.constant 0x7FC00000 : f32")) !=
        key(body_source("%x = arith.constant 0x7FC00001 : f32")));
}

TEST_CASE("a key of a malformed module is an error") {
  const auto found = MlirCompiler().content_key(text_source("llvm.func @entry("), base);
  REQUIRE_FALSE(found);
  CHECK(found.error().message.starts_with("recipe: "));
}

TEST_CASE("options print as one line that holds every field") {
  CHECK(to_string(base) == "cpu:x86-64-v4+avx512bf16 tune=znver4 effort=full");
  CHECK(to_string(CompileOptions{.target = base.target, .tune_cpu = {}, .effort = CompileOptions::Effort::light}) ==
        "cpu:x86-64-v4+avx512bf16 tune=generic effort=light");
}

TEST_CASE("the compiler and the processor have names") {
  CHECK(compiler_build().find("LLVM 19.") != std::string::npos);
  CHECK_FALSE(host_cpu_name().empty());
  auto options = base;
  options.tune_cpu = host_cpu_name();
  CHECK(MlirCompiler().compile(axpy_source(4, 1), options));
}
