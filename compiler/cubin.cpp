#include <algorithm>
#include <cstring>
#include <optional>

#include "compiler/cuda.hpp"

namespace glaive {
namespace {

// A cubin is an ELF file. What the driver must know about a kernel stands in `.nv.info`, for all kernels, and in
// `.nv.info.<kernel>`: a list of items, each a format, an attribute and a value. The numbers are found in cubins of
// CUDA 12 and 13 and held against what ptxas says of the same kernels (tests/compiler/cubin_test.cpp).
enum Format : std::uint8_t { nothing = 1, byte = 2, half = 3, sized = 4 };
enum Attribute : std::uint8_t {
  max_threads = 0x05,  // of a block, along x, y and z
  required_threads = 0x10,
  frame_size = 0x11,      // symbol, bytes
  min_stack_size = 0x12,  // symbol, bytes: with what the kernel calls
  parameter_size = 0x19,
  register_count = 0x2f,  // symbol, registers
  annotations = 0x55,     // kind, offset of an instruction
};
constexpr std::uint32_t annotation_spill = 1;
constexpr std::uint8_t kernel_symbol = 0x10;  // in st_other
/// Since sm_90 the memory that the system keeps of a block's is counted into the sections.
constexpr std::int64_t reserved_shared_bytes = 1024;

/// A window of the file; what lies outside reads as nothing.
class Window {
 public:
  Window() = default;
  explicit Window(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t size() const { return bytes_.size(); }
  template <class T>
  std::optional<T> at(std::uint64_t offset) const {
    if (offset > size() or sizeof(T) > size() - offset) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }
  std::optional<Window> part(std::uint64_t offset, std::uint64_t count) const {
    if (offset > size() or count > size() - offset) return std::nullopt;
    return Window(bytes_.subspan(offset, count));
  }
  /// A string that ends within the window.
  std::optional<std::string_view> text(std::uint64_t offset) const {
    if (offset >= size()) return std::nullopt;
    const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + offset;
    const auto* end = static_cast<const char*>(std::memchr(begin, 0, size() - offset));
    if (end == nullptr) return std::nullopt;
    return std::string_view(begin, static_cast<std::size_t>(end - begin));
  }

 private:
  std::span<const std::byte> bytes_;
};

struct Section {
  std::string_view name;
  std::uint32_t type = 0;
  std::uint64_t offset = 0, size = 0;
};

std::optional<std::vector<Section>> sections_of(Window file) {
  constexpr std::uint32_t magic = 0x464c457f;
  constexpr std::uint8_t bits_64 = 2, little_endian = 1;
  constexpr std::uint16_t machine_cuda = 190, header_bytes = 64;
  if (file.at<std::uint32_t>(0) != magic or file.at<std::uint8_t>(4) != bits_64 or
      file.at<std::uint8_t>(5) != little_endian or file.at<std::uint16_t>(18) != machine_cuda or
      file.at<std::uint16_t>(58) != header_bytes)
    return std::nullopt;
  const auto headers = *file.at<std::uint64_t>(40);
  const auto count = file.at<std::uint16_t>(60), names_index = file.at<std::uint16_t>(62);
  if (not count or not names_index or *names_index >= *count) return std::nullopt;
  const auto table = file.part(headers, std::uint64_t{*count} * header_bytes);
  if (not table) return std::nullopt;
  const auto header = [&](std::uint64_t index) { return *table->part(index * header_bytes, header_bytes); };
  const Window of_names = header(*names_index);
  const auto names = file.part(*of_names.at<std::uint64_t>(24), *of_names.at<std::uint64_t>(32));
  if (not names) return std::nullopt;
  std::vector<Section> sections;
  for (std::uint64_t i = 0; i < *count; ++i) {
    const Window h = header(i);
    const auto name = names->text(*h.at<std::uint32_t>(0));
    if (not name) return std::nullopt;
    sections.push_back({*name, *h.at<std::uint32_t>(4), *h.at<std::uint64_t>(24), *h.at<std::uint64_t>(32)});
  }
  return sections;
}

/// Calls visit(attribute, value) for each item; false where the list is cut short.
template <class Visit>
bool visit_items(Window info, Visit visit) {
  for (std::uint64_t at = 0; at < info.size();) {
    const auto format = info.at<std::uint8_t>(at), attribute = info.at<std::uint8_t>(at + 1);
    const auto word = info.at<std::uint16_t>(at + 2);
    if (not word) return false;
    const std::uint64_t size = *format == Format::sized ? *word : 0;
    const auto value = *format == Format::sized ? info.part(at + 4, size) : info.part(at + 2, 2);
    if (not value) return false;
    visit(static_cast<Attribute>(*attribute), *value);
    at += 4 + size;
  }
  return true;
}

std::unexpected<Error> no_cubin(const char* why) {
  return fail(Status::failed, std::string("these bytes are no cubin: ") + why);
}

}  // namespace

Result<std::vector<KernelFacts>> cubin_facts(std::span<const std::byte> cubin) {
  const Window file(cubin);
  const auto sections = sections_of(file);
  if (not sections) return no_cubin("no ELF file for CUDA with whole section headers");
  const auto find = [&](std::string_view prefix, std::string_view name) -> const Section* {
    const auto found = std::ranges::find_if(*sections, [&](const Section& section) {
      return section.name.starts_with(prefix) and section.name.substr(prefix.size()) == name;
    });
    return found == sections->end() ? nullptr : &*found;
  };
  const auto bytes_of = [&](const Section* section) -> std::optional<Window> {
    return section == nullptr ? Window() : file.part(section->offset, section->size);
  };

  const auto symbols = bytes_of(find(".symtab", "")), names = bytes_of(find(".strtab", ""));
  if (not symbols or not names) return no_cubin("its symbols lie outside");
  constexpr std::uint64_t symbol_bytes = 24;
  constexpr std::uint8_t function = 2;
  std::vector<KernelFacts> kernels;
  std::vector<std::uint32_t> numbers;  // of the kernels' symbols
  for (std::uint64_t at = 0; at + symbol_bytes <= symbols->size(); at += symbol_bytes) {
    if ((*symbols->at<std::uint8_t>(at + 4) & 15) != function or
        not(*symbols->at<std::uint8_t>(at + 5) & kernel_symbol))
      continue;
    const auto name = names->text(*symbols->at<std::uint32_t>(at));
    if (not name) return no_cubin("a kernel's name lies outside");
    kernels.push_back({.entry = std::string(*name)});
    numbers.push_back(static_cast<std::uint32_t>(at / symbol_bytes));
  }

  const auto all_info = bytes_of(find(".nv.info", ""));
  if (not all_info) return no_cubin(".nv.info lies outside");
  const bool whole = visit_items(*all_info, [&](Attribute attribute, Window value) {
    const auto symbol = value.at<std::uint32_t>(0), number = value.at<std::uint32_t>(4);
    if (not number) return;
    const auto place = std::ranges::find(numbers, *symbol);
    if (place == numbers.end()) return;
    KernelFacts& kernel = kernels[static_cast<std::size_t>(place - numbers.begin())];
    if (attribute == register_count) kernel.registers = *number;
    if (attribute == frame_size or attribute == min_stack_size)
      kernel.stack_bytes = std::max<std::int64_t>(kernel.stack_bytes, *number);
  });
  if (not whole) return no_cubin(".nv.info is cut short");

  const bool has_reserved = find(".nv.shared.reserved.0", "") != nullptr;
  for (KernelFacts& kernel : kernels) {
    const auto info = bytes_of(find(".nv.info.", kernel.entry));
    if (not info) return no_cubin("a kernel's .nv.info lies outside");
    const bool whole_info = visit_items(*info, [&](Attribute attribute, Window value) {
      if (attribute == parameter_size) kernel.parameter_bytes = value.at<std::uint16_t>(0).value_or(0);
      if (attribute == max_threads or attribute == required_threads) {
        kernel.most_threads = 1;
        for (const std::uint64_t axis : {0, 4, 8})
          kernel.most_threads *= std::clamp<std::uint32_t>(value.at<std::uint32_t>(axis).value_or(1), 1, 1024);
      }
      if (attribute == annotations)
        for (std::uint64_t at = 0; at + 8 <= value.size(); at += 8)
          kernel.spills += value.at<std::uint32_t>(at) == annotation_spill;
    });
    if (not whole_info) return no_cubin("a kernel's .nv.info is cut short");
    if (const Section* text = find(".text.", kernel.entry)) {
      if (not bytes_of(text)) return no_cubin("a kernel's code lies outside");
      kernel.text_bytes = static_cast<std::int64_t>(text->size);
    }
    if (const Section* shared = find(".nv.shared.", kernel.entry)) {
      constexpr std::uint64_t most = 1 << 24;
      kernel.shared_bytes = static_cast<std::int64_t>(std::min(shared->size, most));
      if (has_reserved) kernel.shared_bytes = std::max<std::int64_t>(0, kernel.shared_bytes - reserved_shared_bytes);
    }
  }
  return kernels;
}

}  // namespace glaive
