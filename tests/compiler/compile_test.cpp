#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "runtime/cpu.hpp"
#include "tests/catch.hpp"
#include "tests/compiler/recipes.hpp"

using namespace glaive;
using namespace glaive::test;

namespace {

using Effort = CompileOptions::Effort;

CompileOptions for_level(std::string arch, Effort effort = Effort::light) {
  return {
      .target = {.kind = Target::Kind::cpu, .arch = std::move(arch), .features = {}}, .tune_cpu = {}, .effort = effort};
}

/// The oldest level, so that every test machine runs the code.
CompileOptions everywhere(Effort effort = Effort::light) { return for_level("x86-64-v2", effort); }

bool runs_here(const std::string& arch) { return check_runs_here(for_level(arch).target).has_value(); }

CodeObject compiled(const MlirSource& source, const CompileOptions& options, Dump* dump = nullptr) {
  MlirCompiler compiler;
  auto code = compiler.compile(source, options, dump);
  if (not code) FAIL(code.error().message);
  return *code;
}

/// One call of the first entry with these words.
void call(const MlirSource& source, const CodeObject& code, std::vector<std::uint64_t> words, std::int64_t task = 0) {
  auto loaded = LoadedCode::load(code);
  if (not loaded) FAIL(loaded.error().message);
  auto entry = loaded->entry(source.entries.front());
  if (not entry) FAIL(entry.error().message);
  alignas(64) std::byte scratch[256] = {};
  words.resize(8);
  (*entry)(words.data(), task, scratch);
}

std::uint64_t word(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }
std::uint64_t word(float value) { return std::bit_cast<std::uint32_t>(value); }

/// The float that `body`, with its argument at %x, computes: body must define %r : f32.
float evaluate(const std::string& body, std::array<float, 3> x, const CompileOptions& options) {
  std::string text;
  for (const std::string i : {"0", "1", "2"})
    text += "%a" + i + " = llvm.getelementptr %p0[" + i + "] : (!llvm.ptr) -> !llvm.ptr, f32\n%x" + i +
            " = llvm.load %a" + i + " : !llvm.ptr -> f32\n";
  const auto source = body_source(text + body + "\nllvm.store %r, %p1 : f32, !llvm.ptr");
  float result = -1;
  call(source, compiled(source, options), {word(x.data()), word(&result)});
  return result;
}

constexpr float infinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("a recipe of loops with an index, vectors and a masked tail computes and stays inside its array") {
  const auto effort = GENERATE(Effort::light, Effort::full);
  const auto source = axpy_source(4, 2);
  const auto code = compiled(source, everywhere(effort));
  for (int n = 0; n <= 21; ++n) {
    std::vector<float> x(n + 8, 1e30f), y(n + 8, 7.f), expected = y;
    for (int i = 0; i < n; ++i) {
      x[i] = 0.5f * i - 1;
      y[i] = 10.f * i;
      expected[i] = std::fma(-2.f, x[i], y[i]);
    }
    call(source, code, {word(x.data()), word(y.data()), word(-2.f), static_cast<std::uint64_t>(n)});
    CHECK(y == expected);
  }
}

TEST_CASE("accumulators carried through an unrolled loop give the product of matrices") {
  const auto level = GENERATE(as<std::string>(), "x86-64-v2", "x86-64-v3", "x86-64-v4");
  if (not runs_here(level)) return;
  const auto effort = GENERATE(Effort::light, Effort::full);
  const int rows = 3, width = 8, steps = 24;
  const auto source = tile_source(rows, width, 4);
  std::vector<float> a(steps * rows), b(steps * 2 * width), c(rows * 2 * width, -1.f);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 7) - 3;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 11) - 5;
  call(source, compiled(source, for_level(level, effort)), {word(a.data()), word(b.data()), word(c.data()), steps});
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < 2 * width; ++j) {
      float sum = 0;  // small whole numbers: exact in any order
      for (int k = 0; k < steps; ++k) sum += a[k * rows + i] * b[k * 2 * width + j];
      CHECK(c[i * 2 * width + j] == sum);
    }
}

