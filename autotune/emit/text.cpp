// Texts that become C.
#include <fmt/format.h>

#include <algorithm>

#include "autotune/emit/selection.hpp"

namespace glaive::emission {

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'a' and c <= 'z' ? static_cast<char>(c - 32) : c; });
  return text;
}

std::string c_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' or c == '\\')
      out += fmt::format("\\{}", c);
    else if (byte < 0x20 or byte >= 0x7f or c == '?')
      out += fmt::format("\\{:03o}", byte);
    else
      out += c;
  }
  return out + "\"";
}

std::string c_comment(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '/' and out.ends_with('*')) out += ' ';
    out += byte < 0x20 or byte >= 0x7f ? '?' : c;
  }
  return out;
}

}  // namespace glaive::emission
