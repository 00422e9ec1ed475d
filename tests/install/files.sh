#!/usr/bin/env bash
# The installed files: which they are, and what they say of themselves.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

winners=
if ((COMPILE_WINNERS)) && compgen -G "$BUILD/share/glaive/winners/*.pack" > /dev/null; then  # there was NVRTC
  winners=$(cd "$SOURCE/autotune/winners" && printf 'share/glaive/winners/%s.pack\n' *.txt | sed 's/.txt.pack/.pack/')
fi
expected=$(sort <<END_OF_LIST | sed '/^$/d'
bin/glaive
include/glaive.h
include/glaive.hpp
$LIBDIR/cmake/glaive/glaive-config-version.cmake
$LIBDIR/cmake/glaive/glaive-config.cmake
$LIBDIR/cmake/glaive/glaive-runtime-BUILD_TYPE.cmake
$LIBDIR/cmake/glaive/glaive-runtime.cmake
$LIBDIR/cmake/glaive/glaive-static-BUILD_TYPE.cmake
$LIBDIR/cmake/glaive/glaive-static.cmake
$LIBDIR/cmake/glaive/glaive-tool-BUILD_TYPE.cmake
$LIBDIR/cmake/glaive/glaive-tool.cmake
$LIBDIR/libglaive.a
$LIBDIR/libglaive.so -> libglaive.so.0
$LIBDIR/libglaive.so.0 -> libglaive.so.$VERSION
$LIBDIR/libglaive.so.$VERSION
$LIBDIR/pkgconfig/glaive.pc
share/doc/glaive/LICENSE
$winners
END_OF_LIST
)
found=$(cd "$prefix" && find . -type f -printf '%P\n' -o -type l -printf '%P -> %l\n' |
  sed -E 's/-(release|relwithdebinfo|debug|minsizerel)\.cmake/-BUILD_TYPE.cmake/' | sort)
same "$expected" "$found" "other files are installed than expected"

# A sanitized build carries debug information and the names of its sources.
text_only=
[[ -z $SANITIZE ]] || text_only=I
for path in "$SOURCE" "$BUILD"; do
  ! grep -rlF$text_only -e "$path" "$prefix" || fail "these installed files name $path"
done
if [[ $CONFIGURED_PREFIX != /usr ]]; then
  ! grep -rlIF -e "$CONFIGURED_PREFIX" "$prefix" || fail "these installed files name $CONFIGURED_PREFIX"
fi

library=$prefix/$LIBDIR/libglaive.so.$VERSION
dynamic=$(readelf -d "$library")
[[ $dynamic == *"soname: [libglaive.so.0]"* ]] || fail "libglaive has another soname"
[[ $dynamic != *RPATH* && $dynamic != *RUNPATH* ]] || fail "libglaive looks for libraries in folders of its own"
if [[ -z $SANITIZE ]]; then
  needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<< "$dynamic" | grep -vE '^(libc\.so\.6|libm\.so\.6|ld-linux-x86-64\.so\.2)$' || true)
  same "" "$needed" "libglaive needs more than libc, libm and the loader"
fi
other=$(nm -D --defined-only "$library" | awk '{ print $3 }' | grep -vE '^(glaive_[a-z0-9_]+@@GLAIVE_0|GLAIVE_0)$' || true)
same "" "$other" "libglaive exports more than glaive_*"

"$prefix/bin/glaive" --version | grep -F "glaive $VERSION" || fail "the installed command does not say its version"
