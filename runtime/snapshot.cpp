#include "runtime/snapshot.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "runtime/bytes.hpp"
#include "runtime/files.hpp"
#include "runtime/text.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace glaive {
namespace {

constexpr std::string_view magic = "GLAIVEST";
constexpr std::uint32_t version = 2;
constexpr std::size_t checksum_size = sizeof(std::uint64_t);
// A page, so that the payload is copied from and to whole pages: off by the fields alone, reading takes twice as long.
constexpr std::size_t header_size = 4096, summed_size = header_size - checksum_size;
constexpr std::size_t block_size = std::size_t{1} << 18;  // stays in a second-level cache between copy and checksum
constexpr std::int64_t most_planes = 17, most_bytes = std::int64_t{1} << 46;

std::unexpected<Error> bad(std::string message) { return fail(Status::bad_snapshot, std::move(message)); }

/// A piece of the payload with a checksum of its own, so that several threads can read. The trailer is the checksum
/// over those of all blocks, seeded by the header's.
struct Block {
  std::size_t plane, offset;  ///< of its first byte
  std::size_t size;
  std::size_t at;  ///< bytes of payload before it
};

std::vector<Block> blocks_of(const SnapshotHeader& h) {
  std::vector<Block> blocks;
  std::size_t at = 0;
  for (std::size_t plane = 0; plane < h.planes.size() and not h.zero_state; ++plane)
    for (std::size_t offset = 0, end = static_cast<std::size_t>(h.planes[plane]); offset < end; offset += block_size) {
      blocks.push_back({plane, offset, std::min(block_size, end - offset), at});
      at += blocks.back().size;
    }
  return blocks;
}

std::uint64_t sum_of(std::span<const std::byte> bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}
std::uint64_t sum_of(std::span<const std::uint64_t> sums, const SnapshotHeader& header) {
  return sum_of(std::as_bytes(sums), header.checksum);
}

SnapshotHeader header_of(const StatePool& pool, const StatePool::Pinned& pinned) {
  const PoolConfig& config = pool.config();
  SnapshotHeader h;
  h.layers = config.layers;
  h.kv_heads = config.kv_heads;
  h.k = config.k;
  h.v = config.v;
  h.dtype = config.dtype;
  h.layout = config.layout;
  for (const Plane& plane : pool.layout().planes) h.planes.push_back(plane.bytes);
  h.position = pinned.position;
  h.zero_state = pinned.slot < 0;
  return h;
}

/// Fills in the header's checksum.
std::vector<std::byte> encode(SnapshotHeader& h) {
  ByteWriter out;
  out.raw(std::as_bytes(std::span(magic)));
  out.number(version);
  out.number(static_cast<std::uint8_t>(h.dtype));
  out.number(static_cast<std::uint8_t>(h.layout));
  out.number(static_cast<std::uint8_t>(h.zero_state));
  out.number(static_cast<std::uint8_t>(h.planes.size()));
  for (const std::int64_t n : {h.layers, h.kv_heads.count(), h.k.count(), h.v.count(), h.position.count()})
    out.number(n);
  for (const std::int64_t bytes : h.planes) out.number(bytes);
  std::vector<std::byte> bytes = out.take();
  bytes.resize(summed_size);
  h.checksum = XXH3_64bits(bytes.data(), bytes.size());
  const auto checksum = std::as_bytes(std::span(&h.checksum, 1));
  bytes.insert(bytes.end(), checksum.begin(), checksum.end());
  return bytes;
}

std::string to_string(const SnapshotHeader& h) {
  std::string text = std::to_string(h.layers) + " layers of Hkv" + std::to_string(h.kv_heads.count()) + " K" +
                     std::to_string(h.k.count()) + " V" + std::to_string(h.v.count()) + " " +
                     std::string(to_string(h.dtype)) + " " + std::string(to_string(h.layout)) + " with planes of";
  for (const std::int64_t bytes : h.planes) text += " " + std::to_string(bytes);
  return text + " bytes";
}

Result<void> check_geometry(const SnapshotHeader& given, const StatePool& pool) {
  const SnapshotHeader ours = header_of(pool, {});
  if (given.layers == ours.layers and given.kv_heads == ours.kv_heads and given.k == ours.k and given.v == ours.v and
      given.dtype == ours.dtype and given.layout == ours.layout and given.planes == ours.planes)
    return {};
  return fail(Status::foreign, "the snapshot is of " + to_string(given) + ", and the pool holds " + to_string(ours));
}

Result<void> check_size(const SnapshotHeader& header, std::size_t size) {
  if (size == header.total_bytes()) return {};
  return bad("the snapshot has " + std::to_string(size) + " bytes; by its header it should have " +
             std::to_string(header.total_bytes()));
}

constexpr const char* altered = "the snapshot is altered: its states do not match their checksum";

/// A slot held against reuse, for as long as it is being copied.
class Pin {
 public:
  static Result<Pin> take(StatePool& pool, Sequence sequence) {
    auto pinned = pool.pin(sequence);
    if (not pinned) return std::unexpected(std::move(pinned).error());
    return Pin(pool, *pinned);
  }
  Pin(Pin&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), pinned_(other.pinned_) {}
  ~Pin() {
    if (pool_ != nullptr) pool_->unpin(pinned_);
  }
  const StatePool::Pinned* operator->() const { return &pinned_; }
  const StatePool::Pinned& operator*() const { return pinned_; }

