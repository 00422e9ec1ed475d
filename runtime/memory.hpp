#pragma once
// Where states and the numbers of a batch lie: memory that kernels of a device see.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "runtime/status.hpp"

namespace glaive {

/// A block through which the host tells kernels what changes from batch to batch, at one address for life, so that one
/// captured graph serves changing batches; and a word, the block's first, in which kernels answer.
class Exchange {
 public:
  virtual ~Exchange() = default;
  /// Where kernels find the block.
  virtual std::byte* address() const = 0;
  /// The block's next contents, for the host to write whole. Waits while the device has yet to read all that was posted
  /// before, which is for the last of several posts.
  virtual Result<std::span<std::byte>> compose() = 0;
  /// What was composed is what kernels see that are enqueued on `stream` from now on. Nothing waits.
  virtual Result<void> post(void* stream) = 0;
  /// Asks for the word as it is when `stream` has come this far. Nothing waits.
  virtual Result<void> ask(void* stream) = 0;
  /// The bits that are known by now of what was asked since this was called last; on the host, those of the word.
  virtual std::uint32_t answer() = 0;
  /// As `answer`, of all that was asked: waits for it.
  virtual Result<std::uint32_t> wait_for_answer() = 0;
};

inline constexpr std::size_t memory_alignment = 256;

// The host's own, which is a CPU's too.
Result<std::shared_ptr<std::byte>> allocate_on_host(std::size_t bytes);
Result<std::unique_ptr<Exchange>> exchange_on_host(std::size_t bytes);

}  // namespace glaive
