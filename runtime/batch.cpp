#include "runtime/batch.hpp"

#include <algorithm>

#include "runtime/plan.hpp"

namespace glaive {
namespace {

constexpr std::int64_t most_tokens = INT32_MAX, most_sequences = std::int64_t{1} << 24;

Result<void> in_range(const char* name, std::int64_t given, std::int64_t low, std::int64_t high) {
  if (given >= low and given <= high) return {};
  return fail(Status::invalid_argument, std::string(name) + " is " + std::to_string(given) + "; it must be from " +
                                            std::to_string(low) + " to " + std::to_string(high));
}

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
  if (auto ok = in_range("max_sequences", config.max_sequences.count(), 1, most_sequences); not ok)
    return std::unexpected(ok.error());
  if (auto ok = in_range("max_tokens", config.max_tokens.count(), 1, most_tokens); not ok)
    return std::unexpected(ok.error());
  if (auto ok = in_range("max_longest", config.max_longest.count(), 0, config.max_tokens.count()); not ok)
    return std::unexpected(ok.error());
  std::unique_ptr<Batch> batch(new Batch);
  batch->config_ = config;
  if (config.max_longest == Tokens(0)) batch->config_.max_longest = config.max_tokens;
  const auto rows = static_cast<std::size_t>(config.max_sequences.count());
  batch->rows_.resize(rows);
  batch->cu_seqlens_.resize(rows + 1);
  batch->read_slots_.assign(rows, -1);
  batch->write_slots_.assign(rows, -1);
  batch->launched_.resize(static_cast<std::size_t>(pool->config().layers));
  batch->pool_ = std::move(pool);
  return batch;
}

Batch::~Batch() {
  if (not open_) return;
  [[maybe_unused]] const auto ended = abort();
}

Result<void> Batch::begin(std::span<const Entry> entries, std::uint32_t flags) {
  if (open_) return fail(Status::out_of_order, "the batch has begun already; commit or abort it first");
  if ((flags & ~std::uint32_t{keep | padded}) != 0)
    return fail(Status::invalid_argument, "flags is " + std::to_string(flags) + "; there are 1 (keep) and 2 (padded)");
  if (auto ok = in_range("count", static_cast<std::int64_t>(entries.size()), 1, config_.max_sequences.count()); not ok)
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
  if (auto begun = pool_->begin({rows_.data(), entries.size()}, (flags & keep) != 0); not begun) return begun;

  count_ = entries.size();
  std::int64_t end = 0;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const bool used = i < count_;
    if (used) end += rows_[i].tokens.count();
    cu_seqlens_[i + 1] = static_cast<std::int32_t>(end);
    read_slots_[i] = used ? rows_[i].read : -1;
    write_slots_[i] = used ? rows_[i].write : -1;
  }
  const bool whole = (flags & padded) != 0;
  sequences_ = whole ? config_.max_sequences : Sequences(count_);
  tokens_ = whole ? config_.max_tokens : Tokens(total);
  longest_ = whole ? config_.max_longest : Tokens(longest);
  launched_.assign(launched_.size(), false);
  launches_ = 0;
  device_status_ = 0;
  failed_ = false;
  open_ = true;
  return {};
}

Result<void> Batch::need_open() const {
  if (open_) return {};
  return fail(Status::out_of_order, "the batch has not begun");
}

Result<void> Batch::may_launch(std::int64_t layer) const {
  if (auto ok = need_open(); not ok) return ok;
  if (failed_) return fail(Status::out_of_order, "an earlier launch of this batch failed; only an abort remains");
  if (auto ok = in_range("layer", layer, 0, pool_->config().layers - 1); not ok) return ok;
  if (launched_[static_cast<std::size_t>(layer)])
    return fail(Status::out_of_order, "layer " + std::to_string(layer) + " was launched already in this batch");
  return {};
}

void Batch::launched(std::int64_t layer) {
  launched_[static_cast<std::size_t>(layer)] = true;
  ++launches_;
}

Result<void> Batch::replay() {
  if (auto ok = need_open(); not ok) return ok;
  if (failed_) return fail(Status::out_of_order, "an earlier launch of this batch failed; only an abort remains");
  if (launches_ > 0) return fail(Status::out_of_order, "layers of this batch were launched or replayed already");
  launched_.assign(launched_.size(), true);
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
  if (device_status_ != 0) {
    failed_ = true;
    return fail(Status::failed, "a kernel reports " + to_string_of_faults(device_status_) +
                                    "; positions have not moved, abort the batch");
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
  std::ranges::fill(read_slots_, -1);
  std::ranges::fill(write_slots_, -1);
  std::ranges::fill(cu_seqlens_, 0);
}

}  // namespace glaive
