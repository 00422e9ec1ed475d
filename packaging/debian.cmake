# Debian packages, by `cpack` in the build folder: `./dev package` makes them as Debian lays files out.
set(GLAIVE_MAINTAINER "The glaive developers <glaive@localhost>" CACHE STRING "Maintainer of the packages: Name <address>")
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT ${GLAIVE_MAINTAINER})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_COMPONENTS_ALL runtime development tool)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)

if(MLIR_FOUND)
  # dpkg-shlibdeps may take libLLVM for the link of llvm-19-dev's beside libMLIR, and learn nothing from that.
  set(CPACK_DEBIAN_TOOL_PACKAGE_DEPENDS libllvm${LLVM_VERSION_MAJOR})
endif()

macro(glaive_debian component name section description)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_COMPONENT_${upper}_DESCRIPTION ${description})
  # Where Debian looks for it; an install by hand has one LICENSE instead.
  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${name} RENAME copyright
          COMPONENT ${component} EXCLUDE_FROM_ALL)
endmacro()
glaive_debian(runtime libglaive0 libs
  "Runs tuned kernels of Gated Linear Attention on CPUs and NVIDIA GPUs, and keeps the states of live sequences.")
glaive_debian(development libglaive-dev libdevel
  "Headers for C and C++17, the archive, and the packages of CMake and pkg-config, to link programs with libglaive.")
glaive_debian(tool glaive devel
  "The command that tunes kernels for the machine at hand and writes the winners to a pack, which libglaive serves.")
include(CPack)
