# Runs inside `cmake --install`, with WHEN before and after the files: notes in the build folder what is put where, for
# uninstall.cmake. A record for each DESTDIR, since packages are staged below one. CMake's own manifest does not do: the
# next install, or CPack, writes over it.
string(SHA1 stage "$ENV{DESTDIR}")
set(record "${BUILD}/installed/${stage}.txt")
if(WHEN STREQUAL "before")
  foreach(folder IN LISTS FOLDERS)
    cmake_path(ABSOLUTE_PATH folder BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}")
    string(PREPEND folder "$ENV{DESTDIR}")
    while(NOT EXISTS "${folder}")
      file(APPEND "${record}" "${folder}/\n")
      cmake_path(GET folder PARENT_PATH folder)
    endwhile()
  endforeach()
else()
  foreach(file IN LISTS CMAKE_INSTALL_MANIFEST_FILES)
    file(APPEND "${record}" "$ENV{DESTDIR}${file}\n")
  endforeach()
endif()
