#!/usr/bin/env bash
# What find_package takes, and how it says no. In projects without a language, which configure in no time.
# shellcheck source=tests/install/common.sh
source "$(dirname "$0")/common.sh"

project=$WORK/find_package
# configure PREFIX ARGUMENTS: what CMake says of find_package(glaive ARGUMENTS), on one line.
configure() {
  rm -rf "$project"
  mkdir -p "$project"
  printf '%s\n' 'cmake_minimum_required(VERSION 3.16)' 'project(consumer NONE)' "find_package(glaive $2)" \
    'if(NOT glaive_FOUND OR NOT TARGET glaive::runtime)' '  message(FATAL_ERROR "no glaive::runtime")' 'endif()' \
    > "$project/CMakeLists.txt"
  "$CMAKE" -S "$project" -B "$project/build" -DCMAKE_PREFIX_PATH="$1" 2>&1 | tr -s ' \n' ' '
}

accepted() {
  local said
  said=$(configure "$prefix" "$1") || fail "find_package(glaive $1) fails: $said"
  [[ $said != *Warning* ]] || fail "find_package(glaive $1) warns: $said"
}
accepted "REQUIRED"
accepted "0.1 REQUIRED"
accepted "$VERSION EXACT REQUIRED"
accepted "0.1 REQUIRED COMPONENTS runtime static tool"
accepted "REQUIRED COMPONENTS runtime OPTIONAL_COMPONENTS python"

# refused PREFIX ARGUMENTS SENTENCE
refused() {
  local said
  ! said=$(configure "$1" "$2") || fail "find_package(glaive $2) is content"
  printf '%s\n' "$said"
  [[ $said == *"$3"* ]] || fail "find_package(glaive $2) does not say: $3"
}
refused "$prefix" "0.2 REQUIRED" "not accepted: $prefix/$LIBDIR/cmake/glaive/glaive-config.cmake, version: $VERSION"
refused "$prefix" "0.0 REQUIRED" "version: $VERSION"
refused "$prefix" "1 REQUIRED" "version: $VERSION"
refused "$prefix" "REQUIRED COMPONENTS runtime python" "glaive has no component 'python': there are runtime, static and tool"

without_tool=$WORK/without-tool
rm -rf "$without_tool"
cp -a "$prefix" "$without_tool"
rm "$without_tool/$LIBDIR"/cmake/glaive/glaive-tool*.cmake "$without_tool/bin/glaive"
refused "$without_tool" "REQUIRED COMPONENTS runtime tool" "the component 'tool' of glaive is not installed with this package"
