#include "examples/generate/json.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "examples/generate/failure.hpp"

namespace generate {
namespace {

constexpr int deepest = 32;  // copies and texts of JSON recurse
constexpr std::size_t most_quoted = 80;

}  // namespace

Json parse_object(std::string_view text, const std::string& what) {
  const auto shallow = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > deepest) fail(what, " is nested deeper than ", deepest, " levels");
    return true;
  };
  Json json = Json::parse(text, shallow, false);
  if (!json.is_object()) fail(what, " is not a JSON object");
  return json;
}

Json read_object(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(stream)), {});
  if (!stream) fail(file.string(), " cannot be read: ", std::strerror(errno));
  return parse_object(text, file.string());
}

std::string shortened(std::string text) {
  if (text.size() <= most_quoted) return text;
  std::size_t end = most_quoted;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not within a character
  return text.substr(0, end) + "...";
}

std::string quoted(const Json& json) { return shortened(json.dump(-1, ' ', false, Json::error_handler_t::replace)); }

std::optional<std::int64_t> integer(const Json& json, std::int64_t low, std::int64_t high) {
  if (!json.is_number_integer()) return std::nullopt;
  if (json.is_number_unsigned() && !std::in_range<std::int64_t>(json.get<std::uint64_t>())) return std::nullopt;
  const auto value = json.get<std::int64_t>();
  return low <= value && value <= high ? std::optional(value) : std::nullopt;
}

}  // namespace generate
