#!/usr/bin/env bash
# Installs below DESTDIR, into a prefix that another package lives in, and notes what was there before.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

rm -rf "$stage"
mkdir -p "$prefix/$LIBDIR/pkgconfig" "$prefix/share/empty"
touch "$prefix/$LIBDIR/pkgconfig/other.pc"
find "$stage" | sort > "$WORK/before.txt"

DESTDIR=$stage "$CMAKE" --install "$BUILD" --prefix /opt/glaive
