#include "examples/generate/cpu_loops.hpp"

#include <algorithm>
#include <cmath>

namespace generate::loops {
namespace {

float reciprocal_rms(const float* x, double eps, std::int64_t width) {
  float squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  return 1.F / std::sqrt(squares / static_cast<float>(width) + static_cast<float>(eps));
}

// With -ffast-math a division by infinity, which exp is from 89 on, may be no number.
float swish(float x) { return x / (1.F + std::exp(std::min(-x, 87.F))); }

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
