#include "compiler/key.hpp"

#include "compiler/compiler.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace glaive {

std::string to_string(const CompileOptions& options) {
  return to_string(options.target) + " tune=" + (options.tune_cpu.empty() ? "generic" : options.tune_cpu) +
         " effort=" + (options.effort == CompileOptions::Effort::light ? "light" : "full");
}

namespace backend {

KeyHash::KeyHash() : state_(XXH3_createState()) { XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_)); }

KeyHash::~KeyHash() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void KeyHash::bytes(const void* data, std::size_t size) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), data, size);
}

void KeyHash::part(std::string_view text) {
  const std::uint64_t size = text.size();
  bytes(&size, sizeof size);
  bytes(text.data(), text.size());
}

std::string KeyHash::hex() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_)));
  std::string text;
  for (const unsigned char byte : canonical.digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace backend
}  // namespace glaive
