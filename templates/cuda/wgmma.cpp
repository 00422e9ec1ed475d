#include "templates/cuda/cuda.hpp"

namespace glaive::cuda {
namespace {

std::string list(std::int64_t count, const std::string& before, std::int64_t first = 0, const std::string& after = "") {
  std::string text;
  for (std::int64_t i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + before + std::to_string(first + i) + after;
  return text;
}

/// One function of hopper.cuh's products: d [64 x n] = a b, or += where `add`. `registers`: a from registers.
std::string product(std::int64_t n, bool registers) {
  const std::int64_t floats = n / 2, a = floats, b = a + (registers ? 4 : 1), add = b + 1, major = add + 1;
  std::string text = "template <class T" + std::string(registers ? "" : ", int a_columns") + ", int b_columns>\n";
  text += "__device__ inline void " + std::string(registers ? "multiply_registers" : "multiply_shared") +
          "(float (&d)[" + std::to_string(floats) + "], " + (registers ? "const u32 (&a)[4]" : "u64 a") +
          ", u64 b, int add) {\n";
  for (const std::string type : {"bf16", "f16"}) {
    text += type == "bf16" ? "  if constexpr (is_bf16<T>)\n" : "  else\n";
    text += "    asm volatile(\"{.reg .pred p; setp.ne.b32 p, %" + std::to_string(add) +
            ", 0; wgmma.mma_async.sync.aligned.m64n" + std::to_string(n) + "k16.f32." + type + "." + type + " {" +
            list(floats, "%") + "}, ";
    text += registers ? "{" + list(4, "%", a) + "}" : "%" + std::to_string(a);
    text += ", %" + std::to_string(b) + ", p, 1, 1, ";
    if (not registers) text += "%" + std::to_string(major) + ", ";
    text += "%" + std::to_string(major + (registers ? 0 : 1)) +
            ";}\"\n        : " + list(floats, "\"+f\"(d[", 0, "])") + "\n        : ";
    text += registers ? list(4, "\"r\"(a[", 0, "])") : "\"l\"(a)";
    text += ", \"l\"(b), \"r\"(add), ";
    text += registers ? "" : "\"n\"(a_columns), ";
    text += "\"n\"(b_columns));\n";
  }
  return text + "}\n";
}

}  // namespace

std::string products_text(const std::set<std::int64_t>& widths) {
  std::string text = "#ifdef __CUDACC__\n";
  for (const std::int64_t n : widths) text += product(n, false) + product(n, true);
  return text + "#endif\n";
}

}  // namespace glaive::cuda
