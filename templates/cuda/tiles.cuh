// What kernels on Hopper share that have C tokens of K and V in tiles and a transposed state in accumulators of wgmma.
// Tiles of 16-bit elements are panels of 64 channels, rows of 128 bytes, swizzled.
constexpr int panels = channels / 64, panel_bytes = 128 * C, tile_bytes = panels * panel_bytes;
constexpr bool gates_in_tile = sizeof(Gate) == 2;  // as are q and k; in fp32 they come as rows
constexpr int gate_bytes = gates_in_tile ? tile_bytes : 4 * C * channels;
constexpr int pairs = channels / 2;

/// By value: of two places `?:` would make an address, and put the arrays into memory.
template <class T>
__device__ inline T either(bool first, T a, T b) {
  return first ? a : b;
}
__device__ inline float2 operator+(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
__device__ inline float2 operator*(float2 a, float2 b) { return {a.x * b.x, a.y * b.y}; }
using ::exp2_fast;
__device__ inline float2 exp2_fast(float2 a) { return {exp2_fast(a.x), exp2_fast(a.y)}; }
using ::inverse_fast;
__device__ inline float2 inverse_fast(float2 a) { return {inverse_fast(a.x), inverse_fast(a.y)}; }

/// A thread of a warpgroup. Of an accumulator tile, 16 rows a warp, it has rows `row` and `row + 8`, and of every 8
/// columns `column` and `column + 1`.
struct Lane {
  int warp, row, column;
  __device__ explicit Lane(u32 thread) : warp(thread / 32 % 4), row(thread % 32 / 4), column(thread % 4 * 2) {}
};

/// C rows from `begin` on into a tile, zeros past the ends, by `count` threads, element by element: it is seldom needed
/// and in many places.
template <class T, int padded, bool swizzled, int count>
__device__ inline void copy_rows(char* tile, const Rows<const T>& rows, const T* begin, int left, int width,
                                 int thread) {
#pragma unroll 1
  for (int i = thread; i < C * padded; i += count) {
    const int t = i / padded, d = i % padded;
    const int at = swizzled ? d / 64 * panel_bytes + t * 128 + ((d % 64 / 8 ^ t % 8) << 4) + d % 8 * int(sizeof(T))
                            : i * int(sizeof(T));
    *reinterpret_cast<T*>(tile + at) = t < left and d < width ? begin[t * rows.token + d] : T();
  }
}

// The state, of a warpgroup.
using StateTile = float[channels / 2];  // [64 of V, channels]

/// Channels from .. to - 1 of S decay. `mine`: from this lane's first column on.
template <int from, int to>
__device__ inline void decay_state(StateTile& s, const float* mine) {
#pragma unroll
  for (int n = from; n < to; n += 8) {
    const float2 x = *reinterpret_cast<const float2*>(mine + n);
    float* const tile = s + n / 2;
    tile[0] *= x.x, tile[1] *= x.y, tile[2] *= x.x, tile[3] *= x.y;
  }
}

struct StateElements {
  StateTile& s;
  int state_group;

  /// body(element, offset in the state) for all that lie in it.
  template <class Body>
  __device__ void each(const Task& task, Body body) {
    const Lane lane(threadIdx.x);
#pragma unroll
    for (int i = 0; i < channels / 2; ++i) {
      const int d = i / 4 * 8 + lane.column + i % 2, v = 64 * state_group + 16 * lane.warp + lane.row + i / 2 % 2 * 8;
      if ((channels == K or d < K) and (V % columns == 0 or v < V - task.column))
        body(s[i], k_first ? i64(d) * V + v : i64(v) * K + d);
    }
  }
  /// body(four elements, value tile, key tile)
  template <class Body>
  __device__ void tiles(const Task& task, Body body) {
#pragma unroll
    for (int n = 0; n < channels / 8; ++n)
      body(s + 4 * n, task.column / 16 + 4 * state_group + threadIdx.x / 32 % 4, n);
  }
  __device__ void decay(const float* decays) { decay_state<0, channels>(s, decays + thread_again() % 4 * 2); }
};
