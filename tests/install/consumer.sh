#!/usr/bin/env bash
# A project of its own finds the package by CMake: programs in C and C++, and plugins with different packs in one process.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

project=$WORK/consumer
rm -rf "$project"
"$CMAKE" -S "$(dirname "$0")/consumer" -B "$project" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release
"$CMAKE" --build "$project"

narrow=("$PACKS/8.pack" 'forward H4 Hkv2 K8 V8 f32')
wide=("$PACKS/16.pack" 'forward H4 Hkv2 K16 V16 f32')
for program in from_c from_cpp from_static; do
  "$project/$program" "${narrow[@]}"
  "$project/$program" "${wide[@]}"
done
"$project/host" "$project/libplugin_c.so" "${narrow[@]}" "$project/libplugin_cpp.so" "${wide[@]}" \
  "$project/libplugin_static.so" "${wide[@]}" | sort | uniq -c

# The packs do differ: neither serves the problem of the other.
! said=$("$project/from_c" "$PACKS/8.pack" "${wide[1]}" 2>&1) || fail "a pack serves a problem that is not in it"
[[ $said == "glaive: the pack has no kernel"* ]] || fail "a pack without the problem says: $said"

maps_of() { ldd "$project/$1" | grep -c libglaive || true; }
[[ $(maps_of from_c) == 1 ]] || fail "from_c does not use the shared library"
[[ $(maps_of from_static) == 0 ]] || fail "from_static uses the shared library"
exported=$(nm -D --defined-only "$project/libplugin_static.so" | awk '{ print $3 }' | grep -i glaive || true)
same "" "$exported" "a plugin shows the libglaive that it keeps to itself"
