#!/usr/bin/env bash
# What the scripts here share. Names in capitals come from CMakeLists.txt.
set -euo pipefail

export stage=$WORK/stage
export prefix=$stage/opt/glaive

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

skip() {
  printf 'skipped: %s\n' "$*"
  exit 77
}

needs() {
  local tool
  for tool in "$@"; do
    command -v "$tool" > /dev/null || skip "no $tool here"
  done
}

# Compares two texts line by line.
same() {
  diff <(printf '%s\n' "$1") <(printf '%s\n' "$2") || fail "$3 (< expected, > found)"
}
