#include "examples/generate/cpu_loops.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace generate::loops {
namespace {

float reciprocal_rms(const float* x, double eps, std::int64_t width) {
  float squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  return 1.F / std::sqrt(squares / static_cast<float>(width) + static_cast<float>(eps));
}

// e^x for |x| <= 87, with a relative error below 1e-7 (2 + |x| / 2): 2^n times Taylor's polynomial of what is left,
// which is ln(2) / 2 at most. In line, since a loop that calls libm's keeps nothing in vectors across the call.
float exponential(float x) {
  constexpr double ln2 = std::numbers::ln2;
  const float n = std::nearbyint(x * static_cast<float>(1 / ln2));
  const float r = x - n * static_cast<float>(ln2);
  const float e = 1 + r * (1 + r * (1.F / 2 + r * (1.F / 6 + r * (1.F / 24 + r * (1.F / 120 + r * (1.F / 720))))));
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(e) + (static_cast<std::int32_t>(n) << 23));
}

// Both ends: past them e^-x has no exponent left, and with -ffast-math a division by infinity may be no number.
float swish(float x) { return x / (1 + exponential(std::clamp(-x, -87.F, 87.F))); }

}  // namespace

void rms_norm(const float* x, const float* weight, double eps, std::int64_t width, float* __restrict y) {
  const float scale = reciprocal_rms(x, eps, width);
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

void gated_norm(const float* o, const float* gate, const float* weight, double eps, std::int64_t width,
                float* __restrict y) {
  const float scale = reciprocal_rms(o, eps, width);
  for (std::int64_t i = 0; i < width; ++i) y[i] = o[i] * scale * weight[i] * swish(gate[i]);
}

void swiglu(const float* a, const float* b, std::int64_t width, float* __restrict y) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = swish(a[i]) * b[i];
}

}  // namespace generate::loops
