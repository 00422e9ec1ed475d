/* An engine that launches by itself, with the header of `glaive emit --header-only`: the first plan of kernel.c's
 * kernel on this processor, of B = 2 sequences of T = 3 tokens, against the recurrence in float64.
 *   by_hand FOLDER */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gla_kernels.h"

enum { B = 2, T = 3, H = 4, Hkv = 2, K = 8, V = 8 };

static float q[B * T * H * K], k[B * T * Hkv * K], v[B * T * Hkv * V], g[B * T * Hkv * K], o[B * T * H * V];
static float last[B * Hkv * K * V];

static float next(void) {
  static unsigned seed = 1;
  seed = seed * 1664525u + 1013904223u;
  return (float)(seed >> 8) / (1 << 23) - 1;
}

int main(int argc, char** argv) {
  char path[4096];
  if (argc < 2) return 2;
  snprintf(path, sizeof path, "%s/%s", argv[1], GLA_P0_S0_CODE);
  void* const object = dlopen(path, RTLD_NOW);
  void* const entry = object == NULL ? NULL : dlsym(object, GLA_P0_S0_ENTRY);
  if (entry == NULL) return fprintf(stderr, "%s\n", dlerror()), 1;
  void (*run)(const uint64_t*, int64_t, void*);
  memcpy(&run, &entry, sizeof entry);

  for (int i = 0; i < B * T * H * K; ++i) q[i] = next();
  for (int i = 0; i < B * T * Hkv * K; ++i) k[i] = next(), v[i] = next(), g[i] = -(1 + next());
  const float root = 1 / sqrtf(K);
  uint32_t bits;
  memcpy(&bits, &root, sizeof bits);
  const struct {
    uint64_t q, k, v, g, o, state_in, state_out, read_slots, write_slots, cu_seqlens, device_status, q_token, q_head,
        k_token, k_head, v_token, v_head, g_token, g_head, o_token, o_head, state_in_slot, state_in_head,
        state_out_slot, state_out_head, sequences, tokens, longest, heads, kv_heads, slots, scale, gate_tau, gate_clamp,
        workspace;
  } call = {.q = (uintptr_t)q,
            .k = (uintptr_t)k,
            .v = (uintptr_t)v,
            .g = (uintptr_t)g,
            .o = (uintptr_t)o,
            .state_out = (uintptr_t)last,
            .q_token = H * K,
            .q_head = K,
            .k_token = Hkv * K,
            .k_head = K,
            .v_token = Hkv * V,
            .v_head = V,
            .g_token = Hkv * K,
            .g_head = K,
            .o_token = H * V,
            .o_head = V,
            .state_out_slot = Hkv * K * V,
            .state_out_head = K * V,
            .sequences = B,
            .tokens = B * T,
            .longest = T,
            .heads = H,
            .kv_heads = Hkv,
            .slots = B,
            .scale = bits};
#define WORD(name) call.name,
  const uint64_t words[] = {GLA_P0_S0_ARGUMENTS(WORD)};
  void* const scratch = aligned_alloc(64, (GLA_P0_S0_SCRATCH_BYTES + 127) / 64 * 64);
  for (int64_t task = 0; task < gla_p0_s0_tasks(B, B * T, T, 1); ++task) run(words, task, scratch);

  double worst = 0;
  for (int b = 0; b < B; ++b)
    for (int h = 0; h < H; ++h) {
      const int kv = h / (H / Hkv);
      double s[K][V] = {{0}};
      for (int t = b * T; t < (b + 1) * T; ++t)
        for (int j = 0; j < V; ++j) {
          double sum = 0;
          for (int i = 0; i < K; ++i) {
            const int at = (t * Hkv + kv) * K + i;
            s[i][j] = exp((double)g[at]) * s[i][j] + (double)k[at] * (double)v[(t * Hkv + kv) * V + j];
            sum += (double)q[(t * H + h) * K + i] * s[i][j];
          }
          worst = fmax(worst, fabs((double)o[(t * H + h) * V + j] - sum / sqrt(K)));
        }
      for (int i = 0; i < K * V; ++i)
        worst = fmax(worst, fabs((double)last[(b * Hkv + kv) * K * V + i] - s[i / V][i % V]));
    }
  printf("workspace %lld, worst %.1e\n", (long long)gla_p0_workspace(B, B * T, T, 1), worst);
  return worst <= 1e-5 ? 0 : 1;
}
