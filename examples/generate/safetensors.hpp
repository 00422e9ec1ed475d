#pragma once
// The safetensors format: 8 bytes that say how long the header is, a JSON header that says for each tensor its dtype,
// shape and place, then the numbers, row-major and little-endian.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace generate {

/// Those that weights come in. Others are refused when the tensor is asked for.
enum class Dtype { f32, bf16, f16 };

std::uint16_t to_bf16(float value);  ///< to the nearest, ties to even
float from_bf16(std::uint16_t bits);

/// A tensor in a file that is mapped.
struct TensorView {
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;

  std::vector<float> numbers() const;  ///< exact, whatever the dtype
};

/// `model.safetensors` of a folder, or the several files that `model.safetensors.index.json` names.
class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& folder);
  bool has(const std::string& name) const { return places_.contains(name); }
  TensorView tensor(const std::string& name) const;

 private:
  struct Place {
    std::string dtype, file;
    std::vector<std::int64_t> shape;
    std::span<const std::byte> bytes;
  };
  void read(const std::filesystem::path& file);

  std::filesystem::path folder_;
  std::map<std::string, Place> places_;
  std::vector<std::shared_ptr<const void>> mappings_;
};

struct NamedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> numbers;
};

void write_safetensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors, Dtype dtype);

}  // namespace generate
