file(GLOB sources CONFIGURE_DEPENDS tune_*.cpp)
add_executable(test_tune ${sources})
target_link_libraries(test_tune PRIVATE glaive_autotune Catch2::Catch2 fmt::fmt nlohmann_json::nlohmann_json SQLite::SQLite3)
target_compile_definitions(test_tune PRIVATE GLAIVE_BINARY="$<TARGET_FILE:glaive>"
                                             FAULTS_WORKER="$<TARGET_FILE:faults_worker>"
                                             GLAIVE_TABLES="${PROJECT_SOURCE_DIR}/bench/tables")
add_dependencies(test_tune glaive faults_worker)
catch_discover_tests(test_tune TEST_PREFIX "tune: ")
