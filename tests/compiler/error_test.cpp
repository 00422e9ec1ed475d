#include "tests/catch.hpp"
#include "tests/compiler/recipes.hpp"

using namespace glaive;
using namespace glaive::test;
using Catch::Matchers::Contains;

namespace {

const CompileOptions plain{.target = {.kind = Target::Kind::cpu, .arch = "x86-64-v2", .features = {}}, .tune_cpu = {}};

/// The message of a compilation that must fail, and print nothing.
Error failure(const MlirSource& source, const CompileOptions& options = plain) {
  MlirCompiler compiler;
  const ErrorOutput printed;
  const auto code = compiler.compile(source, options);
  CHECK(printed.text() == "");
  if (code) FAIL("this compiles");
  return code.error();
}

const MlirSource good = axpy_source(4, 1);

}  // namespace

TEST_CASE("a malformed module: stage, operation and reason") {
  const auto error = failure(body_source(R"(
    %x = "arith.addf"(%w0, %w1) : (i64, i64) -> i64)"));
  CHECK(error.status == Status::failed);
  CHECK_THAT(error.message, Contains("verify: ") and Contains("arith.addf") and Contains("floating-point"));
}

TEST_CASE("a recipe that MLIR's parser refuses") {
  CHECK_THAT(failure(text_source("llvm.func @entry(")).message, Contains("recipe: "));
}

TEST_CASE("a recipe that throws, or is none") {
  CHECK_THAT(failure(throwing_source("no such tile")).message, Contains("recipe: ") and Contains("no such tile"));
  const auto none = failure({{"entry"}, {}});
  CHECK(none.status == Status::invalid_argument);
  CHECK_THAT(none.message, Contains("recipe: "));
}

TEST_CASE("an entry that is missing, wrong or hidden is named") {
  auto misnamed = good;
  misnamed.entries = {"axpi"};
  CHECK_THAT(failure(misnamed).message, Contains("verify: ") and Contains("'axpi'") and Contains("axpy"));

  CHECK_THAT(failure({{}, good.build}).message, Contains("no entry"));
  CHECK_THAT(failure(text_source("")).message, Contains("'entry'") and Contains("none"));
  CHECK_THAT(failure(text_source("llvm.func @entry(!llvm.ptr, i64, !llvm.ptr)")).message,
             Contains("no llvm.func defines"));
  CHECK_THAT(failure(text_source("llvm.func @entry(%a: !llvm.ptr) {\nllvm.return\n}")).message,
             Contains("'entry'") and Contains("void (ptr)") and Contains("void (ptr, i64, ptr)"));
  CHECK_THAT(failure(text_source("llvm.func internal @entry(%a: !llvm.ptr, %b: i64, %c: !llvm.ptr) {\nllvm.return\n}"))
                 .message,
             Contains("external linkage"));
}

TEST_CASE("an operation that nothing lowers is named") {
  CHECK_THAT(failure(body_source(R"(
    %m = memref.alloca() : memref<8xf32>
    %r = memref.realloc %m : memref<8xf32> to memref<16xf32>)"))
                 .message,
             Contains("lower: ") and Contains("memref.realloc"));
}

TEST_CASE("a module that MLIR accepts and LLVM does not") {
  CHECK_THAT(failure(body_source(R"(
    %x = llvm.call_intrinsic "llvm.x86.sse.rcp.ps"(%w0) : (i64) -> i64)"))
                 .message,
             Contains("translate: ") and Contains("llvm.x86.sse.rcp.ps"));
  CHECK_THAT(failure(body_source(R"(
    %x = llvm.load %p0 : !llvm.ptr -> vector<4xf32>
    %mode = arith.trunci %w1 : i64 to i32
    %y = llvm.call_intrinsic "llvm.x86.sse41.round.ps"(%x, %mode) : (vector<4xf32>, i32) -> vector<4xf32>
    llvm.store %y, %p0 : vector<4xf32>, !llvm.ptr)"))
                 .message,
             Contains("translate: ") and Contains("immarg"));
  CHECK_THAT(failure(body_source(R"(llvm.inline_asm "no_such_instruction", "" : () -> ())")).message,
             Contains("codegen: ") and Contains("no_such_instruction"));
}

TEST_CASE("calls into libm and to functions that nobody defines are refused") {
  CHECK_THAT(failure(body_source(R"(
    %x = llvm.load %p0 : !llvm.ptr -> vector<4xf32>
    %y = math.exp %x : vector<4xf32>
    llvm.store %y, %p0 : vector<4xf32>, !llvm.ptr)"))
                 .message,
             Contains("link: ") and Contains("'expf'"));
  CHECK_THAT(failure(text_source(R"(
    llvm.func @elsewhere()
    llvm.func @entry(%words: !llvm.ptr, %task: i64, %scratch: !llvm.ptr) {
      llvm.call @elsewhere() : () -> ()
      llvm.return
    })"))
                 .message,
             Contains("'elsewhere'"));
}

TEST_CASE("targets that this compiler does not know") {
  const auto refused = [](CompileOptions options) {
    const auto error = failure(good, options);
    CHECK(error.status == Status::invalid_argument);
    CHECK_THAT(error.message, Contains("target: "));
    return error.message;
  };
  auto options = plain;
  options.target.features = {"avx512turbo"};
  CHECK_THAT(refused(options), Contains("'avx512turbo'"));
  options = plain;
  options.target.arch = "x86-64-v9";
  CHECK_THAT(refused(options), Contains("'x86-64-v9'") and Contains("x86-64-v4"));
  options = plain;
  options.tune_cpu = "abacus";
  CHECK_THAT(refused(options), Contains("'abacus'"));
  options.target = {.kind = Target::Kind::cuda, .arch = "sm_90a", .features = {}};
  CHECK_THAT(refused(options), Contains("cuda:sm_90a"));
}

TEST_CASE("a dump of a failed compilation holds the stages that were reached") {
  MlirCompiler compiler;
  Dump dump;
  REQUIRE_FALSE(compiler.compile(body_source(R"(
    %m = memref.alloca() : memref<8xf32>
    %r = memref.realloc %m : memref<8xf32> to memref<16xf32>)"),
                                 plain, &dump));
  CHECK(dump.mlir.find("memref.realloc") != std::string::npos);
  CHECK(dump.lowered.empty());
  CHECK(dump.assembly.empty());
  REQUIRE(dump.times.size() == 2);
  CHECK(dump.times.back().name == "verify");
}
