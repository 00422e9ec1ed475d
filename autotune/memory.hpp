#pragma once
#include "runtime/problem.hpp"

namespace glaive {

/// Bytes that running `what` at its full size takes: its tensors, and what they are compared with in f64.
double full_size_bytes(const Case& what);

/// Bytes that this process could still get: what the machine has to spare, within the limits of the control group and
/// of the process.
double available_bytes();

/// Fails with out_of_memory, naming both numbers, when `what` at its full size does not fit into `available`.
Result<void> check_memory(const Case& what, double available = available_bytes());

}  // namespace glaive
