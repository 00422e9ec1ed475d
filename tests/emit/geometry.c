/* What an engine that launches GPU kernels by itself takes from the header of `glaive emit --header-only`, of the three
 * stages in same_gpu_test.cpp:
 *   geometry SEQUENCES TOKENS LONGEST */
#include <stdio.h>
#include <stdlib.h>

#include "gla_kernels.h"

#define NAME(name) #name " "
#define MAP(tensor, element_bytes, swizzled, tokens, channels) \
  printf(#tensor " %d %d %d %d\n", element_bytes, swizzled, tokens, channels);

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const int64_t sequences = atoll(argv[1]), tokens = atoll(argv[2]), longest = atoll(argv[3]);
  printf("%d stages, grids %lld %lld %lld, workspace %lld\n", GLA_P0_STAGES,
         (long long)gla_p0_s0_grid(sequences, tokens, longest, 1), (long long)gla_p0_s1_grid(sequences, tokens, longest, 1),
         (long long)gla_p0_s2_grid(sequences, tokens, longest, 1),
         (long long)gla_p0_workspace(sequences, tokens, longest, 1));
  printf("%s: %dx%dx%d, %d bytes, clusters of %d, early %d\n", GLA_P0_S0_ENTRY, GLA_P0_S0_BLOCK_X, GLA_P0_S0_BLOCK_Y,
         GLA_P0_S0_BLOCK_Z, GLA_P0_S0_SHARED_BYTES, GLA_P0_S0_CLUSTER, GLA_P0_S0_EARLY);
  printf("%s: %dx%dx%d, %d bytes, clusters of %d, early %d, %s\n", GLA_P0_S1_ENTRY, GLA_P0_S1_BLOCK_X,
         GLA_P0_S1_BLOCK_Y, GLA_P0_S1_BLOCK_Z, GLA_P0_S1_SHARED_BYTES, GLA_P0_S1_CLUSTER, GLA_P0_S1_EARLY,
         GLA_P0_S1_ARGUMENTS(NAME));
  GLA_P0_S0_MAPS(MAP)
  return 0;
}
