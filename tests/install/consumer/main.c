#include <stdio.h>

#include "use.h"

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: %s PACK PROBLEM\n", argv[0]), 2;
  return use(argv[1], argv[2]);
}
