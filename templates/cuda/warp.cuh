// What the warps of kernels on mma.sync share. Belongs after the kernel's constants: C, columns, channels, ksplit,
// parts, threads. A CTA has `columns` of V: warp (i, j) rows 16 i .. 16 i + 15 of the transposed state, channels j
// depth .. (j + 1) depth - 1, fp32, as accumulators that serve as left operands too. Operands are bf16; where `parts`
// is 2 (io in fp32 or fp16) a sum of two of them, hi + lo, and three products.
constexpr int blocks = C / 16;
constexpr int depth = channels / ksplit;    // channels of a warp
constexpr int value_groups = columns / 16;  // warps side by side along V
constexpr int warps = value_groups * ksplit;
constexpr bool raw_values = parts == 1;  // v serves as an operand as it is
static_assert(threads == 32 * warps, "a thread for every lane");

// Pitches of rows: an odd number of pieces of 16 bytes, so that neighbours fall into different banks.
constexpr int operand_pitch = channels + 8, value_pitch = columns + 8;
constexpr int io_pitch = channels + 16 / sizeof(Io), gate_pitch = channels + 16 / sizeof(Gate);
constexpr int raw_value_pitch = columns + 16 / sizeof(Io);

// ---- lanes of a warp. An accumulator tile [16 x 8] has rows `row` and `row + 8`, columns `column` and `column + 1`.
__device__ inline int warp_index() { return threadIdx.x / 32; }
__device__ inline int lane_index() { return threadIdx.x % 32; }
__device__ inline int row() { return lane_index() / 4; }
__device__ inline int column() { return 2 * (lane_index() % 4); }
// Which row of 16 x 16 elements a lane addresses for load_matrices: of A operands and transposed B operands in the
// order of A, of B operands and transposed A operands in the order of B.
__device__ inline int row_of_a() { return lane_index() % 16; }
__device__ inline int column_of_a() { return lane_index() / 16 * 8; }
__device__ inline int row_of_b() { return lane_index() % 8 + lane_index() / 16 * 8; }
__device__ inline int column_of_b() { return lane_index() / 8 % 2 * 8; }

/// A pair of numbers as bf16: hi + lo, good to 2^-17.
struct Split {
  u32 hi, lo;
};
__device__ inline Split split(float first, float second) {
  const u32 hi = narrow_pair<bf16>(first, second);
  const float2 rounded = widen_pair<bf16>(hi);
  return {hi, narrow_pair<bf16>(first - rounded.x, second - rounded.y)};
}

__device__ inline float2 load_pair(const float* shared) { return *reinterpret_cast<const float2*>(shared); }
template <class T>
__device__ inline float2 load_pair(const T* shared) {
  return widen_pair<T>(*reinterpret_cast<const u32*>(shared));
}

/// Rows first .. first + C - 1 of a tensor into a tile [C, pitch] of `padded` columns, zeros past the ends.
template <int padded, int pitch, class T>
__device__ void fetch(T* tile, const T* rows, i64 stride, bool aligned, int left, int width) {
  constexpr int piece = 16 / sizeof(T), pieces = padded / piece;
  if (aligned and width % piece == 0) {
    constexpr int together = threads / pieces > 0 ? threads / pieces : 1;  // rows
#pragma unroll 1
    for (int d = threadIdx.x % pieces * piece; d < padded; d += threads * piece) {
      int t = threadIdx.x / pieces;
      const T* from = rows + t * stride + d;
      if (t < together)
        for (; t < C; t += together, from += together * stride) {
          const bool present = t < left and d < width;
          copy_async(tile + t * pitch + d, present ? from : rows, present);
        }
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < C * padded; i += threads) {
      const int t = i / padded, d = i % padded;
      tile[t * pitch + d] = t < left and d < width ? rows[t * stride + d] : T();
    }
  }
}

/// Raw values as two parts.
template <class Shared>
__device__ void make_values(Shared& shared, int buffer) {
  if constexpr (not raw_values)
    for (int i = threadIdx.x; i < C * columns / 2; i += threads) {
      const int t = i / (columns / 2), c = 2 * (i % (columns / 2));
      const float2 v = load_pair(&shared.v[buffer][t][c]);
      const Split pair = split(v.x, v.y);
      *reinterpret_cast<u32*>(&shared.value[0][t][c]) = pair.hi;
      *reinterpret_cast<u32*>(&shared.value[1][t][c]) = pair.lo;
    }
}

