/* What a forward of one sequence from a zero state should be: the recurrence token by token, in double. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* The tensors of a call, [tokens,H,K] and so on, drawn at random with log gates below 0. */
typedef struct tensors {
  int64_t tokens, heads, kv_heads, key_dim, value_dim;
  float *q, *k, *v, *g, *o;
} tensors;

static float* drawn(uint32_t random, int64_t count, float low, float high) {
  float* values = (float*)malloc((size_t)count * sizeof(float));
  int64_t i;
  for (i = 0; i < count; ++i) {
    random = random * 1664525u + 1013904223u;
    values[i] = low + (high - low) * (float)(random >> 8) / (float)(1 << 24);
  }
  return values;
}

static tensors tensors_of(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t key_dim, int64_t value_dim) {
  tensors t;
  t.tokens = tokens, t.heads = heads, t.kv_heads = kv_heads, t.key_dim = key_dim, t.value_dim = value_dim;
  t.q = drawn(1, tokens * heads * key_dim, -1, 1);
  t.k = drawn(2, tokens * kv_heads * key_dim, -1, 1);
  t.v = drawn(3, tokens * kv_heads * value_dim, -1, 1);
  t.g = drawn(4, tokens * kv_heads * key_dim, -2, 0);
  t.o = drawn(5, tokens * heads * value_dim, 7, 8);
  return t;
}

static void tensors_free(tensors* t) { free(t->q), free(t->k), free(t->v), free(t->g), free(t->o); }

/* |o - expected| / |expected|, in the Frobenius norm, with the scale K^-0.5. */
static double error_of(const tensors* t) {
  double* state = (double*)malloc((size_t)(t->key_dim * t->value_dim) * sizeof(double));
  double off = 0, all = 0;
  int64_t h, n, i, j;
  for (h = 0; h < t->heads; ++h) {
    const int64_t kv = h / (t->heads / t->kv_heads);
    for (i = 0; i < t->key_dim * t->value_dim; ++i) state[i] = 0;
    for (n = 0; n < t->tokens; ++n) {
      const float* q = t->q + (n * t->heads + h) * t->key_dim;
      const float* k = t->k + (n * t->kv_heads + kv) * t->key_dim;
      const float* v = t->v + (n * t->kv_heads + kv) * t->value_dim;
      const float* g = t->g + (n * t->kv_heads + kv) * t->key_dim;
      const float* o = t->o + (n * t->heads + h) * t->value_dim;
      for (j = 0; j < t->value_dim; ++j) {
        double expected = 0;
        for (i = 0; i < t->key_dim; ++i) {
          double* s = state + i * t->value_dim + j;
          *s = exp((double)g[i]) * *s + (double)k[i] * v[j];
          expected += q[i] * *s / sqrt((double)t->key_dim);
        }
        off += (o[j] - expected) * (o[j] - expected);
        all += expected * expected;
      }
    }
  }
  free(state);
  return sqrt(off / all);
}

#endif
