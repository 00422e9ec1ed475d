# Numbers: oracle, verification, measurement, plain loops. Needs no compiler back end.
option(GLAIVE_NATIVE_BASELINES "Compile the plain loops that glaive is measured against for this processor" ON)

find_package(Threads REQUIRED)
add_library(glaive_numbers STATIC
  baselines.cpp baselines_native.cpp drop.cpp gpu/timing.cpp inputs.cpp measure.cpp oracle.cpp parallel.cpp roofline.cpp verify.cpp)
target_link_libraries(glaive_numbers PUBLIC glaive_runtime PRIVATE fmt::fmt Threads::Threads)
target_include_directories(glaive_numbers SYSTEM PRIVATE ${XXHASH_INCLUDE})

# Contraction would give each compiler its own inputs.
set_source_files_properties(inputs.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
set(native_options -O3 -ffast-math)
if(GLAIVE_NATIVE_BASELINES)
  list(APPEND native_options -march=native)
endif()
set_source_files_properties(baselines_native.cpp PROPERTIES COMPILE_OPTIONS "${native_options}")
# What is timed or takes long must be optimised in a debug build too.
set_source_files_properties(oracle.cpp roofline.cpp PROPERTIES COMPILE_OPTIONS -O3)
