#include "examples/generate/cuda_kernels.hpp"

namespace generate::cuda {

const char* const kernels_text = R"cuda(
constexpr int threads = 256, warps = threads / 32;
using bf16 = unsigned short;

__device__ float to_float(bf16 x) { return __uint_as_float((unsigned)x << 16); }
__device__ bf16 to_bf16(float x) {  // to the nearest, ties to even
  const unsigned bits = __float_as_uint(x);
  return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
__device__ float swish(float x) { return x / (1.f + __expf(-x)); }

// The sum over the block, in every thread.
__device__ float sum(float x) {
  __shared__ float parts[warps];
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffff, x, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float all = 0.f;
  for (int i = 0; i < warps; ++i) all += parts[i];
  return all;
}

// x[i] = table[token i]; -1 - r is what row r of the step before sampled.
extern "C" __global__ void embed(const int* tokens, const int* sampled, const bf16* table, int width, float* x,
                                 long long x_stride) {
  int token = tokens[blockIdx.x];
  if (token < 0) token = sampled[-1 - token];
  for (int c = threadIdx.x; c < width; c += threads)
    x[blockIdx.x * x_stride + c] = to_float(table[(long long)token * width + c]);
}

extern "C" __global__ void repeat(const bf16* row, int width, bf16* y, long long y_stride) {
  for (int c = threadIdx.x; c < width; c += threads) y[blockIdx.x * y_stride + c] = row[c];
}

extern "C" __global__ void rms_norm(const float* x, long long x_stride, const float* weight, float eps, int width,
                                    bf16* y, long long y_stride, const int* ends) {
  const long long from = ends ? max(0, ends[blockIdx.x + 1] - 1) : (long long)blockIdx.x;
  x += from * x_stride;
  y += blockIdx.x * y_stride;
  float squares = 0.f;
  for (int c = threadIdx.x; c < width; c += threads) squares += x[c] * x[c];
  const float scale = rsqrtf(sum(squares) / width + eps);
  for (int c = threadIdx.x; c < width; c += threads) y[c] = to_bf16(x[c] * scale * weight[c]);
}

// A block for each head of each row.
extern "C" __global__ void gated_norm(const bf16* o, long long o_stride, const bf16* gate, long long gate_stride,
                                      const float* weight, float eps, int heads, int width, bf16* y,
                                      long long y_stride) {
  const long long row = blockIdx.x / heads, column = (long long)(blockIdx.x % heads) * width;
  o += row * o_stride + column;
  gate += row * gate_stride + column;
  y += row * y_stride + column;
  float squares = 0.f;
  for (int c = threadIdx.x; c < width; c += threads) squares += to_float(o[c]) * to_float(o[c]);
  const float scale = rsqrtf(sum(squares) / width + eps);
  for (int c = threadIdx.x; c < width; c += threads)
    y[c] = to_bf16(to_float(o[c]) * scale * weight[c] * swish(to_float(gate[c])));
}

extern "C" __global__ void swiglu(const bf16* both, long long both_stride, int width, bf16* y, long long y_stride) {
  both += blockIdx.x * both_stride;
  y += blockIdx.x * y_stride;
  for (int c = threadIdx.x; c < width; c += threads) y[c] = to_bf16(swish(to_float(both[c])) * to_float(both[width + c]));
}

// The index of the largest, of equals the first.
extern "C" __global__ void sample(const float* logits, long long stride, int width, int* sampled) {
  logits += blockIdx.x * stride;
  float best = -__int_as_float(0x7f800000);
  int at = 0;
  for (int c = threadIdx.x; c < width; c += threads)
    if (logits[c] > best) best = logits[c], at = c;
  __shared__ float bests[threads];
  __shared__ int ats[threads];
  bests[threadIdx.x] = best, ats[threadIdx.x] = at;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
    const float other = bests[threadIdx.x + half];
    const int other_at = ats[threadIdx.x + half];
    if (other > bests[threadIdx.x] || (other == bests[threadIdx.x] && other_at < ats[threadIdx.x]))
      bests[threadIdx.x] = other, ats[threadIdx.x] = other_at;
  }
  if (threadIdx.x == 0) sampled[blockIdx.x] = ats[0];
}
)cuda";

}  // namespace generate::cuda
