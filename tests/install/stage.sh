#!/usr/bin/env bash
# Installs for the other tests. Below DESTDIR, so the prefix that they use is another than the one that was named.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

rm -rf "$stage"
DESTDIR=$stage "$CMAKE" --install "$BUILD" --prefix /opt/glaive
