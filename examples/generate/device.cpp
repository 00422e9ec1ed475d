#include "examples/generate/device.hpp"

namespace generate {

std::unique_ptr<Device> Device::open(const std::string& name, int threads) {
  return name == "cpu" ? open_cpu(threads) : open_cuda(name);
}

Matrix Device::matrix(const HostMatrix& host) const { return {host.rows, host.columns, vector(host.numbers, dtype_)}; }

api::Memory Device::vector(const std::vector<float>& host, std::int32_t dtype) const {
  if (dtype == GLAIVE_F32) {
    api::Memory memory(glaive_, host.size() * sizeof(float));
    memory.write(host.data(), memory.size());
    return memory;
  }
  std::vector<std::uint16_t> narrow(host.size());
  for (std::size_t i = 0; i < host.size(); ++i) narrow[i] = to_bf16(host[i]);
  api::Memory memory(glaive_, narrow.size() * sizeof(std::uint16_t));
  memory.write(narrow.data(), memory.size());
  return memory;
}

}  // namespace generate
