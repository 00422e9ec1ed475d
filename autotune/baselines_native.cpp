#include "autotune/baselines_native.hpp"

#include <math.h>

namespace glaive::native {

extern const unsigned features = 0
#ifdef __AVX__
                                 | avx
#endif
#ifdef __AVX2__
                                 | avx2
#endif
#ifdef __FMA__
                                 | fma
#endif
#ifdef __F16C__
                                 | f16c
#endif
#ifdef __BMI2__
                                 | bmi2
#endif
#ifdef __AVX512F__
                                 | avx512f
#endif
#ifdef __AVX512DQ__
                                 | avx512dq
#endif
#ifdef __AVX512BW__
                                 | avx512bw
#endif
#ifdef __AVX512VL__
                                 | avx512vl
#endif
    ;

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));
typedef float UnalignedVector __attribute__((vector_size(lanes * sizeof(float)), aligned(4)));

static void exponentials(float* __restrict out, const float* __restrict g, Index size) {
  for (Index i = 0; i < size; ++i) out[i] = ::expf(g[i]);
}

void rows(const HeadTask& x) {
  for (Index t = 0; t < x.tokens; ++t) {
    const float *k = x.k + t * x.k_token, *__restrict v = x.v + t * x.v_token;
    exponentials(x.room, x.g + t * x.g_token, x.dim_k);
    for (Index n = 0; n < x.group; ++n) {
      const float* q = x.q + t * x.q_token + n * x.q_head;
      float* __restrict o = x.o + t * x.o_token + n * x.o_head;
      for (Index j = 0; j < x.dim_v; ++j) o[j] = 0;
      for (Index i = 0; i < x.dim_k; ++i) {
        float* __restrict row = x.state + i * x.dim_v;
        const float query = q[i] * x.scale, key = k[i], decay = x.room[i];
        if (n == 0) {
          for (Index j = 0; j < x.dim_v; ++j) {
            row[j] = decay * row[j] + key * v[j];
            o[j] += query * row[j];
          }
        } else {
          for (Index j = 0; j < x.dim_v; ++j) o[j] += query * row[j];
        }
      }
    }
  }
}

constexpr int vectors = 4;
constexpr int width = vectors * lanes;
extern const Index tile_width = width;

static inline void store(float* out, const Vector* sum, float scale, Index columns) {
  if (columns == width) {
#pragma GCC unroll 4
    for (int c = 0; c < vectors; ++c) *(UnalignedVector*)(out + c * lanes) = sum[c] * scale;
    return;
  }
  alignas(64) float all[width];
  for (int c = 0; c < vectors; ++c) *(Vector*)(all + c * lanes) = sum[c] * scale;
  for (Index j = 0; j < columns; ++j) out[j] = all[j];
}

/// One tile of V for tokens first .. first + count - 1. `decays` is [count][K], `state` [K][width].
static void tile(const HeadTask& x, Index first, Index count, const float* __restrict decays, float* __restrict state,
                 Index column, Index columns) {
  alignas(64) float padded[width] = {};
  for (Index t = 0; t < count; ++t) {
    const float* __restrict k = x.k + (first + t) * x.k_token;
    const float* __restrict q = x.q + (first + t) * x.q_token;
    const float* __restrict decay = decays + t * x.dim_k;
    const float* source = x.v + (first + t) * x.v_token + column;
    float* o = x.o + (first + t) * x.o_token + column;
    if (columns != width) {
      for (Index j = 0; j < columns; ++j) padded[j] = source[j];
      source = padded;
    }
    Vector v[vectors], sum[vectors];
#pragma GCC unroll 4
    for (int c = 0; c < vectors; ++c) {
      v[c] = *(const UnalignedVector*)(source + c * lanes);
      sum[c] = Vector{};
    }
    for (Index i = 0; i < x.dim_k; ++i) {
      Vector* row = (Vector*)(state + i * width);
#pragma GCC unroll 4
      for (int c = 0; c < vectors; ++c) {
        const Vector s = decay[i] * row[c] + k[i] * v[c];
        row[c] = s;
        sum[c] += q[i] * s;
      }
    }
    store(o, sum, x.scale, columns);

    for (Index n = 1; n < x.group; ++n) {  // the other query heads of this kv head only read the state
      const float* __restrict other = q + n * x.q_head;
#pragma GCC unroll 4
      for (int c = 0; c < vectors; ++c) sum[c] = Vector{};
      for (Index i = 0; i < x.dim_k; ++i) {
        const Vector* row = (const Vector*)(state + i * width);
#pragma GCC unroll 4
        for (int c = 0; c < vectors; ++c) sum[c] += other[i] * row[c];
      }
      store(o + n * x.o_head, sum, x.scale, columns);
    }
  }
}

void tiles(const HeadTask& x) {
  for (Index first = 0; first < x.tokens; first += token_block) {
    const Index count = x.tokens - first < token_block ? x.tokens - first : token_block;
    for (Index t = 0; t < count; ++t) exponentials(x.room + t * x.dim_k, x.g + (first + t) * x.g_token, x.dim_k);
    float* state = x.state;
    for (Index column = 0; column < x.dim_v; column += width) {
      const Index columns = x.dim_v - column < width ? x.dim_v - column : width;
      tile(x, first, count, x.room, state, column, columns);
      state += x.dim_k * width;
    }
  }
}

}  // namespace glaive::native
