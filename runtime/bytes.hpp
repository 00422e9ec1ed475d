#pragma once
// Little-endian reading and writing of plans and packs. Internal to the runtime.
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace glaive {

static_assert(std::endian::native == std::endian::little, "packs are little-endian and read in place");

class ByteWriter {
 public:
  template <class Number>
    requires std::integral<Number>
  void number(Number value) {
    raw(std::as_bytes(std::span(&value, 1)));
  }
  void text(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    raw(std::as_bytes(std::span(value)));
  }
  void blob(std::span<const std::byte> value) {
    number(static_cast<std::uint64_t>(value.size()));
    raw(value);
  }
  void raw(std::span<const std::byte> value) {
    const auto end = bytes_.size();
    bytes_.resize(end + value.size());  // insert() makes gcc 12 see overflows that are none
    if (not value.empty()) std::memcpy(bytes_.data() + end, value.data(), value.size());
  }

  std::size_t size() const { return bytes_.size(); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what ByteWriter wrote. Past the end, or after `refuse`, every read gives zero or empty and `good` stays false,
/// so that a decoder may check once at its end; nothing is allocated for lengths that the bytes cannot hold.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class Number>
    requires std::integral<Number>
  Number number() {
    Number value = 0;
    if (const auto from = raw(sizeof value); not from.empty()) std::memcpy(&value, from.data(), sizeof value);
    return value;
  }
  /// A number that must lie in [low, high].
  template <class Number>
  Number number_in(Number low, Number high) {
    const auto value = number<Number>();
    if (value < low or value > high) return refuse(), low;
    return value;
  }
  std::string text(std::size_t longest = std::size_t{1} << 20) {
    const auto size = number<std::uint32_t>();
    if (size > longest) return refuse(), std::string();
    const auto from = raw(size);
    return std::string(reinterpret_cast<const char*>(from.data()), from.size());
  }
  std::span<const std::byte> blob() {
    const auto size = number<std::uint64_t>();
    if (size > bytes_.size()) return refuse(), std::span<const std::byte>();
    return raw(static_cast<std::size_t>(size));
  }
  std::span<const std::byte> raw(std::size_t size) {
    if (size > bytes_.size()) return refuse(), std::span<const std::byte>();
    const auto head = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return head;
  }

  void refuse() {
    good_ = false;
    bytes_ = {};
  }
  bool good() const { return good_; }
  bool at_end() const { return good_ and bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool good_ = true;
};

}  // namespace glaive
