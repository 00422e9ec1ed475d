#!/bin/sh
# Makes the library in lib/, by $CC (cc) with $CFLAGS (-O2), for those who link by pkg-config. Its names stay within what
# links it: two plugins may each have a set of this name.
set -e
name=gla
cd "$(dirname "$0")"
# shellcheck disable=SC2086  # flags are several words
${CC:-cc} -std=c11 ${CFLAGS:--O2} -fPIC -fvisibility=hidden -c "src/$name.c" -o "lib/$name.o"
${AR:-ar} rcs "lib/lib$name.a" "lib/$name.o"
