#!/usr/bin/env bash
# The same programs, by a compiler and pkg-config alone.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"
needs pkg-config

programs=$WORK/pkg-config
mkdir -p "$programs"
export PKG_CONFIG_PATH=$prefix/$LIBDIR/pkgconfig LD_LIBRARY_PATH=$prefix/$LIBDIR
same "$VERSION" "$(pkg-config --modversion glaive)" "pkg-config gives another version"
! pkg-config --exists 'glaive >= 9' || fail "pkg-config takes it for version 9"
read -ra cflags <<< "$(pkg-config --cflags glaive)"
read -ra libs <<< "$(pkg-config --libs glaive)"
read -ra sanitize <<< "${CFLAGS:-}"

cd "$(dirname "$0")/consumer" || exit
"$CC" -std=c11 "${sanitize[@]}" main.c use.c "${cflags[@]}" "${libs[@]}" -lm -o "$programs/from_c"
"$CC" -std=c11 "${sanitize[@]}" -c main.c -o "$programs/main.o"
"$CXX" -std=c++17 "${sanitize[@]}" "$programs/main.o" use.cpp "${cflags[@]}" "${libs[@]}" -o "$programs/from_cpp"
! said=$("$CXX" -std=c++14 -fsyntax-only use.cpp "${cflags[@]}" 2>&1) || fail "the wrapper compiles as C++14"
[[ $said == *"glaive.hpp needs C++17"* ]] || fail "the wrapper does not say that it needs C++17"
read -ra all_libs <<< "$(pkg-config --static --libs glaive)"
"$CC" -std=c11 "${sanitize[@]}" main.c use.c "${cflags[@]}" "${all_libs[@]/-lglaive/-l:libglaive.a}" -lm -o "$programs/from_static"
for program in from_c from_cpp from_static; do
  "$programs/$program" "$PACKS/8.pack" 'forward H4 Hkv2 K8 V8 f32'
done
