#!/usr/bin/env bash
# After the other tests, uninstall leaves what was there before the install and what others have put beside it since.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

files=$(find "$prefix" ! -type d ! -name other.pc | wc -l)
touch "$prefix/share/doc/glaive/note"
said=$(DESTDIR=$stage "$CMAKE" --build "$BUILD" --target uninstall)
printf '%s\n' "$said"
[[ $said == *"Uninstalled: $files files"* ]] || fail "it does not say that it removed $files files"
[[ $said == *"Removed: $prefix/bin/glaive"* ]] || fail "it does not say that it removed bin/glaive"

expected=$(printf '%s\n' "$prefix/share/doc" "$prefix/share/doc/glaive" "$prefix/share/doc/glaive/note" |
  sort - "$WORK/before.txt")
same "$expected" "$(find "$stage" | sort)" "the folder is not as it was before the install"

said=$(DESTDIR=$stage "$CMAKE" --build "$BUILD" --target uninstall)
[[ $said == *"Nothing to uninstall"* ]] || fail "a second uninstall says: $said"
