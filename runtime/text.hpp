#pragma once
// Small text helpers for messages. Internal to the runtime.
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/status.hpp"

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

/// "1 slot", "2 slots".
inline std::string counted(std::size_t count, const char* noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

/// Refuses a number outside low .. high, by the name of what it was given for.
inline Result<void> in_range(std::string_view name, std::int64_t given, std::int64_t low, std::int64_t high) {
  if (given >= low and given <= high) return {};
  return fail(Status::invalid_argument, std::string(name) + " is " + std::to_string(given) + "; it must be from " +
                                            std::to_string(low) + " to " + std::to_string(high));
}

}  // namespace glaive
