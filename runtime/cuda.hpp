#pragma once
#include <memory>

#include "runtime/cuda_driver.hpp"
#include "runtime/kernel.hpp"

namespace glaive {

/// GPU number `ordinal`, as the driver counts. Its primary context is retained, as frameworks do, so that their
/// streams and memory are ours; it is made current for the time of a call, and the caller's put back. `driver` outlives
/// the device.
///
/// A launch goes to the caller's stream, NULL being the default stream, and allocates and locks nothing; it may be
/// captured into a graph. Fails with device_lost where a kernel before has broken the context.
Result<std::shared_ptr<Device>> open_gpu(const cuda::Driver& driver, int ordinal);

/// What a GPU is, without a context on it.
Result<DeviceInfo> describe_gpu(const cuda::Driver& driver, int ordinal);

}  // namespace glaive
