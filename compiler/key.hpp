#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace glaive::backend {

/// 128-bit digest of a sequence of parts; where a part ends counts.
class KeyHash {
 public:
  KeyHash();
  ~KeyHash();
  KeyHash(const KeyHash&) = delete;
  void bytes(const void* data, std::size_t size);
  void part(std::string_view text);
  std::string hex() const;  ///< 32 digits

 private:
  void* state_;
};

}  // namespace glaive::backend
