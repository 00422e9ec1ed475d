# Included before the folders that install: see record.cmake.
include(GNUInstallDirs)
set(glaive_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/glaive)
set(glaive_pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(glaive_folders ${CMAKE_INSTALL_BINDIR} ${CMAKE_INSTALL_INCLUDEDIR} ${glaive_cmake_dir} ${glaive_pkgconfig_dir}
                   ${CMAKE_INSTALL_DOCDIR} share/glaive/winners)
foreach(package libglaive0 libglaive-dev)
  list(APPEND glaive_folders ${CMAKE_INSTALL_DATAROOTDIR}/doc/${package})
endforeach()

function(glaive_record when)
  install(CODE "set(WHEN ${when})
    set(BUILD \"${CMAKE_BINARY_DIR}\")
    set(FOLDERS \"${glaive_folders}\")
    include(\"${PROJECT_SOURCE_DIR}/packaging/record.cmake\")" ALL_COMPONENTS)
endfunction()
glaive_record(before)