 private:
  Pin(StatePool& pool, const StatePool::Pinned& pinned) : pool_(&pool), pinned_(pinned) {}
  StatePool* pool_;
  StatePool::Pinned pinned_;
};

std::span<std::byte> bytes_of(const StatePool& pool, const Block& block, std::int32_t slot) {
  return {pool.at(block.plane, slot) + block.offset, block.size};
}

/// Room on the host for a block of a device's memory; none where the host sees that itself.
class Bounce {
 public:
  explicit Bounce(const StatePool& pool) : device_(pool.in_host_memory() ? nullptr : pool.device()) {
    if (device_ != nullptr) room_.resize(block_size);
  }
  /// The part as the host may read it.
  Result<std::span<const std::byte>> read(std::span<const std::byte> part) {
    if (device_ == nullptr) return part;
    const auto copy = std::span(room_).first(part.size());
    if (auto copied = device_->copy_from_device(copy, part.data()); not copied)
      return std::unexpected(std::move(copied).error());
    return copy;
  }
  /// fill(bytes) makes the part's new contents.
  template <class Fill>
  Result<void> write(std::span<std::byte> part, Fill&& fill) {
    if (device_ == nullptr) return fill(part);
    const auto copy = std::span(room_).first(part.size());
    if (auto filled = fill(copy); not filled) return filled;
    return device_->copy_to_device(part.data(), copy);
  }

 private:
  Device* device_;
  std::vector<std::byte> room_;
};

/// Until what is enqueued no longer writes to slots: to one that is saved, or to one that was just given back.
Result<void> wait_for_device(const StatePool& pool) {
  return pool.in_host_memory() ? Result<void>() : pool.device()->wait();
}

/// put(bytes) takes the snapshot piece by piece.
template <class Put>
Result<void> emit(const StatePool& pool, const StatePool::Pinned& pinned, Put&& put) {
  if (auto over = wait_for_device(pool); not over) return over;
  SnapshotHeader header = header_of(pool, pinned);
  const std::vector<std::byte> bytes = encode(header);
  if (auto done = put(std::span(bytes)); not done) return done;
  std::vector<std::uint64_t> sums;
  Bounce bounce(pool);
  for (const Block& block : blocks_of(header)) {
    const auto part = bounce.read(bytes_of(pool, block, pinned.slot));
    if (not part) return std::unexpected(part.error());
    sums.push_back(sum_of(*part, sums.size()));
    if (auto done = put(*part); not done) return done;
  }
  const std::uint64_t sum = sum_of(sums, header);
  return put(std::as_bytes(std::span(&sum, 1)));
}

/// While it lives the calling thread takes no signal, and neither will a thread that it starts: the process's signals
/// go to the program's own threads.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsHeld(const SignalsHeld&) = delete;
  ~SignalsHeld() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

/// A thread that runs `work` and takes no signals; none if none is to be had.
template <class Work>
std::jthread thread_if_any(const Work& work) {
  try {
    const SignalsHeld held;
    return std::jthread(work);
  } catch (const std::exception&) {
    return {};
  }
}

/// Runs body(i) for i in 0..count, on two threads where there is much to do; the first error ends it.
template <class Body>
Result<void> for_each_block(std::size_t count, const Body& body) {
  constexpr std::size_t worth_a_thread = 32;
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::optional<Error> broken;
  const auto work = [&] {
    for (std::size_t i; (i = next++) < count;) {
      Result<void> done;
      try {
        done = body(i);
      } catch (const std::bad_alloc&) {
        done = fail(Status::out_of_memory, "out of memory");  // a text so short that it takes none
      }
      if (done) continue;
      const std::lock_guard lock(mutex);
      if (not broken) broken = std::move(done).error();
      next = count;
    }
  };
  {
    std::jthread helper;
    if (count >= worth_a_thread and std::thread::hardware_concurrency() > 1) helper = thread_if_any(work);
    work();
  }
  if (broken) return std::unexpected(std::move(*broken));
  return {};
}

/// A slot and a sequence that are given back unless the sequence is settled.
class Reservation {
 public:
  explicit Reservation(StatePool& pool) : pool_(pool), reserved_(pool.reserve()) {}
  Reservation(const Reservation&) = delete;
  ~Reservation() {
    if (reserved_ and not settled_) static_cast<void>(pool_.release(reserved_->sequence));
  }
  const Result<StatePool::Reserved>& get() const { return reserved_; }
  Sequence settle(Tokens position, bool zero_state) {
    settled_ = true;
    pool_.settle(*reserved_, position, zero_state);
    return reserved_->sequence;
  }

