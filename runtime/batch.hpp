#pragma once
#include "runtime/states.hpp"

namespace glaive {

/// The most that a batch holds. Its arrays are made for this once, and stay where they are.
struct BatchConfig {
  Sequences max_sequences;
  Tokens max_tokens;   ///< of all sequences together
  Tokens max_longest;  ///< of one sequence; 0 = max_tokens
};

/// A step of several sequences: begin -> launch layer by layer, or replay -> commit, or abort at any point.
///
/// Positions move in `commit` alone. The arrays that kernels read have fixed addresses and always describe
/// max_sequences rows: those past the batch are empty sequences without slots, so that one captured graph serves
/// changing batches. A batch belongs to one thread at a time; several batches of a pool may be open at once.
class Batch {
 public:
  static Result<std::unique_ptr<Batch>> create(std::shared_ptr<StatePool> pool, const BatchConfig& config);
  Batch(const Batch&) = delete;
  ~Batch();  // aborts

  enum Flags : std::uint32_t {
    keep = 1,    ///< updates nothing in place, so that an abort loses nothing
    padded = 2,  ///< launches cover max_sequences, max_tokens and max_longest, as a graph wants that is captured once
  };
  /// One entry of the scheduler's; tokens may be 0. A batch may have no entries.
  struct Entry {
    Sequence sequence;
    Tokens tokens;
  };
  /// On a device with streams the arrays are sent to it on `stream`, where all that reads them must follow. Waits only
  /// while the device is four batches behind. Fails, and begins nothing, when it comes to know of a fault that kernels
  /// of an earlier batch reported.
  Result<void> begin(std::span<const Entry> entries, std::uint32_t flags = 0, void* stream = nullptr);

  /// The call that is about to be made for one layer. `launched` says that its kernel is now given to the device, and
  /// `refused` takes that back. A launch that is only captured is neither: the batch stays as it was.
  Result<void> may_launch(std::int64_t layer) const;
  void launched(std::int64_t layer);
  void refused(std::int64_t layer);
  /// The device did not do what it was told: only an abort remains.
  void failed() { failed_ = true; }
  /// Every layer is now enqueued by the caller: a captured graph, or kernels of his own.
  Result<void> replay();
  /// Waits for nothing: on a device with streams the status word is asked for, and looked at when a later batch begins
  /// or `wait_for_faults` is called. Not while the stream is captured.
  Result<void> commit();
  Result<void> abort();
  /// Bits of DeviceFault that kernels of committed batches reported since this was asked last.
  Result<std::uint32_t> wait_for_faults() { return exchange_->wait_for_answer(); }

  // What kernels are given; valid from begin to commit.
  bool open() const { return open_; }
  Sequences sequences() const { return sequences_; }
  Tokens tokens() const { return tokens_; }
  Tokens longest() const { return longest_; }
  const std::int32_t* cu_seqlens() const { return numbers(cu_seqlens_at_); }  ///< max_sequences + 1
  const std::int32_t* read_slots() const { return numbers(read_slots_at_); }
  const std::int32_t* write_slots() const { return numbers(write_slots_at_); }
  std::uint32_t* device_status() const { return reinterpret_cast<std::uint32_t*>(exchange_->address()); }
  bool is_padded() const { return padded_; }
  /// Bits of DeviceFault that its kernels have reported: on a device with streams none yet, they are told later.
  std::uint32_t faults() const { return pool_->in_host_memory() ? exchange_->answer() : 0; }
  void* stream() const { return stream_; }
  const StatePool& pool() const { return *pool_; }

 private:
  Batch() = default;
  Result<void> need_open() const;
  Result<void> need_uncaptured(void* stream, const char* advice) const;
  void close();
  const std::int32_t* numbers(std::size_t at) const {
    return reinterpret_cast<const std::int32_t*>(exchange_->address() + at);
  }
  void write_rows(std::span<std::byte> block) const;

  std::shared_ptr<StatePool> pool_;
  BatchConfig config_;
  std::vector<Row> rows_;
  // The device status word, then the arrays, in one block; where each begins.
  std::unique_ptr<Exchange> exchange_;
  std::size_t cu_seqlens_at_ = 0, read_slots_at_ = 0, write_slots_at_ = 0, block_bytes_ = 0;
  void* stream_ = nullptr;
  std::vector<bool> launched_;  // by layer
  std::int64_t launches_ = 0;
  Sequences sequences_;
  Tokens tokens_, longest_;
  std::size_t count_ = 0;
  bool open_ = false, failed_ = false, replayed_ = false, padded_ = false;
};

/// "slot out of range, ..." for people.
std::string to_string_of_faults(std::uint32_t device_status);

}  // namespace glaive