TEST_CASE("nested loops, branches with results, while loops and switches") {
  // Collatz steps of each start in 1 .. w1, weighted by 1, 10 or 100 as start mod 3 is 0, 1 or 2.
  const auto source = body_source(R"(
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c3 = arith.constant 3 : index
    %one = arith.constant 1 : i64
    %two = arith.constant 2 : i64
    %three = arith.constant 3 : i64
    %none = arith.constant 0 : i64
    %last = arith.index_cast %w1 : i64 to index
    %end = arith.addi %last, %c1 : index
    %sum = scf.for %i = %c1 to %end step %c1 iter_args(%total = %none) -> i64 {
      %start = arith.index_cast %i : index to i64
      %end_state:2 = scf.while (%n = %start, %count = %none) : (i64, i64) -> (i64, i64) {
        %go = arith.cmpi ne, %n, %one : i64
        scf.condition(%go) %n, %count : i64, i64
      } do {
      ^bb0(%n: i64, %count: i64):
        %odd = arith.andi %n, %one : i64
        %is_odd = arith.cmpi eq, %odd, %one : i64
        %next = scf.if %is_odd -> i64 {
          %m = arith.muli %n, %three : i64
          %p = arith.addi %m, %one : i64
          scf.yield %p : i64
        } else {
          %h = arith.divsi %n, %two : i64
          scf.yield %h : i64
        }
        %counted = arith.addi %count, %one : i64
        scf.yield %next, %counted : i64, i64
      }
      %class = arith.remui %i, %c3 : index
      %weight = scf.index_switch %class -> i64
      case 0 {
        scf.yield %one : i64
      }
      case 1 {
        %ten = arith.constant 10 : i64
        scf.yield %ten : i64
      }
      default {
        %hundred = arith.constant 100 : i64
        scf.yield %hundred : i64
      }
      %weighted = arith.muli %weight, %end_state#1 : i64
      %new = scf.for %j = %c0 to %c1 step %c1 iter_args(%t = %total) -> i64 {
        %u = arith.addi %t, %weighted : i64
        scf.yield %u : i64
      }
      scf.yield %new : i64
    }
    llvm.store %sum, %p0 : i64, !llvm.ptr)");
  std::int64_t expected = 0;
  for (std::int64_t i = 1; i <= 30; ++i) {
    std::int64_t steps = 0;
    for (auto n = i; n != 1; ++steps) n = n % 2 ? 3 * n + 1 : n / 2;
    expected += steps * (i % 3 == 0 ? 1 : i % 3 == 1 ? 10 : 100);
  }
  std::int64_t sum = -1;
  call(source, compiled(source, everywhere()), {word(&sum), 30});
  CHECK(sum == expected);
}

TEST_CASE("masked loads and stores touch no lane that the mask leaves out") {
  const auto source = body_source(R"(
    %mask = arith.constant dense<[true, false, true, false, false, true, false, false]> : vector<8xi1>
    %other = arith.constant dense<9.0> : vector<8xf32>
    %x = llvm.intr.masked.load %p0, %mask, %other {alignment = 4 : i32} : (!llvm.ptr, vector<8xi1>, vector<8xf32>) -> vector<8xf32>
    llvm.store %x, %p1 {alignment = 4 : i64} : vector<8xf32>, !llvm.ptr
    llvm.intr.masked.store %x, %p2, %mask {alignment = 4 : i32} : vector<8xf32>, vector<8xi1> into !llvm.ptr)");
  const auto code = compiled(source, everywhere());
  const std::array<float, 8> x = {0, 1, 2, 3, 4, 5, 6, 7};
  std::array<float, 8> all = {}, some;
  some.fill(-1);
  call(source, code, {word(x.data()), word(all.data()), word(some.data())});
  CHECK(all == std::array<float, 8>{0, 9, 2, 9, 9, 5, 9, 9});
  CHECK(some == std::array<float, 8>{0, -1, 2, -1, -1, 5, -1, -1});
}

