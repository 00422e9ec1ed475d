#include "runtime/json.hpp"

#include <charconv>
#include <memory>

namespace glaive {
namespace {

constexpr std::string_view blanks = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(blanks);
  return first == text.npos ? std::string_view() : text.substr(first);
}

/// Where the string that begins with the text ends, behind its quote; npos where it does not.
std::size_t end_of_string(std::string_view text) {
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '"')
      return i + 1;
  }
  return text.npos;
}

/// The same for any value.
std::size_t end_of_value(std::string_view text) {
  if (text.empty()) return text.npos;
  if (text.front() == '"') return end_of_string(text);
  if (text.front() != '{' and text.front() != '[') {
    const auto end = text.find_first_of(",]} \t\r\n");
    return end == text.npos ? text.size() : end;
  }
  std::size_t depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') {
      const auto end = end_of_string(text.substr(i));
      if (end == text.npos) return end;
      i += end - 1;
    } else if (text[i] == '{' or text[i] == '[') {
      ++depth;
    } else if ((text[i] == '}' or text[i] == ']') and --depth == 0) {
      return i + 1;
    }
  }
  return text.npos;
}

/// Takes a value off the text, and the comma or colon behind it.
std::string_view take(std::string_view& text) {
  const auto end = end_of_value(text);
  const auto value = end == text.npos ? std::string_view() : text.substr(0, end);
  text = end == text.npos ? std::string_view() : trimmed(text.substr(end));
  if (not text.empty() and (text.front() == ',' or text.front() == ':')) text = trimmed(text.substr(1));
  return value;
}

}  // namespace

JsonView::JsonView(std::string_view text) {
  text = trimmed(text);
  value_ = take(text);
}

JsonView JsonView::operator[](std::string_view member) const {
  if (not value_.starts_with('{')) return {};
  for (auto rest = trimmed(value_.substr(1)); rest.starts_with('"');) {
    const auto name = take(rest);
    const auto value = take(rest);
    if (name.substr(1, name.size() - 2) == member) return JsonView(value);
  }
  return {};
}

std::vector<JsonView> JsonView::items() const {
  std::vector<JsonView> all;
  if (not value_.starts_with('[')) return all;
  for (auto rest = trimmed(value_.substr(1)); not rest.empty() and rest.front() != ']';) {
    const auto value = take(rest);
    if (value.empty()) break;
    all.push_back(JsonView(value));
  }
  return all;
}

std::optional<double> JsonView::number() const {
  double number = 0;
  const char* const begin = std::to_address(value_.begin());
  const char* const end = begin + value_.size();
  const auto read = std::from_chars(begin, end, number);
  if (value_.empty() or read.ec != std::errc() or read.ptr != end) return std::nullopt;
  return number;
}

std::string JsonView::text() const {
  if (value_.size() < 2 or value_.front() != '"' or value_.find('\\') != value_.npos) return {};
  return std::string(value_.substr(1, value_.size() - 2));
}

}  // namespace glaive
