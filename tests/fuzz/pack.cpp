// The pack reader on any bytes: no crash and no read outside them. Nothing that it finds is loaded as code.
#include "runtime/pack.hpp"

using namespace glaive;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  if (const auto plan = decode_plan(bytes, 2)) (void)to_string(*plan);  // without an entry's checksum before it
  const auto pack = Pack::from_memory(bytes);
  if (not pack) return 0;
  for (std::size_t i = 0; i < pack->size(); ++i) {
    (void)to_string(pack->key(i));
    if (const auto entry = pack->load(i)) (void)to_string(entry->plan);
  }
  return 0;
}