TEST_CASE("vectors of two dimensions are lowered too") {
  const auto source = body_source(R"(
    %a = llvm.load %p0 {alignment = 4 : i64} : !llvm.ptr -> vector<4xf32>
    %b = llvm.load %p1 {alignment = 4 : i64} : !llvm.ptr -> vector<4xf32>
    %zero = arith.constant dense<0.0> : vector<4x4xf32>
    %outer = vector.outerproduct %a, %b, %zero {kind = #vector.kind<add>} : vector<4xf32>, vector<4xf32>
    %turned = vector.transpose %outer, [1, 0] : vector<4x4xf32> to vector<4x4xf32>
    %row = vector.extract %turned[2] : vector<4xf32> from vector<4x4xf32>
    %part = vector.extract_strided_slice %row {offsets = [1], sizes = [2], strides = [1]} : vector<4xf32> to vector<2xf32>
    %sum = vector.reduction <add>, %part : vector<2xf32> into f32
    llvm.store %row, %p2 {alignment = 4 : i64} : vector<4xf32>, !llvm.ptr
    llvm.store %sum, %p3 : f32, !llvm.ptr)");
  const std::array<float, 4> a = {1, 2, 3, 4}, b = {10, 20, 30, 40};
  std::array<float, 4> row = {};
  float sum = 0;
  call(source, compiled(source, everywhere()), {word(a.data()), word(b.data()), word(row.data()), word(&sum)});
  CHECK(row == std::array<float, 4>{30, 60, 90, 120});
  CHECK(sum == 150);
}

TEST_CASE("memrefs with static strides, function calls and task numbers") {
  const auto source = text_source(R"(
    llvm.func @twice(%x: f32) -> f32 {
      %m = memref.alloca() : memref<2x3xf32>
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      memref.store %x, %m[%c1, %c2] : memref<2x3xf32>
      %y = memref.load %m[%c1, %c2] : memref<2x3xf32>
      %z = arith.addf %y, %x : f32
      llvm.return %z : f32
    }
    llvm.func @entry(%words: !llvm.ptr, %task: i64, %scratch: !llvm.ptr) {
      %f = arith.sitofp %task : i64 to f32
      %t = llvm.call @twice(%f) : (f32) -> f32
      llvm.store %t, %scratch : f32, !llvm.ptr
      %back = llvm.load %scratch : !llvm.ptr -> f32
      %w = llvm.load %words : !llvm.ptr -> i64
      %p = llvm.inttoptr %w : i64 to !llvm.ptr
      llvm.store %back, %p : f32, !llvm.ptr
      llvm.return
    })");
  const auto effort = GENERATE(Effort::light, Effort::full);
  float result = 0;
  call(source, compiled(source, everywhere(effort)), {word(&result)}, 21);
  CHECK(result == 42);
}

TEST_CASE("infinities, NaN, signed zeros and the order of sums are kept") {
  const auto options = everywhere(GENERATE(Effort::light, Effort::full));
  CHECK(std::isnan(evaluate("%r = arith.subf %x0, %x0 : f32", {infinity, 0, 0}, options)));
  CHECK(
      std::isnan(evaluate("%z = arith.constant 0.0 : f32\n%r = arith.mulf %x0, %z : f32", {infinity, 0, 0}, options)));
  CHECK(std::isnan(evaluate("%r = arith.maximumf %x0, %x1 : f32", {std::nanf(""), 1, 0}, options)));
  CHECK(std::signbit(evaluate("%z = arith.constant 0.0 : f32\n%r = arith.mulf %x0, %z : f32", {-1, 0, 0}, options)));
  CHECK(evaluate("%s = arith.addf %x0, %x1 : f32\n%r = arith.addf %s, %x2 : f32", {1, 1e20f, -1e20f}, options) == 0);
  CHECK(evaluate("%s = arith.addf %x1, %x2 : f32\n%r = arith.addf %x0, %s : f32", {1, 1e20f, -1e20f}, options) == 1);
  CHECK(evaluate("%r = arith.divf %x0, %x1 : f32", {1, 3, 0}, options) == 1.f / 3.f);
  // exp(x) for x = -inf the way that families write it: the exponent is made by an integer shift of a clamped number.
  const std::string exp = R"(
    %least = arith.constant -127.0 : f32
    %z = arith.maximumf %x0, %least : f32
    %n = arith.fptosi %z : f32 to i32
    %bias = arith.constant 127 : i32
    %e = arith.addi %n, %bias : i32
    %shift = arith.constant 23 : i32
    %bits = arith.shli %e, %shift : i32
    %r = arith.bitcast %bits : i32 to f32)";
  CHECK(evaluate(exp, {-infinity, 0, 0}, options) == 0);
  CHECK(evaluate(exp, {-3, 0, 0}, options) == 0.125f);
}