 private:
  StatePool& pool_;
  Result<StatePool::Reserved> reserved_;
  bool settled_ = false;
};

/// get(bytes, at) fills them with what lies `at` bytes behind the header, on several threads at once.
template <class Get>
Result<Sequence> absorb(StatePool& pool, const SnapshotHeader& header, Get&& get) {
  if (auto fits = check_geometry(header, pool); not fits) return std::unexpected(std::move(fits).error());
  Reservation reservation(pool);
  if (not reservation.get()) return std::unexpected(reservation.get().error());
  const std::int32_t slot = reservation.get()->slot;
  if (auto over = wait_for_device(pool); not over) return std::unexpected(std::move(over).error());
  const std::vector<Block> blocks = blocks_of(header);
  std::vector<std::uint64_t> sums(blocks.size());
  const auto take = [&](std::size_t i) -> Result<void> {
    const auto fill = [&](std::span<std::byte> part) -> Result<void> {
      if (auto done = get(part, blocks[i].at); not done) return done;
      sums[i] = sum_of(part, i);
      return {};
    };
    return Bounce(pool).write(bytes_of(pool, blocks[i], slot), fill);
  };
  if (auto done = for_each_block(blocks.size(), take); not done) return std::unexpected(std::move(done).error());
  std::uint64_t sum = 0;
  if (auto done = get(std::as_writable_bytes(std::span(&sum, 1)), header.payload_bytes()); not done)
    return std::unexpected(std::move(done).error());
  if (sum != sum_of(sums, header)) return bad(altered);
  return reservation.settle(header.position, header.zero_state);
}

}  // namespace

std::size_t SnapshotHeader::payload_bytes() const {
  std::size_t sum = 0;
  for (const std::int64_t plane : planes) sum += zero_state ? 0 : static_cast<std::size_t>(plane);
  return sum;
}
std::size_t SnapshotHeader::total_bytes() const { return header_size + payload_bytes() + checksum_size; }

Result<SnapshotHeader> decode_snapshot_header(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  const auto mark = in.raw(magic.size());
  if (not std::ranges::equal(mark, std::as_bytes(std::span(magic)))) return bad("this is no snapshot");
  if (const auto given = in.number<std::uint32_t>(); in.good() and given != version)
    return bad("the snapshot is of version " + std::to_string(given) + ", where this build reads version " +
               std::to_string(version));
  SnapshotHeader h;
  h.dtype = static_cast<DType>(in.number_in<std::uint8_t>(0, 2));
  h.layout = static_cast<StateLayout>(in.number_in<std::uint8_t>(0, 1));
  h.zero_state = in.number_in<std::uint8_t>(0, 1) == 1;
  const auto planes = in.number_in<std::uint8_t>(1, most_planes);
  h.layers = in.number_in<std::int64_t>(1, INT32_MAX);
  h.kv_heads = KvHeads(in.number_in<std::int64_t>(1, INT32_MAX));
  h.k = KeyDim(in.number_in<std::int64_t>(1, INT32_MAX));
  h.v = ValueDim(in.number_in<std::int64_t>(1, INT32_MAX));
  h.position = Tokens(in.number_in<std::int64_t>(0, INT64_MAX));
  for (int i = 0; i < planes and in.good(); ++i) h.planes.push_back(in.number_in<std::int64_t>(1, most_bytes));
  if (not in.good()) return bad("the snapshot's header is cut short or has a number out of range");
  ByteReader end(bytes.subspan(std::min(bytes.size(), summed_size)));
  h.checksum = end.number<std::uint64_t>();
  if (not end.good() or h.checksum != XXH3_64bits(bytes.data(), summed_size))
    return bad("the snapshot is altered or cut short: its header does not match its checksum");
  return h;
}

Result<SnapshotHeader> check_snapshot(std::span<const std::byte> bytes) {
  auto header = decode_snapshot_header(bytes);
  if (not header) return header;
  if (auto whole = check_size(*header, bytes.size()); not whole) return std::unexpected(std::move(whole).error());
  std::vector<std::uint64_t> sums;
  for (const Block& block : blocks_of(*header))
    sums.push_back(sum_of(bytes.subspan(header_size + block.at, block.size), sums.size()));
  ByteReader trailer(bytes.last(checksum_size));
  if (trailer.number<std::uint64_t>() != sum_of(sums, *header)) return bad(altered);
  return header;
}

