#include "runtime/pack.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/bytes.hpp"
#include "runtime/files.hpp"

// The file: a header of 64 bytes, the index, then the entries' blobs, each where its index record says.
//   header   magic[8], u32 version, u32 entries, u64 index bytes, u64 file bytes, u64 index checksum, zeros, u64 header
//   checksum index    per entry: key (texts, bucket, space, schema), u64 offset, u64 bytes, u64 checksum blob     plan,
//   code objects, evidence

namespace glaive {
namespace {

constexpr char magic[8] = {'g', 'l', 'a', 'i', 'v', 'e', '\n', '\x1a'};
constexpr std::uint32_t pack_version = 1;
constexpr std::size_t header_bytes = 64;
constexpr std::uint32_t most_code_objects = 256;

constexpr std::int32_t work_edges[] = {1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096};
constexpr std::int32_t token_edges[] = {0, 2, 16, 64, 256, 1024, 4096, 16384, 65536};
static_assert(std::size(work_edges) == work_buckets and std::size(token_edges) == token_buckets);

std::uint64_t checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

/// Without a branch and in 32 bits, of which a vector compares several at once: this is on the path of a launch.
template <std::size_t N>
std::uint8_t range_of(std::int64_t value, const std::int32_t (&edges)[N]) {
  const auto clamped = static_cast<std::int32_t>(std::min<std::int64_t>(value, INT32_MAX));
  std::int32_t passed = -1;
  for (const std::int32_t edge : edges) passed += clamped >= edge;
  return static_cast<std::uint8_t>(std::max(passed, 0));
}

Range range_at(std::uint8_t index, std::span<const std::int32_t> edges) {
  if (index + std::size_t{1} >= edges.size()) return {edges.back(), -1};
  return {edges[index], edges[index + 1] - 1};
}

std::string range_text(std::uint8_t index, std::span<const std::int32_t> edges) {
  const auto [low, high] = range_at(index, edges);
  if (high < 0) return std::to_string(low) + "..";
  return low == high ? std::to_string(low) : std::to_string(low) + ".." + std::to_string(high);
}

/// Where an entry lies in the file, as its index record says.
struct Record {
  WinnerKey key;
  std::span<const std::byte> blob;
  std::uint64_t checksum = 0;
};

void write_key(ByteWriter& out, const WinnerKey& key) {
  out.text(key.device);
  out.text(key.target);
  out.text(key.problem);
  out.number(key.bucket.work);
  out.number(key.bucket.tokens);
  out.text(key.policy);
  out.number(key.space);
  out.number(key.schema);
}

WinnerKey read_key(ByteReader& in) {
  WinnerKey key;
  key.device = in.text();
  key.target = in.text();
  key.problem = in.text();
  key.bucket.work = in.number_in<std::uint8_t>(0, std::size(work_edges) - 1);
  key.bucket.tokens = in.number_in<std::uint8_t>(0, std::size(token_edges) - 1);
  key.policy = in.text();
  key.space = in.number<std::uint64_t>();
  key.schema = in.number<std::uint32_t>();
  return key;
}

std::vector<std::byte> encode_blob(const PackEntry& entry) {
  ByteWriter out;
  out.blob(encode(entry.plan));
  out.number(static_cast<std::uint32_t>(entry.code.size()));
  for (const CodeObject& code : entry.code) {
    out.number(static_cast<std::uint8_t>(code.format));
    out.text(to_string(code.target));
    out.number(code.text_bytes);
    out.number(code.stack_bytes);
    out.blob(code.bytes);
  }
  out.blob(std::as_bytes(std::span(entry.evidence)));
  return out.take();
}

Result<PackEntry> decode_blob(const WinnerKey& key, std::span<const std::byte> blob, bool with_code = true) {
  ByteReader in(blob);
  PackEntry entry;
  entry.key = key;
  const auto plan_bytes = in.blob();
  const auto objects = in.number_in<std::uint32_t>(0, most_code_objects);
  for (std::uint32_t i = 0; i < objects and in.good(); ++i) {
    CodeObject code;
    code.format = static_cast<CodeObject::Format>(
        in.number_in<std::uint8_t>(0, static_cast<std::uint8_t>(CodeObject::Format::ptx)));
    auto target = parse_target(in.text(256));
    if (not target) {
      in.refuse();
      break;
    }
    code.target = std::move(*target);
    code.text_bytes = in.number<std::int64_t>();
    code.stack_bytes = in.number<std::int64_t>();
    const auto bytes = in.blob();
    if (with_code) code.bytes.assign(bytes.begin(), bytes.end());
    entry.code.push_back(std::move(code));
  }
  const auto evidence = in.blob();
  entry.evidence.assign(reinterpret_cast<const char*>(evidence.data()), evidence.size());
  if (not in.at_end()) return fail(Status::bad_pack, "the entry is cut short or has a number out of range");
  auto plan = decode_plan(plan_bytes, entry.code.size());
  if (not plan) return std::unexpected(std::move(plan).error());
  entry.plan = std::move(*plan);
  return entry;
}

std::vector<std::byte> encode_file(std::span<const Record> records) {
  std::uint64_t index_bytes = 0;
  for (const bool measuring : {true, false}) {
    ByteWriter index;
    std::uint64_t offset = header_bytes + index_bytes;
    for (const Record& record : records) {
      write_key(index, record.key);
      index.number(offset);
      index.number(static_cast<std::uint64_t>(record.blob.size()));
      index.number(record.checksum);
      offset += record.blob.size();
    }
    index_bytes = index.size();
    if (measuring) continue;

    const auto index_text = index.take();
    ByteWriter header;
    header.raw(std::as_bytes(std::span(magic)));
    header.number(pack_version);
    header.number(static_cast<std::uint32_t>(records.size()));
    header.number(index_bytes);
    header.number(offset);
    header.number(checksum(index_text));
    while (header.size() < header_bytes - 8) header.number(std::uint8_t{0});
    auto file = header.take();
    const std::uint64_t sum = checksum(file);
    const auto sum_bytes = std::as_bytes(std::span(&sum, 1));
    file.reserve(offset);
    file.insert(file.end(), sum_bytes.begin(), sum_bytes.end());
    file.insert(file.end(), index_text.begin(), index_text.end());
    for (const Record& record : records) file.insert(file.end(), record.blob.begin(), record.blob.end());
    return file;
  }
  return {};
}

Result<std::vector<Record>> read_index(std::span<const std::byte> file) {
  const auto bad = [](const std::string& why) { return fail(Status::bad_pack, why); };
  if (file.size() < sizeof magic or std::memcmp(file.data(), magic, sizeof magic) != 0)
    return bad("this is no glaive pack");
  ByteReader header(file.subspan(sizeof magic));
  const auto version = header.number<std::uint32_t>();
  if (header.good() and version != pack_version)
    return bad("the pack has format " + std::to_string(version) + ", this build reads format " +
               std::to_string(pack_version) + (version > pack_version ? ": it comes from a newer glaive" : ""));
  const auto entries = header.number<std::uint32_t>();
  const auto index_bytes = header.number<std::uint64_t>();
  const auto file_bytes = header.number<std::uint64_t>();
  const auto index_checksum = header.number<std::uint64_t>();
  if (file.size() < header_bytes) return bad("the pack is cut short inside its header");
  std::uint64_t header_checksum = 0;
  std::memcpy(&header_checksum, file.data() + header_bytes - 8, 8);
  if (header_checksum != checksum(file.first(header_bytes - 8))) return bad("the pack's header is damaged");
  if (file_bytes != file.size())
    return bad("the pack should have " + std::to_string(file_bytes) + " bytes and has " + std::to_string(file.size()));
  if (index_bytes > file.size() - header_bytes) return bad("the pack's index does not fit into the file");
  const auto index = file.subspan(header_bytes, static_cast<std::size_t>(index_bytes));
  if (checksum(index) != index_checksum) return bad("the pack's index is damaged");

  ByteReader in(index);
  std::vector<Record> records;
  for (std::uint32_t i = 0; i < entries and in.good(); ++i) {
    Record record;
    record.key = read_key(in);
    const auto offset = in.number<std::uint64_t>();
    const auto bytes = in.number<std::uint64_t>();
    record.checksum = in.number<std::uint64_t>();
    if (offset > file.size() or bytes > file.size() - offset) return bad("an entry lies outside the pack");
    record.blob = file.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
    if (in.good()) records.push_back(std::move(record));
  }
  if (not in.at_end()) return bad("the pack's index does not hold what its header says");
  return records;
}

/// Where the pack at `path` lies, its folder made. Through a link, the pack it names is replaced, not the link.
Result<std::filesystem::path> make_place(const std::filesystem::path& path) {
  auto file = follow_links(path);
  if (file and file->has_parent_path()) {
    std::error_code error;
    std::filesystem::create_directories(file->parent_path(), error);
    if (error)
      return fail(Status::io_error,
                  io_failure("cannot make the folder", file->parent_path(), error.value()).error().message);
  }
  return file;
}

}  // namespace

Bucket bucket_of(std::int64_t work, std::int64_t tokens) {
  return {range_of(work, work_edges), range_of(tokens, token_edges)};
}

Bucket bucket_of(const Extents& extents) {
  std::int64_t work = 0;
  if (__builtin_mul_overflow(extents[Axis::sequences], extents[Axis::kv_heads], &work)) work = INT64_MAX;
  return bucket_of(work, extents[Axis::longest]);
}

std::string to_string(Bucket bucket) {
  return "work " + range_text(bucket.work, work_edges) + ", tokens " + range_text(bucket.tokens, token_edges);
}

Range work_range(Bucket bucket) { return range_at(bucket.work, work_edges); }
Range token_range(Bucket bucket) { return range_at(bucket.tokens, token_edges); }

int distance(Bucket a, Bucket b) { return std::abs(a.work - b.work) + std::abs(a.tokens - b.tokens); }

std::string to_string(const WinnerKey& key) {
  return "device{" + key.device + "} target{" + key.target + "} problem{" + key.problem + "} bucket{" +
         to_string(key.bucket) + "} policy{" + key.policy + "} space{" + std::to_string(key.space) + "} schema{" +
         std::to_string(key.schema) + "}";
}

struct Pack::Impl {
  MappedFile file;
  std::string name;
  std::vector<Record> records;
};

Pack::Pack(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pack::Pack(Pack&&) noexcept = default;
Pack& Pack::operator=(Pack&&) noexcept = default;
Pack::~Pack() = default;

Result<Pack> Pack::open(const std::filesystem::path& path) {
  auto file = MappedFile::open_trusted(path);
  if (not file) return std::unexpected(std::move(file).error());
  auto records = read_index(file->bytes());
  if (not records) return fail(records.error().status, path.string() + ": " + records.error().message);
  return Pack(std::make_unique<Impl>(std::move(*file), path.string(), std::move(*records)));
}

Result<Pack> Pack::from_memory(std::span<const std::byte> bytes) {
  auto records = read_index(bytes);
  if (not records) return fail(records.error().status, "pack in memory: " + records.error().message);
  return Pack(std::make_unique<Impl>(MappedFile(), "pack in memory", std::move(*records)));
}

std::size_t Pack::size() const { return impl_->records.size(); }
const WinnerKey& Pack::key(std::size_t index) const { return impl_->records[index].key; }

Result<PackEntry> Pack::load(std::size_t index) const { return load(index, true); }
Result<PackEntry> Pack::load_without_code(std::size_t index) const { return load(index, false); }

Result<PackEntry> Pack::load(std::size_t index, bool with_code) const {
  const auto bad = [&](Status status, const std::string& why) {
    return fail(status, impl_->name + ", entry " + std::to_string(index) + ": " + why);
  };
  if (index >= size()) return bad(Status::invalid_argument, "the pack has " + std::to_string(size()) + " entries");
  const Record& record = impl_->records[index];
  if (checksum(record.blob) != record.checksum) return bad(Status::bad_pack, "its checksum does not match: damaged");
  auto entry = decode_blob(record.key, record.blob, with_code);
  if (not entry) return bad(entry.error().status, entry.error().message);
  return entry;
}

std::optional<std::size_t> Pack::find(const WinnerKey& key) const {
  // From the end: of two equal keys, which add_to_pack never leaves, the later one is the newer.
  for (std::size_t i = size(); i-- > 0;)
    if (impl_->records[i].key == key) return i;
  return std::nullopt;
}

std::optional<std::size_t> Pack::nearest(std::string_view device, std::string_view target, std::string_view problem,
                                         Bucket bucket) const {
  std::optional<std::size_t> best;
  const auto rank = [&](std::size_t i) {
    const Bucket has = key(i).bucket;
    return std::tuple(distance(has, bucket), has.tokens, has.work);
  };
  for (std::size_t i = size(); i-- > 0;) {
    const WinnerKey& has = key(i);
    if (has.device != device or has.target != target or has.problem != problem) continue;
    if (not best or rank(i) < rank(*best)) best = i;
  }
  return best;
}

std::vector<std::byte> encode_pack(std::span<const PackEntry> entries) {
  std::vector<std::vector<std::byte>> blobs;
  std::vector<Record> records;
  for (const PackEntry& entry : entries) blobs.push_back(encode_blob(entry));
  for (std::size_t i = 0; i < entries.size(); ++i) records.push_back({entries[i].key, blobs[i], checksum(blobs[i])});
  return encode_file(records);
}

Result<void> check_addable(const std::filesystem::path& path) {
  const auto place = make_place(path);
  if (not place) return std::unexpected(place.error());
  return check_replaceable(*place);
}

Result<void> add_to_pack(const std::filesystem::path& path, std::span<const PackEntry> entries) {
  std::vector<std::vector<std::byte>> blobs;
  for (const PackEntry& entry : entries) {
    blobs.push_back(encode_blob(entry));
    if (const auto readable = decode_blob(entry.key, blobs.back()); not readable)
      return fail(Status::invalid_argument,
                  "the entry for " + to_string(entry.key) + " cannot be packed: " + readable.error().message);
  }

  const auto place = make_place(path);
  if (not place) return std::unexpected(place.error());
  const auto& file = *place;
  auto lock = FileLock::take(file.string() + ".lock");
  if (not lock) return std::unexpected(std::move(lock).error());

  std::optional<Pack> old;
  if (auto opened = Pack::open(file)) {
    old = std::move(*opened);
  } else if (opened.error().status != Status::not_found) {
    return std::unexpected(std::move(opened).error());
  }
  std::vector<Record> records;
  if (old) {
    // A damaged entry is carried along as it is: it stays a miss with a message until it is tuned again.
    for (const Record& record : old->impl_->records) {
      const auto is_replaced = [&](const PackEntry& entry) { return entry.key == record.key; };
      if (std::ranges::none_of(entries, is_replaced)) records.push_back(record);
    }
  }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto is_repeated = [&](const PackEntry& later) { return later.key == entries[i].key; };
    if (std::ranges::none_of(entries.subspan(i + 1), is_repeated))
      records.push_back({entries[i].key, blobs[i], checksum(blobs[i])});
  }
  return replace_file(file, encode_file(records));
}

}  // namespace glaive
