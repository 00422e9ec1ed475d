#pragma once
// Small text helpers for messages. Internal to the runtime.
#include <string>
#include <string_view>

namespace glaive {

/// The word in double quotes, cut to a readable length, with bytes that are not printable ASCII as \xNN.
inline std::string in_quotes(std::string_view word, std::size_t longest = 48) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : word.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 and byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    }
  }
  if (word.size() > longest) out += "...";
  return out += '"';
}

}  // namespace glaive