TEST_CASE("a product and a sum become one operation where the processor has it") {
  const auto source = body_source(R"(
    %a = llvm.load %p0 : !llvm.ptr -> vector<8xf32>
    %b = llvm.load %p1 : !llvm.ptr -> vector<8xf32>
    %c = arith.mulf %a, %b : vector<8xf32>
    %d = arith.addf %c, %b : vector<8xf32>
    llvm.store %d, %p0 : vector<8xf32>, !llvm.ptr)");
  Dump fused, apart;
  compiled(source, for_level("x86-64-v3"), &fused);
  compiled(source, everywhere(), &apart);
  CHECK(fused.assembly.find("vfmadd") != std::string::npos);
  CHECK(apart.assembly.find("vfmadd") == std::string::npos);
}

TEST_CASE("a level decides the width of vectors, a feature the instructions") {
  const auto source = tile_source(2, 16, 1);
  const auto uses = [&](const CompileOptions& options, const char* what) {
    Dump dump;
    compiled(source, options, &dump);
    return dump.assembly.find(what) != std::string::npos;
  };
  CHECK_FALSE(uses(for_level("x86-64-v2"), "%ymm"));
  CHECK(uses(for_level("x86-64-v3"), "%ymm"));
  CHECK_FALSE(uses(for_level("x86-64-v3"), "%zmm"));
  CHECK(uses(for_level("x86-64-v4"), "%zmm"));

  const auto convert = body_source(R"(
    %a = llvm.load %p0 : !llvm.ptr -> vector<16xf32>
    %b = arith.truncf %a : vector<16xf32> to vector<16xbf16>
    llvm.store %b, %p1 : vector<16xbf16>, !llvm.ptr)");
  auto options = for_level("x86-64-v4");
  options.target.features = {"avx512bf16"};
  Dump dump;
  compiled(convert, options, &dump);
  CHECK(dump.assembly.find("vcvtneps2bf16") != std::string::npos);
  CHECK(dump.llvm.find("\"target-cpu\"=\"x86-64-v4\" \"target-features\"=\"+avx512bf16\"") != std::string::npos);

  // Left to itself, LLVM makes vectors of half the width of an x86-64-v4 register.
  const auto scalar = body_source(R"(
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %n = arith.index_cast %w1 : i64 to index
    scf.for %i = %c0 to %n step %c1 {
      %j = arith.index_cast %i : index to i64
      %at = llvm.getelementptr %p0[%j] : (!llvm.ptr, i64) -> !llvm.ptr, f32
      %x = llvm.load %at : !llvm.ptr -> f32
      %y = arith.mulf %x, %x : f32
      llvm.store %y, %at : f32, !llvm.ptr
    })");
  Dump wide;
  compiled(scalar, for_level("x86-64-v4", Effort::full), &wide);
  CHECK(wide.assembly.find("%zmm") != std::string::npos);
}