// ---- what a warp keeps and computes
struct Operand {
  Matrices part[parts];
};
/// d += a b of all parts but lo lo; b0 and b1 are rows 0 - 7 and 8 - 15 of column tile n.
__device__ inline void multiply_parts(float (&d)[4], const Operand& a, const Operand& b, int n) {
  multiply(d, a.part[0], b.part[0].m[2 * n], b.part[0].m[2 * n + 1]);
  if constexpr (parts == 2) {
    multiply(d, a.part[1], b.part[0].m[2 * n], b.part[0].m[2 * n + 1]);
    multiply(d, a.part[0], b.part[1].m[2 * n], b.part[1].m[2 * n + 1]);
  }
}

struct State16 {  // 16 rows of V
  float s[depth / 8][4];

  __device__ static int channel() { return warp_index() / value_groups * depth; }
  __device__ static int value() { return warp_index() % value_groups * 16; }

  /// body(element, offset in the state) for all that lie in it.
  template <class Body>
  __device__ void each(const Task& task, Body body) {
#pragma unroll
    for (int n = 0; n < depth / 8; ++n)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int d = channel() + 8 * n + column() + c % 2, v = value() + row() + 8 * (c / 2);
        if ((channels == K or d < K) and (V % columns == 0 or v < V - task.column))
          body(s[n][c], k_first ? i64(d) * V + v : i64(v) * K + d);
      }
  }
  /// body(four elements, value tile, key tile)
  template <class Body>
  __device__ void tiles(const Task& task, Body body) {
#pragma unroll
    for (int n = 0; n < depth / 8; ++n) body(s[n], (task.column + value()) / 16, channel() / 8 + n);
  }
  __device__ void clear() {
#pragma unroll
    for (int n = 0; n < depth / 8; ++n)
#pragma unroll
      for (int c = 0; c < 4; ++c) s[n][c] = 0;
  }
  /// By 2^ of the sum of G over the chunk, of each channel.
  __device__ void decay(const float* decays) {
#pragma unroll
    for (int n = 0; n < depth / 8; ++n) {
      const float2 x = load_pair(&decays[channel() + 8 * n + column()]);
      s[n][0] *= x.x, s[n][1] *= x.y, s[n][2] *= x.x, s[n][3] *= x.y;
    }
  }
  /// Channels 16 n .. 16 n + 15 as a left operand.
  __device__ Operand operand(int n) const {
    Operand a;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&tile)[4] = s[2 * n + i / 2];
      const float first = tile[i % 2 * 2], second = tile[i % 2 * 2 + 1];
      if constexpr (parts == 2) {
        const Split pair = split(first, second);
        a.part[0].m[i] = pair.hi, a.part[parts - 1].m[i] = pair.lo;
      } else {
        a.part[0].m[i] = narrow_pair<bf16>(first, second);
      }
    }
    return a;
  }
};

/// V^T of 16 tokens from s on, for the rows of a warp.
template <class Shared>
__device__ inline Operand values(const Shared& shared, int buffer, int s) {
  Operand a;
  if constexpr (raw_values)
    a.part[0] = load_transposed(&shared.v[buffer][s + row_of_b()][State16::value() + column_of_b()]);
  else
#pragma unroll
    for (int part = 0; part < parts; ++part)
      a.part[part] = load_transposed(&shared.value[part][s + row_of_b()][State16::value() + column_of_b()]);
  return a;
}

/// S^T += V^T k~
template <class Shared>
__device__ inline void absorb(State16& state, const Shared& shared, int buffer) {
#pragma unroll
  for (int s = 0; s < blocks; ++s) {
    const Operand a = values(shared, buffer, 16 * s);
#pragma unroll
    for (int n = 0; n < depth / 16; ++n) {
      Operand b;
#pragma unroll
      for (int part = 0; part < parts; ++part)
        b.part[part] =
            load_transposed(&shared.key[part][16 * s + row_of_a()][State16::channel() + 16 * n + column_of_a()]);
#pragma unroll
      for (int half = 0; half < 2; ++half) multiply_parts(state.s[2 * n + half], a, b, half);
    }
  }
}
