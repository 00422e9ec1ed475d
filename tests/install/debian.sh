#!/usr/bin/env bash
# Debian packages: what they say, and that dpkg installs and removes them, in a root of their own.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"
needs dpkg dpkg-deb dpkg-shlibdeps file pkg-config
as_root=()
if ((EUID != 0)); then
  needs fakeroot
  as_root=(fakeroot)
fi

packages=$WORK/packages
rm -rf "$packages"
"$CPACK" --config "$BUILD/CPackConfig.cmake" -B "$packages"
rm -rf "$packages/_CPack_Packages"
same "glaive_${VERSION}_amd64.deb
libglaive-dev_${VERSION}_amd64.deb
libglaive0_${VERSION}_amd64.deb" "$(cd "$packages" && ls)" "other packages are made than expected"

package() { printf '%s/%s_%s_amd64.deb' "$packages" "$1" "$VERSION"; }
depends() { dpkg-deb --field "$(package "$1")" Depends | sed 's/, /\n/g'; }
same "libc6" "$(depends libglaive0 | sed 's/ .*//')" "libglaive0 depends on something else"
same "libglaive0 (= $VERSION)" "$(depends libglaive-dev)" "libglaive-dev depends on something else"
needed='libc6 libfmt libsqlite3'
((MLIR == 0)) || needed+=' libllvm19 libmlir-19'
for library in $needed; do
  grep "^$library" <<< "$(depends glaive)" || fail "glaive does not depend on $library"
done
same "libglaive 0 libglaive0 (>= $VERSION)" "$(dpkg-deb --ctrl-tarfile "$(package libglaive0)" | tar -xO ./shlibs)" \
  "libglaive0 says otherwise what its users depend on"

# The scripts of the packages run outside of that root, with an ldconfig that leaves the machine's alone.
root=$WORK/root
rm -rf "$root" "$WORK/instead"
mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers} "$WORK/instead"
touch "$root/var/lib/dpkg/status"
printf '#!/bin/sh\necho ldconfig is called\n' > "$WORK/instead/ldconfig"
chmod +x "$WORK/instead/ldconfig"
PATH=$WORK/instead:$PATH:/usr/sbin:/sbin
in_root() {  # what the packages depend on is not in there
  "${as_root[@]}" dpkg --root="$root" --log="$WORK/dpkg.log" --force-depends --force-script-chrootless "$@" 2>&1
}
said=$(in_root --install "$packages"/*.deb) || fail "dpkg installs them not: $said"
[[ $said == *"ldconfig is called"* ]] || fail "installing libglaive0 does not tell the loader"
for name in glaive libglaive0 libglaive-dev; do
  [[ -s $root/usr/share/doc/$name/copyright ]] || fail "$name has no copyright file"
done

lib=$root/usr/lib
[[ -e $lib/libglaive.so ]] || lib=$root/usr/$LIBDIR
export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib
read -ra flags <<< "$(pkg-config --cflags --libs glaive)"
consumer=$(dirname "$0")/consumer
"$CC" -std=c11 "$consumer/main.c" "$consumer/use.c" "${flags[@]}" -lm -o "$WORK/from_package"
"$WORK/from_package" "$PACKS/8.pack" 'forward H4 Hkv2 K8 V8 f32'
"$root/usr/bin/glaive" --version

in_root --purge glaive libglaive-dev libglaive0
same "" "$(find "$root" ! -type d ! -path '*/var/lib/dpkg/*')" "purged packages leave files"
