#pragma once
#include <string_view>

namespace glaive::testing {

/// Kernels whose demands on an SM differ in every fact that is read: static shared memory, spills, a stack, none.
inline constexpr std::string_view kernels_text = R"(
typedef unsigned long long u64;
extern "C" __global__ void __launch_bounds__(128) plain(u64 a, u64 scale, u64 c) {
  __shared__ float buffer[256];
  float* x = (float*)a;
  buffer[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = buffer[127 - threadIdx.x] * __int_as_float((int)scale) + (float)c;
}
extern "C" __global__ void __launch_bounds__(1024) spills(u64 a, u64 rounds) {
  float* x = (float*)a;
  float r[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) r[i] = x[threadIdx.x + i * 1024];
  for (int j = 0; j < (int)rounds; ++j)
#pragma unroll
    for (int i = 0; i < 96; ++i) r[i] = r[i] * r[(i * 7 + 3) % 96] + r[(i + 1) % 96];
#pragma unroll
  for (int i = 0; i < 96; ++i) x[threadIdx.x + i * 1024] = r[i];
}
extern "C" __global__ void stacks(u64 a, u64 b) {
  float* x = (float*)a;
  float r[100];
  for (int i = 0; i < 100; ++i) r[i] = x[i];
  x[threadIdx.x] = r[b % 100];
}
__device__ __noinline__ float far_away(float x, int n) {
  float r[10];
  for (int i = 0; i < 10; ++i) r[i] = x * i;
  return r[n % 10];
}
extern "C" __global__ void calls(u64 a) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x] = far_away((float)a, threadIdx.x);
  __syncthreads();
  ((float*)a)[0] = dynamic[5];
}
)";

}  // namespace glaive::testing
