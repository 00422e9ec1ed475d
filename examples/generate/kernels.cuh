// The kernels between matrix products: a block of `threads` threads for each row. Compiled by NVRTC at run time.
constexpr int threads = 256, warps = threads / 32;
using bf16 = unsigned short;
using i64 = long long;  // every parameter has 64 bits, as those of glaive's kernels have

__device__ float to_float(bf16 x) { return __uint_as_float((unsigned)x << 16); }
__device__ bf16 to_bf16(float x) {  // to the nearest, ties to even
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;  // no number; rounding would make a zero of it
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
extern "C" __global__ void embed(const int* tokens, const int* sampled, const bf16* table, i64 width, float* x,
                                 i64 x_stride) {
  int token = tokens[blockIdx.x];
  if (token < 0) token = max(0, sampled[-1 - token]);
  for (i64 c = threadIdx.x; c < width; c += threads)
    x[blockIdx.x * x_stride + c] = to_float(table[(i64)token * width + c]);
}

extern "C" __global__ void repeat(const bf16* row, i64 width, bf16* y, i64 y_stride) {
  for (i64 c = threadIdx.x; c < width; c += threads) y[blockIdx.x * y_stride + c] = row[c];
}

extern "C" __global__ void rms_norm(const float* x, i64 x_stride, const float* weight, double eps, i64 width, bf16* y,
                                    i64 y_stride, const int* ends) {
  const i64 from = ends ? max(0, ends[blockIdx.x + 1] - 1) : (i64)blockIdx.x;
  x += from * x_stride;
  y += blockIdx.x * y_stride;
  float squares = 0.f;
  for (i64 c = threadIdx.x; c < width; c += threads) squares += x[c] * x[c];
  const float scale = rsqrtf(sum(squares) / width + (float)eps);
  for (i64 c = threadIdx.x; c < width; c += threads) y[c] = to_bf16(x[c] * scale * weight[c]);
}

// A block for each head of each row.
extern "C" __global__ void gated_norm(const bf16* o, i64 o_stride, const bf16* gate, i64 gate_stride,
                                      const float* weight, double eps, i64 heads, i64 width, bf16* y, i64 y_stride) {
  const i64 row = blockIdx.x / heads, column = (i64)(blockIdx.x % heads) * width;
  o += row * o_stride + column;
  gate += row * gate_stride + column;
  y += row * y_stride + column;
  float squares = 0.f;
  for (i64 c = threadIdx.x; c < width; c += threads) squares += to_float(o[c]) * to_float(o[c]);
  const float scale = rsqrtf(sum(squares) / width + (float)eps);
  for (i64 c = threadIdx.x; c < width; c += threads)
    y[c] = to_bf16(to_float(o[c]) * scale * weight[c] * swish(to_float(gate[c])));
}

extern "C" __global__ void swiglu(const bf16* both, i64 both_stride, i64 width, bf16* y, i64 y_stride) {
  both += blockIdx.x * both_stride;
  y += blockIdx.x * y_stride;
  for (i64 c = threadIdx.x; c < width; c += threads)
    y[c] = to_bf16(swish(to_float(both[c])) * to_float(both[width + c]));
}

// The index of the largest, of equals the first; -1 where that is no finite number. To memory of the host, too.
extern "C" __global__ void sample(const float* logits, i64 stride, i64 width, int* sampled, int* on_host) {
  logits += blockIdx.x * stride;
  const float infinity = __int_as_float(0x7f800000);
  float best = -infinity;
  int at = -1;
  for (i64 c = threadIdx.x; c < width; c += threads)
    if (logits[c] > best) best = logits[c], at = (int)c;
  __shared__ float bests[threads];
  __shared__ int ats[threads];
  bests[threadIdx.x] = best, ats[threadIdx.x] = at;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x >= half) continue;
    const float other = bests[threadIdx.x + half];
    const int other_at = ats[threadIdx.x + half];
    if (other > bests[threadIdx.x] || (other == bests[threadIdx.x] && other_at < ats[threadIdx.x]))
      bests[threadIdx.x] = other, ats[threadIdx.x] = other_at;
  }
  if (threadIdx.x == 0) sampled[blockIdx.x] = on_host[blockIdx.x] = bests[0] < infinity ? ats[0] : -1;
}
