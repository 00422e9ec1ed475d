#include "examples/generate/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>

#include "examples/generate/failure.hpp"
#include "examples/generate/json.hpp"

namespace generate {
namespace {

constexpr std::uint64_t longest_header = 100'000'000;  // the format's own limit

struct Mapping {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

Mapping map_file(const std::filesystem::path& file) {
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts = {};
  if (descriptor < 0 || fstat(descriptor, &facts) != 0) {
    const int reason = errno;
    if (descriptor >= 0) close(descriptor);
    fail(file.string(), " cannot be read: ", std::strerror(reason));
  }
  const auto size = static_cast<std::size_t>(facts.st_size);
  void* const data = size == 0 ? MAP_FAILED : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  close(descriptor);
  if (data == MAP_FAILED) fail(file.string(), " cannot be mapped: it has ", size, " bytes");
  return {{data, [size](const void* mapped) { munmap(const_cast<void*>(mapped), size); }},
          {static_cast<const std::byte*>(data), size}};
}

std::uint64_t bytes_each(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> known = {
      {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"I32", 4},     {"I16", 2},    {"I8", 1},
      {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  const auto found = known.find(dtype);
  return found == known.end() ? 0 : found->second;
}

float from_f16(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float sign = half & 0x8000 ? -1.f : 1.f;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction | 1024), exponent - 25);
}

/// What a header says of one tensor.
struct Description {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
};

/// Nothing where a part is missing, or of another type.
std::optional<Description> describe(const Json& entry) {
  if (!entry.is_object()) return std::nullopt;
  const Json dtype = entry.value("dtype", Json()), shape = entry.value("shape", Json()),
             offsets = entry.value("data_offsets", Json());
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2) return std::nullopt;
  const auto begin = integer(offsets[0], 0), end = integer(offsets[1], 0);
  if (!begin || !end) return std::nullopt;
  Description all = {
      dtype.get<std::string>(), {}, static_cast<std::uint64_t>(*begin), static_cast<std::uint64_t>(*end)};
  for (const Json& extent : shape) {
    const auto count = integer(extent);
    if (!count) return std::nullopt;
    all.shape.push_back(*count);
  }
  return all;
}

}  // namespace

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 64);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

std::vector<float> TensorView::numbers() const {
  if (bytes.empty()) return {};
  if (dtype == Dtype::f32) {
    std::vector<float> all(bytes.size() / sizeof(float));
    std::memcpy(all.data(), bytes.data(), bytes.size());
    return all;
  }
  std::vector<float> all(bytes.size() / 2);
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, &bytes[2 * i], 2);
    all[i] = dtype == Dtype::bf16 ? from_bf16(bits) : from_f16(bits);
  }
  return all;
}

Checkpoint::Checkpoint(const std::filesystem::path& folder) : folder_(folder) {
  const std::filesystem::path index = folder / "model.safetensors.index.json";
  if (!std::filesystem::exists(index)) {
    read(folder / "model.safetensors");
    return;
  }
  const Json json = read_object(index);
  if (!json.contains("weight_map") || !json["weight_map"].is_object())
    fail(index.string(), " is not an index: it needs an object \"weight_map\" of tensor names and files");
  std::set<std::string> files;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      fail(index.string(), ": the file of ", shortened(name), " is ", quoted(file), ", not a name in the same folder");
    files.insert(file.get<std::string>());
  }
  for (const std::string& file : files) read(folder / file);
}

void Checkpoint::read(const std::filesystem::path& file) {
  const Mapping mapping = map_file(file);
  const auto wrong = [&](const auto&... parts) { fail(file.string(), " is no safetensors file: ", parts...); };
  std::uint64_t header = 0;
  if (mapping.bytes.size() < sizeof header) wrong("it has ", mapping.bytes.size(), " bytes, and 8 are the least");
  std::memcpy(&header, mapping.bytes.data(), sizeof header);
  if (header > longest_header || header > mapping.bytes.size() - sizeof header)
    wrong("its header is said to be of ", header, " bytes, in a file of ", mapping.bytes.size());
  const auto* const text = reinterpret_cast<const char*>(mapping.bytes.data()) + sizeof header;
  const Json json = parse_object({text, header}, "the header of " + file.string());
  const std::span<const std::byte> data = mapping.bytes.subspan(sizeof header + header);

  for (const auto& [full_name, entry] : json.items()) {
    if (full_name == "__metadata__") continue;
    const std::string name = shortened(full_name);
    const auto description = describe(entry);
    if (!description)
      wrong("the entry of ", name, " is ", quoted(entry), ", which lacks a dtype, a shape or two data_offsets");
    const auto& [dtype, shape, begin, end] = *description;
    if (begin > end || end > data.size())
      wrong(name, " is said to lie at bytes ", begin, " to ", end, " of ", data.size(), ": the file is truncated");
    const std::uint64_t each = bytes_each(dtype);
    if (each == 0) wrong(name, " has the dtype ", shortened(dtype), ", which is none of the format's");
    std::uint64_t size = each;
    for (const std::int64_t extent : shape)
      if (extent < 0 || __builtin_mul_overflow(size, static_cast<std::uint64_t>(extent), &size))
        wrong("the shape of ", name, " is ", quoted(shape));
    if (size != end - begin)
      wrong(name, " has ", end - begin, " bytes, but its shape ", quoted(shape), " of ", dtype, " takes ", size);
    const Place place = {dtype, file.string(), shape, data.subspan(begin, end - begin)};
    if (!places_.emplace(full_name, place).second) wrong(name, " is also in another file");
  }
  mappings_.push_back(mapping.owner);
}

TensorView Checkpoint::tensor(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) fail("the checkpoint in ", folder_.string(), " has no tensor ", name);
  const Place& place = found->second;
  if (place.dtype == "F32") return {Dtype::f32, place.shape, place.bytes};
  if (place.dtype == "BF16") return {Dtype::bf16, place.shape, place.bytes};
  if (place.dtype == "F16") return {Dtype::f16, place.shape, place.bytes};
  fail(place.file, ": ", name, " has the dtype ", place.dtype, "; F32, BF16 and F16 are read");
}

void write_safetensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors, Dtype dtype) {
  if (dtype == Dtype::f16) fail("weights are written as F32 or BF16, not as F16");
  const std::uint64_t each = dtype == Dtype::f32 ? 4 : 2;
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t at = 0;
  for (const NamedTensor& tensor : tensors) {
    const std::uint64_t end = at + tensor.numbers.size() * each;
    header[tensor.name] = {
        {"dtype", dtype == Dtype::f32 ? "F32" : "BF16"}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the numbers are aligned
  const std::uint64_t size = text.size();

  std::ofstream stream(file, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(&size), sizeof size) << text;
  for (const NamedTensor& tensor : tensors) {
    if (dtype == Dtype::f32) {
      stream.write(reinterpret_cast<const char*>(tensor.numbers.data()),
                   static_cast<std::streamsize>(tensor.numbers.size() * each));
      continue;
    }
    std::vector<std::uint16_t> narrow;
    for (const float number : tensor.numbers) narrow.push_back(to_bf16(number));
    stream.write(reinterpret_cast<const char*>(narrow.data()), static_cast<std::streamsize>(narrow.size() * each));
  }
  if (!stream.flush()) fail(file.string(), " cannot be written");
}

}  // namespace generate
