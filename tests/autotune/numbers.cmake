add_library(numbers_kernel MODULE numbers_kernel.c)

file(GLOB sources CONFIGURE_DEPENDS numbers_*.cpp)
add_executable(test_numbers ${sources})
target_link_libraries(test_numbers PRIVATE glaive_numbers test_main)
target_compile_definitions(test_numbers PRIVATE NUMBERS_KERNEL="$<TARGET_FILE:numbers_kernel>")
add_dependencies(test_numbers numbers_kernel)
catch_discover_tests(test_numbers TEST_PREFIX "numbers: ")