Result<std::size_t> snapshot_bytes(StatePool& pool, Sequence sequence) {
  const auto pin = Pin::take(pool, sequence);
  if (not pin) return std::unexpected(pin.error());
  return header_of(pool, **pin).total_bytes();
}

Result<std::size_t> save_snapshot(StatePool& pool, Sequence sequence, std::span<std::byte> buffer) {
  const auto pin = Pin::take(pool, sequence);
  if (not pin) return std::unexpected(pin.error());
  const SnapshotHeader header = header_of(pool, **pin);
  if (buffer.size() < header.total_bytes())
    return fail(Status::invalid_argument, "the buffer has " + std::to_string(buffer.size()) +
                                              " bytes; the snapshot takes " + std::to_string(header.total_bytes()));
  std::byte* to = buffer.data();
  const auto emitted = emit(pool, **pin, [&](std::span<const std::byte> part) -> Result<void> {
    to = std::ranges::copy(part, to).out;
    return {};
  });
  if (not emitted) return std::unexpected(emitted.error());  // the device's copy
  return header.total_bytes();
}

Result<Sequence> restore_snapshot(StatePool& pool, std::span<const std::byte> bytes) {
  const auto header = decode_snapshot_header(bytes);
  if (not header) return std::unexpected(header.error());
  if (auto whole = check_size(*header, bytes.size()); not whole) return std::unexpected(std::move(whole).error());
  return absorb(pool, *header, [&](std::span<std::byte> part, std::size_t at) -> Result<void> {
    std::ranges::copy(bytes.subspan(header_size + at, part.size()), part.begin());
    return {};
  });
}

Result<void> write_snapshot(StatePool& pool, Sequence sequence, const std::filesystem::path& path) {
  const auto pin = Pin::take(pool, sequence);
  if (not pin) return std::unexpected(pin.error());
  const auto target = follow_links(path);
  if (not target) return std::unexpected(target.error());
  auto file = Replacement::unguarded(*target);
  if (not file) return std::unexpected(std::move(file).error());
  std::size_t end = 0, flushing = 0;
  const auto put = [&](std::span<const std::byte> part) -> Result<void> {
    if (auto written = file->write(part); not written) return written;
    end += part.size();
    // The disk starts at once, so that the flush at the end finds most of it done.
    constexpr std::size_t most_behind = 64 * block_size;
    if (end - flushing >= most_behind) {
      sync_file_range(file->descriptor(), static_cast<off_t>(flushing), static_cast<off_t>(end - flushing),
                      SYNC_FILE_RANGE_WRITE);
      flushing = end;
    }
    return {};
  };
  if (auto done = emit(pool, **pin, put); not done) return done;
  return file->place();
}

Result<Sequence> read_snapshot(StatePool& pool, const std::filesystem::path& path) {
  const auto trusted = TrustedFile::open(path, snapshot_file);
  if (not trusted) return std::unexpected(trusted.error());
  // Read, not mapped: a file that another process cuts short is an error here, where a mapping would raise SIGBUS.
  const auto get = [&](std::span<std::byte> part, off_t at) -> Result<std::size_t> {
    std::size_t done = 0;
    while (done < part.size()) {
      const ssize_t n =
          pread(trusted->file.get(), part.data() + done, part.size() - done, at + static_cast<off_t>(done));
      if (n < 0 and errno == EINTR) continue;
      if (n < 0) return io_failure("cannot read", path, errno);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  };
  const auto named = [&](Error error) -> std::unexpected<Error> {
    return fail(error.status, path.string() + ": " + error.message);
  };

  std::byte head[header_size];
  const auto got = get(head, 0);
  if (not got) return std::unexpected(got.error());
  const auto header = decode_snapshot_header(std::span(head).first(*got));
  if (not header) return named(header.error());
  if (auto whole = check_size(*header, trusted->size); not whole) return named(std::move(whole).error());
  posix_fadvise(trusted->file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  auto sequence = absorb(pool, *header, [&](std::span<std::byte> part, std::size_t at) -> Result<void> {
    const auto n = get(part, static_cast<off_t>(header_size + at));
    if (not n) return std::unexpected(n.error());
    if (*n < part.size()) return bad("the snapshot was cut short while it was read");
    return {};
  });
  if (not sequence and sequence.error().status != Status::io_error) return named(sequence.error());
  return sequence;
}

}  // namespace glaive
