#pragma once
#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace glaive {

/// A word as a shell reads it back: as it is, or in single quotes.
inline std::string shell_quoted(std::string_view word) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 or std::string_view("-_./=:,@+").contains(c); };
  if (not word.empty() and std::ranges::all_of(word, plain)) return std::string(word);
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace glaive
