#include "runtime/batch.hpp"

#include <algorithm>

#include "runtime/plan.hpp"
#include "runtime/text.hpp"

namespace glaive {
namespace {

constexpr std::int64_t most_tokens = INT32_MAX, most_sequences = std::int64_t{1} << 24;

}  // namespace

std::string to_string_of_faults(std::uint32_t device_status) {
  std::string text;
  const auto add = [&](DeviceFault fault, const char* what) {
    if ((device_status & static_cast<std::uint32_t>(fault)) == 0) return;
    text += text.empty() ? what : std::string(", ") + what;
  };
  add(DeviceFault::slot, "a slot out of range");
  add(DeviceFault::lengths, "cu_seqlens that decrease or pass the tokens");
  return text.empty() ? "device status " + std::to_string(device_status) : text;
}

Result<std::unique_ptr<Batch>> Batch::create(std::shared_ptr<StatePool> pool, const BatchConfig& config) {
  if (auto ok = in_range("config->max_sequences", config.max_sequences.count(), 1, most_sequences); not ok)
    return std::unexpected(ok.error());
  if (auto ok = in_range("config->max_tokens", config.max_tokens.count(), 1, most_tokens); not ok)
    return std::unexpected(ok.error());
  if (auto ok = in_range("config->max_longest", config.max_longest.count(), 0, config.max_tokens.count()); not ok)
    return std::unexpected(ok.error());
  std::unique_ptr<Batch> batch(new Batch);
  batch->config_ = config;
  if (config.max_longest == Tokens(0)) batch->config_.max_longest = config.max_tokens;
  const auto rows = static_cast<std::size_t>(config.max_sequences.count());
  batch->rows_.resize(rows);
  const auto place = [&](std::size_t numbers) {
    constexpr std::size_t line = 64;
    const std::size_t at = batch->block_bytes_;
    batch->block_bytes_ = (at + numbers * sizeof(std::int32_t) + line - 1) / line * line;
    return at;
  };
  place(1);  // the device status word
  batch->cu_seqlens_at_ = place(rows + 1);
  batch->read_slots_at_ = place(rows);
  batch->write_slots_at_ = place(rows);
  auto exchange = pool->device() == nullptr ? exchange_on_host(batch->block_bytes_)
                                            : pool->device()->make_exchange(batch->block_bytes_);
  if (not exchange) return std::unexpected(std::move(exchange).error());
  batch->exchange_ = std::move(*exchange);
  batch->launched_.resize(static_cast<std::size_t>(pool->config().layers));
  batch->pool_ = std::move(pool);
  // Without rows until a batch begins.
  if (batch->pool_->in_host_memory()) batch->close();
  return batch;
}

Batch::~Batch() {
  if (not open_) return;
  [[maybe_unused]] const auto ended = abort();
}

void Batch::write_rows(std::span<std::byte> block) const {
  const auto at = [&](std::size_t offset) { return reinterpret_cast<std::int32_t*>(block.data() + offset); };
  std::int32_t *cu_seqlens = at(cu_seqlens_at_), *read_slots = at(read_slots_at_), *write_slots = at(write_slots_at_);
  *at(0) = 0;
  std::int64_t end = 0;
  cu_seqlens[0] = 0;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const bool used = i < count_;
    if (used) end += rows_[i].tokens.count();
    cu_seqlens[i + 1] = static_cast<std::int32_t>(end);
    read_slots[i] = used ? rows_[i].read : -1;
    write_slots[i] = used ? rows_[i].write : -1;
  }
}

