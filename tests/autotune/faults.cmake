add_library(faults_kernel MODULE faults_kernel.cpp)
target_link_libraries(faults_kernel PRIVATE glaive_options)

# Without the families, hence without the 100 ms that it takes to load a compiler.
add_executable(faults_worker faults_worker.cpp)
target_link_libraries(faults_worker PRIVATE glaive_autotune fmt::fmt)
target_link_options(faults_worker PRIVATE -Wl,--as-needed)
target_compile_definitions(faults_worker PRIVATE FAULTS_KERNEL="$<TARGET_FILE:faults_kernel>")
add_dependencies(faults_worker faults_kernel)

add_executable(faults faults_main.cpp faults_inject.cpp faults_runs.cpp)
target_link_libraries(faults PRIVATE glaive_autotune fmt::fmt SQLite::SQLite3)
target_compile_definitions(faults PRIVATE FAULTS_WORKER="$<TARGET_FILE:faults_worker>"
                                          GLAIVE_BINARY="$<TARGET_FILE:faults>")
add_dependencies(faults faults_worker)
set(faults_count 300)
if(GLAIVE_SANITIZE)
  set(faults_count 100)
endif()
set(faults_test "faults: ${faults_count} injected, no wrong winner, lost run, corrupt load or lost entry")
add_test(NAME ${faults_test} COMMAND faults ${faults_count})
set_tests_properties(${faults_test} PROPERTIES TIMEOUT 900 COST 300)  # the longest one begins first