TEST_CASE("code for a processor with more features compiles anywhere and is refused where it cannot run") {
  const auto source = axpy_source(16, 2);
  const auto code = compiled(source, for_level("x86-64-v4"));
  CHECK(code.target.arch == "x86-64-v4");
  const auto loaded = LoadedCode::load(code);
  if (runs_here("x86-64-v4")) {
    CHECK(loaded);
  } else {
    REQUIRE_FALSE(loaded);
    CHECK(loaded.error().status == Status::wrong_device);
  }
}

TEST_CASE("a processor to tune for changes no result") {
  const auto source = axpy_source(4, 2);
  auto options = everywhere();
  std::vector<float> results;
  for (const char* tune : {"", "znver3", "sapphirerapids"}) {
    options.tune_cpu = tune;
    float x[5] = {1, 2, 3, 4, 5}, y[5] = {};
    call(source, compiled(source, options), {word(x), word(y), word(0.1f), 5});
    results.push_back(y[4]);
  }
  CHECK(results == std::vector<float>(3, 0.5f));
}

TEST_CASE("only entries are exported and nothing is needed") {
  const auto source = text_source(R"(
    llvm.func @helper(%p: !llvm.ptr) attributes {passthrough = ["noinline"]} {
      %x = llvm.load %p : !llvm.ptr -> i64
      llvm.store volatile %x, %p : i64, !llvm.ptr
      llvm.return
    }
    llvm.func @first(%words: !llvm.ptr, %task: i64, %scratch: !llvm.ptr) {
      llvm.call @helper(%words) : (!llvm.ptr) -> ()
      llvm.return
    }
    llvm.func @second(%words: !llvm.ptr, %task: i64, %scratch: !llvm.ptr) {
      llvm.call @helper(%scratch) : (!llvm.ptr) -> ()
      llvm.return
    })",
                                  {"first", "second"});
  const auto code = compiled(source, everywhere(GENERATE(Effort::light, Effort::full)));
  auto symbols = dynamic_symbols(code.bytes);
  std::ranges::sort(symbols.exported);
  CHECK(symbols.exported == source.entries);
  CHECK(symbols.needed.empty());
  const auto loaded = LoadedCode::load(code);
  REQUIRE(loaded);
  CHECK(loaded->entry("first"));
  CHECK(loaded->entry("second"));
  CHECK_FALSE(loaded->entry("helper"));
}

TEST_CASE("loops that clear or copy stay loops, an explicit memset is the loader's") {
  const auto loop = body_source(R"(
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %n = arith.index_cast %w2 : i64 to index
    %zero = arith.constant 0.0 : f32
    scf.for %i = %c0 to %n step %c1 {
      %j = arith.index_cast %i : index to i64
      %to = llvm.getelementptr %p0[%j] : (!llvm.ptr, i64) -> !llvm.ptr, f32
      llvm.store %zero, %to : f32, !llvm.ptr
    })");
  CHECK(dynamic_symbols(compiled(loop, everywhere(Effort::full)).bytes).needed.empty());

  const auto explicit_call = body_source(R"(
    %zero = arith.constant 0 : i8
    "llvm.intr.memset"(%p0, %zero, %w1) <{isVolatile = false}> : (!llvm.ptr, i8, i64) -> ())");
  const auto code = compiled(explicit_call, everywhere());
  CHECK(dynamic_symbols(code.bytes).needed == std::vector<std::string>{"memset"});
  std::array<char, 8> bytes;
  bytes.fill('x');
  call(explicit_call, code, {word(bytes.data()), 5});
  CHECK(std::string(bytes.data() + 4, 4) == std::string("\0xxx", 4));
}

