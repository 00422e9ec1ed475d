# What makes an install a package that others find: CMake's, pkg-config's and Debian's. Included after the folders that install.
include(CMakePackageConfigHelpers)
set(made ${CMAKE_CURRENT_BINARY_DIR}/packaging)

# Until 1.0 a minor version may change the interface.
write_basic_package_version_file(${made}/glaive-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES packaging/glaive-config.cmake ${made}/glaive-config-version.cmake
        DESTINATION ${glaive_cmake_dir} COMPONENT development)
foreach(part runtime static)
  install(EXPORT glaive-${part} NAMESPACE glaive:: DESTINATION ${glaive_cmake_dir} COMPONENT development)
endforeach()
install(EXPORT glaive-tool NAMESPACE glaive:: DESTINATION ${glaive_cmake_dir} COMPONENT tool)

file(RELATIVE_PATH up_to_prefix /${glaive_pkgconfig_dir} /)
string(REGEX REPLACE "/$" "" up_to_prefix "${up_to_prefix}")
configure_file(packaging/glaive.pc.in ${made}/glaive.pc @ONLY)
install(FILES ${made}/glaive.pc DESTINATION ${glaive_pkgconfig_dir} COMPONENT development)

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
include(packaging/debian.cmake)

glaive_record(after)
add_custom_target(uninstall COMMENT "Uninstalling what was installed from here" USES_TERMINAL VERBATIM
  COMMAND ${CMAKE_COMMAND} -DBUILD=${CMAKE_BINARY_DIR} -P ${PROJECT_SOURCE_DIR}/packaging/uninstall.cmake)
