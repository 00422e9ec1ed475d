file(GLOB sources CONFIGURE_DEPENDS tune_*.cpp)
add_executable(test_tune ${sources})
target_link_libraries(test_tune PRIVATE glaive_autotune test_main fmt::fmt nlohmann_json::nlohmann_json SQLite::SQLite3)
target_compile_definitions(test_tune PRIVATE GLAIVE_BINARY="$<TARGET_FILE:glaive>"
                                             FAULTS_WORKER="$<TARGET_FILE:faults_worker>"
                                             GLAIVE_TABLES="${PROJECT_SOURCE_DIR}/bench/tables")
add_dependencies(test_tune glaive faults_worker)
catch_discover_tests(test_tune TEST_PREFIX "tune: ")

# Verification and timing on a GPU, on the driver without one.
add_executable(test_gpu_runner gpu_runner_test.cpp ../needs_stub.cpp ../runtime/kernel.c)
target_link_libraries(test_gpu_runner PRIVATE glaive_autotune test_main m ${CMAKE_DL_LIBS})
add_dependencies(test_gpu_runner cuda_stub test_kernel_1)
target_compile_definitions(test_gpu_runner PRIVATE
  WHICH=1 LIBCUDA_STUB="$<TARGET_FILE:cuda_stub>" TEST_KERNEL_1="$<TARGET_FILE:test_kernel_1>")
catch_discover_tests(test_gpu_runner TEST_PREFIX "tune: ")

# Shipped winners, compiled where there is NVRTC.
add_executable(test_shipped_cubins ../needs_nvrtc.cpp shipped_cubins.cpp)
target_link_libraries(test_shipped_cubins PRIVATE glaive_autotune test_main fmt::fmt)
catch_discover_tests(test_shipped_cubins TEST_PREFIX "tune: shipped: " PROPERTIES LABELS kernels SKIP_RETURN_CODE 77)
