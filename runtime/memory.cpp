#include "runtime/memory.hpp"

#include <sys/mman.h>

#include <cstring>
#include <string>
#include <vector>

namespace glaive {
namespace {

class HostExchange final : public Exchange {
 public:
  explicit HostExchange(std::size_t bytes) : lines_((bytes + sizeof(Line) - 1) / sizeof(Line)), bytes_(bytes) {}
  std::byte* address() const override { return lines_[0].bytes; }
  Result<std::span<std::byte>> compose() override { return std::span(address(), bytes_); }
  Result<void> post(void*) override { return {}; }
  Result<void> ask(void*) override { return {}; }
  std::uint32_t answer() override {
    std::uint32_t word = 0;
    std::memcpy(&word, address(), sizeof word);
    return word;
  }
  Result<std::uint32_t> wait_for_answer() override { return answer(); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  mutable std::vector<Line> lines_;
  std::size_t bytes_;
};

}  // namespace

Result<std::shared_ptr<std::byte>> allocate_on_host(std::size_t bytes) {
  void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return fail(Status::out_of_memory, "no memory for " + std::to_string(bytes) + " bytes");
  madvise(mapped, bytes, MADV_HUGEPAGE);  // a wish: without it all works as well, only slower
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(mapped),
                                    [bytes](std::byte* block) { munmap(block, bytes); });
}

Result<std::unique_ptr<Exchange>> exchange_on_host(std::size_t bytes) { return std::make_unique<HostExchange>(bytes); }

}  // namespace glaive
