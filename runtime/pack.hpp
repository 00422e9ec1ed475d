#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/plan.hpp"
#include "runtime/problem.hpp"
#include "runtime/target.hpp"

namespace glaive {

/// Compiled code with what the compiler found in the binary.
struct CodeObject {
  enum class Format : std::uint8_t { shared_object, cubin, ptx };
  Format format = Format::shared_object;
  Target target;
  std::vector<std::byte> bytes;
  std::int64_t text_bytes = 0;   ///< machine code
  std::int64_t stack_bytes = 0;  ///< deepest stack frame of an entry, spills included
};

/// Ranges of shapes that share a winner: by work (sequences x kv heads) and by tokens of the longest sequence.
/// Lower edges: work 1 2 4 8 16 32 64 96 128 192 256 512 1024 2048 4096; tokens 0 2 16 64 256 1024 4096 16384 65536.
struct Bucket {
  std::uint8_t work = 0;
  std::uint8_t tokens = 0;
  friend bool operator==(Bucket, Bucket) = default;
};
inline constexpr std::size_t work_buckets = 15, token_buckets = 9, bucket_count = work_buckets * token_buckets;
constexpr std::size_t index_of(Bucket bucket) { return bucket.work * token_buckets + bucket.tokens; }
constexpr Bucket bucket_at(std::size_t index) {
  return {static_cast<std::uint8_t>(index / token_buckets), static_cast<std::uint8_t>(index % token_buckets)};
}
/// work = sequences x kv heads, tokens = those of the longest sequence.
Bucket bucket_of(std::int64_t work, std::int64_t tokens);
Bucket bucket_of(const Extents& extents);
std::string to_string(Bucket bucket);  ///< `work 4..7, tokens 1024..4095`
int distance(Bucket a, Bucket b);      ///< steps along both axes; 0 = same
struct Range {
  std::int64_t low = 0, high = 0;  ///< both within; high -1 = no end
};
Range work_range(Bucket bucket);
Range token_range(Bucket bucket);

/// What a winner was chosen for. Two keys are equal exactly when one winner can stand for the other.
struct WinnerKey {
  std::string device;  ///< identity(DeviceInfo)
  std::string target;
  std::string problem;  ///< to_string(Problem)
  Bucket bucket;
  std::string policy;        ///< measurement policy, e.g. `v1 effort=normal threads=2`
  std::uint64_t space = 0;   ///< hash of the families' parameter spaces
  std::uint32_t schema = 1;  ///< of plans and packs
  friend bool operator==(const WinnerKey&, const WinnerKey&) = default;
};
std::string to_string(const WinnerKey& key);  ///< one line holding every field

struct PackEntry {
  WinnerKey key;
  Plan plan;
  std::vector<CodeObject> code;
  std::string evidence;  ///< JSON text of the tuner: times, intervals, errors, default; fit.hpp reads some of it
};

/// An opened pack: a read-only view of one file or memory block. Opening reads the index only; an entry's checksum is
/// verified when the entry is loaded. A file that is not owned by the caller or root, or that others can write to, is
/// refused: packs are native code.
class Pack {
 public:
  static Result<Pack> open(const std::filesystem::path& file);
  static Result<Pack> from_memory(std::span<const std::byte> bytes);  ///< `bytes` must outlive the pack
  Pack(Pack&&) noexcept;
  Pack& operator=(Pack&&) noexcept;
  ~Pack();

  std::size_t size() const;
  const WinnerKey& key(std::size_t index) const;
  Result<PackEntry> load(std::size_t index) const;
  /// The same, its code objects without their bytes: for who wants to know about an entry, not to run it.
  Result<PackEntry> load_without_code(std::size_t index) const;

  std::optional<std::size_t> find(const WinnerKey& key) const;  ///< every field equal
  /// The entry for this device identity, target and problem whose bucket is nearest; none if there is no such problem.
  std::optional<std::size_t> nearest(std::string_view device, std::string_view target, std::string_view problem,
                                     Bucket bucket) const;

 private:
  struct Impl;
  explicit Pack(std::unique_ptr<Impl> impl);
  Result<PackEntry> load(std::size_t index, bool with_code) const;
  friend Result<void> add_to_pack(const std::filesystem::path& file, std::span<const PackEntry> entries);
  std::unique_ptr<Impl> impl_;
};

/// The bytes of a pack holding `entries`.
std::vector<std::byte> encode_pack(std::span<const PackEntry> entries);

/// Adds `entries` to the pack at `file` (created if absent), replacing those of equal keys and keeping all others.
/// Safe against concurrent writers (a lock file beside it) and crashes (temporary file, fsync, rename). On any error
/// the old pack is untouched. An existing file that is not a readable pack is an error, not overwritten. New entries
/// come after those that are kept, in the order given; an entry that no runtime could load is refused as
/// invalid_argument. Through a symbolic link, even to a file that is yet to be, the pack it names is written.
Result<void> add_to_pack(const std::filesystem::path& file, std::span<const PackEntry> entries);

/// Makes the folder of the pack at `file` and finds out whether a pack can be put there, before the work of making one.
Result<void> check_addable(const std::filesystem::path& file);

}  // namespace glaive
