#pragma once
#include "tests/autotune/faults_kinds.hpp"

namespace glaive::test {

/// The mistakes of a GPU's variants, and what the tuner must say of them. Those of the compiler, of the plan and of the
/// code are made by family.hpp and evaluator.hpp, the others by the function of kernel.inc that has a case for them.
inline constexpr FaultKind gpu_fault_kinds[] = {
    // Right, and doing the work two to four times: whoever slips through wins.
    {"right_2", Drop::none},
    {"right_3", Drop::none},
    {"right_4", Drop::none},
    // Break the context.
    {"illegal_address", Drop::device_error, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {"far_address", Drop::device_error, "CUDA_ERROR_"},
    {"host_address", Drop::device_error, "CUDA_ERROR_"},
    {"misaligned_address", Drop::device_error, "CUDA_ERROR_MISALIGNED_ADDRESS"},
    {"traps", Drop::device_error, "CUDA_ERROR_"},
    {"jumps_nowhere", Drop::device_error, "CUDA_ERROR_", Drop::hang},  // an H100 runs on
    {"asserts", Drop::device_error, "CUDA_ERROR_ASSERT"},
    {"stack_overflow", Drop::device_error, "CUDA_ERROR_"},
    {"outside_shared", Drop::device_error, "CUDA_ERROR_"},
    {"illegal_when_large", Drop::device_error, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {"illegal_in_the_end", Drop::device_error, "CUDA_ERROR_ILLEGAL_ADDRESS"},  // after a few calls of a race
    {"illegal_afterwards", Drop::device_error, "CUDA_ERROR_ILLEGAL_ADDRESS"},  // in a stage after all is right
    // Do not end.
    {"spins", Drop::hang, "did not end"},
    {"sleeps", Drop::hang, "did not end"},
    {"spins_when_large", Drop::hang, "did not end"},
    // Write where they may not.
    {"before_o", Drop::out_of_bounds, "just outside o"},
    {"after_o", Drop::out_of_bounds, "just outside o"},
    {"after_o_when_large", Drop::out_of_bounds, "just outside o"},
    {"after_state", Drop::out_of_bounds, "just outside state_out"},
    {"after_workspace", Drop::out_of_bounds, "just outside the workspace"},
    {"writes_input", Drop::out_of_bounds, "the input q"},
    // Wrong.
    {"nan_in_o", Drop::nan_output, "1 NaN"},
    {"unwritten", Drop::nan_output, "never written"},
    {"wrong_little", Drop::wrong_result, "off by"},
    {"wrong_once", Drop::wrong_result, "token 0 head 0 channel 5"},
    {"wrong_when_large", Drop::wrong_result, "at full size"},
    {"wrong_state", Drop::wrong_result, "state"},
    {"wanders", Drop::nondeterministic, "different bits"},
    // Do not compile.
    {"compile_refused", Drop::compile_error, "told to fail"},
    {"compile_too_much_shared", Drop::compile_error, "uses too much shared data"},
    {"compile_forever", Drop::hang, "did not end"},
    // Do not load, or cannot be launched.
    {"code_garbage", Drop::load_error, "refuses code"},
    {"code_elsewhere", Drop::load_error, "refuses code"},  // for another architecture
    {"no_entry", Drop::load_error, "no entry"},
    {"plan_out_of_range", Drop::resources, "does not fit"},
    {"too_many_threads", Drop::resources, "launched with 1024"},
    {"too_much_shared", Drop::resources, "bytes of shared memory"},
    {"too_many_blocks", Drop::resources, "a grid holds"},
    // Want more memory than there is.
    {"much_workspace", Drop::memory, "workspace"},
    {"much_static", Drop::memory, "OUT_OF_MEMORY", Drop::hang},  // loading it may take longer than it gets
};

}  // namespace glaive::test
