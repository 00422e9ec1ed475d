#!/usr/bin/env bash
# Uninstall leaves what was there before the install, and what others have put beside it since.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

export DESTDIR=$WORK/uninstall
prefix=$DESTDIR/opt/glaive
rm -rf "$DESTDIR"
mkdir -p "$prefix/$LIBDIR/pkgconfig" "$prefix/include"
touch "$prefix/$LIBDIR/pkgconfig/other.pc"
before=$(find "$DESTDIR")

(cd "$WORK" && DESTDIR=uninstall "$CMAKE" --install "$BUILD" --prefix /opt/glaive > /dev/null)
"$CMAKE" --install "$BUILD" --prefix /opt/glaive --component tool > /dev/null  # does not make it forget the rest
files=$(find "$prefix" ! -type d ! -name other.pc | wc -l)
touch "$prefix/share/doc/glaive/note"
said=$(DESTDIR=uninstall "$CMAKE" --build "$BUILD" --target uninstall 2>&1) && fail "a relative DESTDIR is taken: $said"
[[ $said == *"DESTDIR is uninstall; uninstall runs in the build folder"* ]] || fail "a relative DESTDIR is refused so: $said"
said=$(DESTDIR=$WORK/./stage/..//uninstall/ "$CMAKE" --build "$BUILD" --target uninstall)
printf '%s\n' "$said"
[[ $said == *"Removed: $prefix/bin/glaive"* ]] || fail "it does not say that it removed bin/glaive"
[[ $said == *"Uninstalled: $files files"* ]] || fail "it does not say that it removed $files files"
same "$(printf '%s\n' "$before" "$prefix"/share{,/doc{,/glaive{,/note}}} | sort)" "$(find "$DESTDIR" | sort)" \
  "the folder is not as it was before the install"

said=$("$CMAKE" --build "$BUILD" --target uninstall)
[[ $said == *"Nothing to uninstall"* ]] || fail "a second uninstall says: $said"

# A prefix that is given relative to the working folder is noted as what it means.
rm -rf "$WORK/record"
(cd "$WORK" && unset DESTDIR && timeout 60 "$CMAKE" -DWHEN=before -DBUILD="$WORK/record" -DCMAKE_INSTALL_PREFIX=out -DFOLDERS=bin \
  -P "$SOURCE/packaging/record.cmake") || fail "a relative prefix is too much for it"
same "$WORK/out/bin/
$WORK/out/" "$(cat "$WORK"/record/installed/*)" "a relative prefix is not noted as what it means"
