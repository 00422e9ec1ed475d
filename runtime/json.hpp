#pragma once
// Reading of JSON that this project wrote: evidence. Internal to the runtime, which has no JSON library.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace glaive {

/// A value within a text, found without a copy. Whatever the text holds, nothing outside it is read: what is not there,
/// or is no JSON, is an absent value, which has no members, no items, no number and no text.
class JsonView {
 public:
  JsonView() = default;
  explicit JsonView(std::string_view text);

  JsonView operator[](std::string_view member) const;  ///< of an object; the first of that name
  std::vector<JsonView> items() const;                 ///< of an array
  std::optional<double> number() const;
  std::string text() const;  ///< of a string without escapes; else empty

 private:
  std::string_view value_;
};

}  // namespace glaive