Result<void> Batch::begin(std::span<const Entry> entries, std::uint32_t flags, void* stream) {
  if (open_) return fail(Status::out_of_order, "the batch has begun already; commit or abort it first");
  if ((flags & ~std::uint32_t{keep | padded}) != 0)
    return fail(Status::invalid_argument, "flags is " + std::to_string(flags) + "; there are 1 (keep) and 2 (padded)");
  if (auto ok = in_range("count", static_cast<std::int64_t>(entries.size()), 0, config_.max_sequences.count()); not ok)
    return ok;
  std::int64_t total = 0, longest = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::int64_t tokens = entries[i].tokens.count();
    if (tokens < 0 or tokens > config_.max_longest.count())
      return fail(Status::invalid_argument, "entries[" + std::to_string(i) + "].tokens is " + std::to_string(tokens) +
                                                "; it must be from 0 to " +
                                                std::to_string(config_.max_longest.count()));
    total += tokens;  // at most 2^24 times 2^31
    longest = std::max(longest, tokens);
    rows_[i] = {entries[i].sequence, entries[i].tokens};
  }
  if (total > config_.max_tokens.count())
    return fail(Status::invalid_argument, "the entries add " + std::to_string(total) + " tokens; the batch holds " +
                                              std::to_string(config_.max_tokens.count()));
  if (auto ok = need_uncaptured(stream, "begin a batch before, so that its numbers do not become the graph's"); not ok)
    return ok;
  const auto block = exchange_->compose();
  if (not block) return std::unexpected(block.error());
  if (not pool_->in_host_memory())
    if (const std::uint32_t earlier = exchange_->answer())
      return fail(Status::failed, "kernels of an earlier batch reported " + to_string_of_faults(earlier) +
                                      "; this one has not begun, and may be begun again");
  if (auto begun = pool_->begin({rows_.data(), entries.size()}, (flags & keep) != 0); not begun) return begun;
  count_ = entries.size();
  write_rows(*block);
  if (auto sent = exchange_->post(stream); not sent) {
    pool_->abort({rows_.data(), count_}, false);
    return sent;
  }
  stream_ = stream;
  padded_ = (flags & padded) != 0;
  // Of no entries: one row that is empty, as a call has at least one.
  sequences_ = padded_ ? config_.max_sequences : Sequences(std::max<std::size_t>(count_, 1));
  tokens_ = padded_ ? config_.max_tokens : Tokens(total);
  longest_ = padded_ ? config_.max_longest : Tokens(longest);
  launched_.assign(launched_.size(), false);
  launches_ = 0;
  failed_ = replayed_ = false;
  open_ = true;
  return {};
}

Result<void> Batch::need_open() const {
  if (open_) return {};
  return fail(Status::out_of_order, "the batch has not begun");
}

Result<void> Batch::need_uncaptured(void* stream, const char* advice) const {
  if (pool_->in_host_memory()) return {};
  const auto capturing = pool_->device()->is_capturing(stream);
  if (not capturing) return std::unexpected(capturing.error());
  if (*capturing)
    return fail(Status::out_of_order,
                std::string("the stream is being captured, or is the default one while another is: ") + advice);
  return {};
}

Result<void> Batch::may_launch(std::int64_t layer) const {
  if (auto ok = need_open(); not ok) return ok;
  if (failed_) return fail(Status::out_of_order, "an earlier launch of this batch failed; only an abort remains");
  if (replayed_)
    return fail(Status::out_of_order, "the batch was replayed: all of its layers are the caller's own to enqueue");
  if (auto ok = in_range("layer", layer, 0, pool_->config().layers - 1); not ok) return ok;
  if (launched_[static_cast<std::size_t>(layer)])
    return fail(Status::out_of_order, "layer " + std::to_string(layer) + " was launched already in this batch");
  return {};
}

void Batch::launched(std::int64_t layer) {
  launched_[static_cast<std::size_t>(layer)] = true;
  ++launches_;
}

void Batch::refused(std::int64_t layer) {
  launched_[static_cast<std::size_t>(layer)] = false;
  --launches_;
}

Result<void> Batch::replay() {
  if (auto ok = need_open(); not ok) return ok;
  if (failed_) return fail(Status::out_of_order, "an earlier launch of this batch failed; only an abort remains");
  if (launches_ > 0) return fail(Status::out_of_order, "layers of this batch were launched or replayed already");
  replayed_ = true;
  launches_ = pool_->config().layers;
  return {};
}

Result<void> Batch::commit() {
  if (auto ok = need_open(); not ok) return ok;
  if (failed_) return fail(Status::out_of_order, "a launch of this batch failed; only an abort remains");
  const std::int64_t layers = pool_->config().layers;
  if (launches_ < layers)
    return fail(Status::out_of_order, "only " + std::to_string(launches_) + " of the pool's " + std::to_string(layers) +
                                          " layers were launched; launch the rest, or abort");
  if (auto ok = need_uncaptured(stream_, "launch what was captured, then commit"); not ok) return ok;
  if (auto asked = exchange_->ask(stream_); not asked) {
    failed_ = true;
    return asked;
  }
  if (const std::uint32_t faults = this->faults()) {
    failed_ = true;
    return fail(Status::failed,
                "a kernel reports " + to_string_of_faults(faults) + "; positions have not moved, abort the batch");
  }
  pool_->commit({rows_.data(), count_});
  close();
  return {};
}

Result<void> Batch::abort() {
  if (auto ok = need_open(); not ok) return ok;
  pool_->abort({rows_.data(), count_}, launches_ > 0 or failed_);
  close();
  return {};
}

void Batch::close() {
  open_ = false;
  count_ = 0;
  // Nothing is sent to a device for this: what its kernels see is only good from begin to commit.
  if (pool_->in_host_memory()) write_rows({exchange_->address(), block_bytes_});
}

}  // namespace glaive