TEST_CASE("facts: machine code grows with unrolling, stack with allocas") {
  const auto small = compiled(tile_source(2, 8, 1), for_level("x86-64-v3"));
  const auto large = compiled(tile_source(2, 8, 32), for_level("x86-64-v3"));
  CHECK(small.text_bytes > 50);
  CHECK(large.text_bytes > 31 * 4 * 4);  // FMAs alone
  CHECK(large.text_bytes > 5 * small.text_bytes);
  CHECK(large.text_bytes < static_cast<std::int64_t>(large.bytes.size()));
  CHECK(large.stack_bytes == 0);  // 4 accumulators: no spill

  const auto spilling = compiled(tile_source(12, 8, 2), for_level("x86-64-v3"));
  CHECK(spilling.stack_bytes >= 8 * 32);  // 24 accumulators in 16 registers
  CHECK(spilling.stack_bytes < 4096);

  const auto alloca = compiled(body_source(R"(
    %count = llvm.mlir.constant(1000 : i64) : i64
    %room = llvm.alloca %count x f32 : (i64) -> !llvm.ptr
    llvm.store volatile %w0, %room : i64, !llvm.ptr
    %x = llvm.load volatile %room : !llvm.ptr -> i64)"),
                               everywhere());
  // The 128 bytes below the stack pointer that a leaf function may use are no part of a frame.
  CHECK(alloca.stack_bytes >= 4000 - 128);
  CHECK(alloca.stack_bytes < 4200);
}

TEST_CASE("a dump has every stage, and does not change the code") {
  const auto source = axpy_source(4, 2);
  MlirCompiler compiler;
  Dump dump;
  const auto with = compiler.compile(source, everywhere(), &dump), without = compiler.compile(source, everywhere());
  REQUIRE(with);
  REQUIRE(without);
  CHECK(with->bytes == without->bytes);
  CHECK(dump.mlir.find("scf.for") != std::string::npos);
  CHECK(dump.lowered.find("llvm.cond_br") != std::string::npos);
  CHECK(dump.lowered.find("scf.") == std::string::npos);
  CHECK(dump.llvm.find("define void @axpy(ptr") != std::string::npos);
  CHECK(dump.assembly.find("axpy:") != std::string::npos);
  std::string stages;
  for (const auto& stage : dump.times) {
    stages += std::string(stage.name) + " ";
    CHECK(stage.time.count() > 0);
  }
  CHECK(stages == "build verify lower translate optimise codegen link ");
  REQUIRE(compiler.compile(source, everywhere(), &dump));
  CHECK(dump.times.size() == 7);  // a used dump starts afresh
}

TEST_CASE("one compiler makes the same code each time, also after an error") {
  MlirCompiler compiler;
  const auto source = tile_source(3, 8, 4);
  const auto first = compiler.compile(source, everywhere());
  REQUIRE_FALSE(compiler.compile(body_source("%x = llvm.load %nowhere : !llvm.ptr -> i64"), everywhere()));
  REQUIRE_FALSE(compiler.compile(text_source("llvm.func @entry()"), everywhere()));
  const auto second = compiler.compile(source, everywhere());
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->bytes == second->bytes);
}

TEST_CASE("two threads compile at once") {
  std::vector<std::vector<std::byte>> expected, found[2];
  std::vector<MlirSource> sources;
  for (int unroll = 1; unroll <= 6; ++unroll) sources.push_back(tile_source(2 + unroll % 3, 8, unroll));
  for (const auto& source : sources) expected.push_back(compiled(source, for_level("x86-64-v3")).bytes);
  const auto work = [&](int who) {
    MlirCompiler compiler;
    for (const auto& source : sources) {
      auto code = compiler.compile(source, for_level("x86-64-v3"));
      found[who].push_back(code ? code->bytes : std::vector<std::byte>{});
    }
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  CHECK(found[0] == expected);
  CHECK(found[1] == expected);
}
