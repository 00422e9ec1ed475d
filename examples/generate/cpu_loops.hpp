#pragma once
// The loops between matrix products on a CPU, in f32. A file of their own, as they are compiled for AVX2, which
// glaive's kernels need too, and with -ffast-math, so that sums and exponentials run in vectors.
#include <cstdint>

namespace generate::loops {

/// y = weight x / rms(x)
void rms_norm(const float* x, const float* weight, double eps, std::int64_t width, float* y);
/// y = weight o / rms(o) * gate * sigmoid(gate)
void gated_norm(const float* o, const float* gate, const float* weight, double eps, std::int64_t width, float* y);
/// y = a * sigmoid(a) * b
void swiglu(const float* a, const float* b, std::int64_t width, float* y);

}  // namespace generate::loops
