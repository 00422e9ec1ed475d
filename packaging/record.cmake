# Runs inside `cmake --install`, with WHEN before and after the files: notes in the build folder what is put where, for
# uninstall.cmake. A record for each DESTDIR, since packages are staged below one. CMake's own manifest does not do: the
# next install, or CPack, writes over it.
include("${CMAKE_CURRENT_LIST_DIR}/stage.cmake")
if(WHEN STREQUAL "before")
  cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_PREFIX)
  foreach(folder IN LISTS FOLDERS)
    cmake_path(ABSOLUTE_PATH folder BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}")
    set(folder "${stage}${folder}")
    while(NOT EXISTS "${folder}")
      file(APPEND "${record}" "${folder}/\n")
      cmake_path(GET folder PARENT_PATH folder)
    endwhile()
  endforeach()
else()
  foreach(file IN LISTS CMAKE_INSTALL_MANIFEST_FILES)
    file(APPEND "${record}" "${stage}${file}\n")
  endforeach()
endif()
