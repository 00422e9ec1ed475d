#pragma once
// JSON as a checkpoint's files have it: shallow, and with numbers that are what they look like.
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace generate {

using Json = nlohmann::json;

/// A JSON object; `what` is named where the text is none, or is nested deeper than any of these files is.
Json parse_object(std::string_view text, const std::string& what);
/// The same of a whole file.
Json read_object(const std::filesystem::path& file);

/// For messages: its text, cut where it is long.
std::string quoted(const Json& json);
std::string shortened(std::string text);

/// Nothing for what is no integer, such as 2.0, or lies outside.
std::optional<std::int64_t> integer(const Json& json, std::int64_t low = std::numeric_limits<std::int64_t>::min(),
                                    std::int64_t high = std::numeric_limits<std::int64_t>::max());

}  // namespace generate
