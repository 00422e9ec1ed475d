#include "runtime/snapshot.hpp"

#include <limits>

#include "tests/runtime/states_support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {
std::vector<std::byte> saved(StatePool& pool, Sequence sequence) {
  std::vector<std::byte> bytes(*snapshot_bytes(pool, sequence));
  const auto written = save_snapshot(pool, sequence, bytes);
  REQUIRE(written.has_value());
  REQUIRE(*written == bytes.size());
  return bytes;
}
}  // namespace

TEST_CASE("snapshot: memory and file, states and planes, into a pool of another size") {
  const auto pool = make(), other = make(small(1));
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  const auto bytes = saved(*pool, a);
  CHECK(check_snapshot(bytes).has_value());
  const auto back = restore_snapshot(*other, bytes);
  REQUIRE(back.has_value());
  CHECK(position(*other, *back) == 9);
  CHECK(value_of(*other, *back, 0) == 7);
  CHECK(value_of(*other, *back, 1) == 7);
  REQUIRE(other->release(*back).has_value());

  Folder folder;
  REQUIRE(write_snapshot(*pool, a, folder / "s").has_value());
  REQUIRE(write_snapshot(*pool, a, folder / "s").has_value());
  CHECK(folder.names() == std::vector<std::string>{"s"});
  CHECK(read_bytes(folder / "s") == bytes);
  const auto read = read_snapshot(*other, folder / "s");
  REQUIRE(read.has_value());
  CHECK(value_of(*other, *read, 1) == 7);
  refused(read_snapshot(*other, folder / "s"), Status::out_of_slots, "slots");
}

TEST_CASE("snapshot: of a zero state") {
  const auto pool = make();
  const Sequence a = *pool->acquire();
  const auto bytes = saved(*pool, a);
  CHECK(bytes.size() == 4096 + 8);
  const auto back = restore_snapshot(*pool, bytes);
  REQUIRE(back.has_value());
  CHECK(*pool->slot(*back) == -1);
  CHECK(position(*pool, *back) == 0);
}

TEST_CASE("snapshot: truncated and altered ones are refused at every byte, and take no slot") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  const auto good = saved(*pool, a);
  const auto used = pool->statistics();
  Folder folder;
  for (std::size_t i = 0; i < good.size(); ++i) {
    INFO("byte " << i);
    const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i));  // its own memory
    const auto from_cut = restore_snapshot(*pool, cut);
    REQUIRE_FALSE(from_cut.has_value());
    CHECK(from_cut.error().status == Status::bad_snapshot);
    auto altered = good;
    altered[i] ^= std::byte{0x10};
    const auto from_altered = restore_snapshot(*pool, altered);
    REQUIRE_FALSE(from_altered.has_value());
    CHECK(from_altered.error().status == Status::bad_snapshot);
    CHECK_FALSE(check_snapshot(altered).has_value());
  }
  auto longer = good;
  longer.push_back({});
  refused(restore_snapshot(*pool, longer), Status::bad_snapshot, "by its header it should have");
  CHECK(pool->statistics().used == used.used);
  CHECK(pool->statistics().sequences == used.sequences);
}

TEST_CASE("snapshot: no snapshot, one of another version, and a small buffer") {
  const auto pool = make();
  const Sequence a = *pool->acquire();
  auto bytes = saved(*pool, a);
  refused(save_snapshot(*pool, a, std::span(bytes).first(bytes.size() - 1)), Status::invalid_argument,
          "the buffer has");
  const std::string text = "a text of some length that is no snapshot";
  refused(restore_snapshot(*pool, std::as_bytes(std::span(text))), Status::bad_snapshot, "no snapshot");
  refused(restore_snapshot(*pool, {}), Status::bad_snapshot, "no snapshot");
  bytes[8] = std::byte{1};
  refused(restore_snapshot(*pool, bytes), Status::bad_snapshot, "version 1, where this build reads version 2");
}

TEST_CASE("snapshot: of another shape") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  const auto bytes = saved(*pool, a);
  void (*const changes[])(PoolConfig&) = {
      [](PoolConfig& c) { c.layers = 1; },
      [](PoolConfig& c) { c.kv_heads = KvHeads(4), c.layers = 1; },
      [](PoolConfig& c) { c.k = KeyDim(4), c.v = ValueDim(8); },
      [](PoolConfig& c) { c.dtype = DType::bf16, c.k = KeyDim(16); },
      [](PoolConfig& c) { c.layout = StateLayout::vk; },
      [](PoolConfig& c) { c.planes = {41}; },
      [](PoolConfig& c) { c.planes = {}; },
      [](PoolConfig& c) { c.planes = {40, 1}; },
  };
  for (const auto change : changes) {
    PoolConfig config = small();
    change(config);
    const auto other = make(config);
    refused(restore_snapshot(*other, bytes), Status::foreign, "the snapshot is of 2 layers of Hkv2 K8 V4 f32");
    CHECK(other->statistics().sequences == 0);
  }
}

TEST_CASE("snapshot: files that are missing, cut short, altered, no files, or others' to write") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  Folder folder;
  const auto path = folder / "s";
  REQUIRE(write_snapshot(*pool, a, path).has_value());
  const auto good = read_bytes(path);
  refused(read_snapshot(*pool, folder / "none"), Status::not_found, "none");
  refused(read_snapshot(*pool, folder.path()), Status::bad_snapshot, "not a regular file");
  write_bytes(folder / "cut", std::span(good).first(good.size() - 1));
  refused(read_snapshot(*pool, folder / "cut"), Status::bad_snapshot, "cut: the snapshot has");
  write_bytes(folder / "empty", {});
  refused(read_snapshot(*pool, folder / "empty"), Status::bad_snapshot, "no snapshot");
  auto altered = good;
  altered[good.size() - 100] ^= std::byte{1};
  write_bytes(folder / "altered", altered);
  refused(read_snapshot(*pool, folder / "altered"), Status::bad_snapshot, "do not match their checksum");
  fs::permissions(path, fs::perms::others_write, fs::perm_options::add);
  refused(read_snapshot(*pool, path), Status::untrusted, "can be written by others");
  refused(write_snapshot(*pool, a, folder / "none/s"), Status::io_error, "cannot make");
  CHECK(pool->statistics().sequences == 1);
}

TEST_CASE("snapshot: a sequence may go on while it is saved") {
  const auto pool = make();
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(1)}}, 1);
  const auto pinned = *pool->pin(a);
  step(*pool, *batch, {{a, Tokens(1)}}, 2);
  CHECK(*pool->slot(a) != pinned.slot);
  CHECK(static_cast<int>(*pool->at(0, pinned.slot)) == 1);
  CHECK(pool->statistics().used == 2);
  pool->unpin(pinned);
  CHECK(pool->statistics().used == 1);
}

TEST_CASE("snapshot: written where a symbolic link leads") {
  const auto pool = make();
  const Sequence a = *pool->acquire();
  Folder folder;
  fs::create_directory(folder / "store");
  fs::create_symlink("store/s", folder / "link");
  REQUIRE(write_snapshot(*pool, a, folder / "link").has_value());
  REQUIRE(write_snapshot(*pool, a, folder / "link").has_value());
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_bytes(folder / "store/s") == saved(*pool, a));
  CHECK(read_snapshot(*pool, folder / "link").has_value());
  refused(write_snapshot(*pool, a, ""), Status::not_found, "cannot put in place");  // as the header says
}

TEST_CASE("snapshot: of many blocks, read by two threads") {
  PoolConfig config = small(2);
  config.planes = {std::int64_t{10} << 20, 40};
  const auto pool = make(config);
  const auto batch = make_batch(pool);
  const Sequence a = *pool->acquire();
  step(*pool, *batch, {{a, Tokens(9)}}, 7);
  std::byte* const plane = pool->at(1, *pool->slot(a));
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.planes[0]); i += 1000)
    plane[i] = static_cast<std::byte>(i / 1000);
  Folder folder;
  REQUIRE(write_snapshot(*pool, a, folder / "s").has_value());
  const auto good = read_bytes(folder / "s");
  CHECK(saved(*pool, a) == good);
  CHECK(check_snapshot(good).has_value());
  const Sequence back = read_snapshot(*pool, folder / "s").value();
  CHECK(saved(*pool, back) == good);
  REQUIRE(pool->release(back).has_value());

  constexpr std::size_t page = 4096, block = std::size_t{1} << 18;
  for (const std::size_t at : {page, page + 17 * block + 5, good.size() - 9}) {
    auto altered = good;
    altered[at] ^= std::byte{1};
    write_bytes(folder / "altered", altered);
    refused(read_snapshot(*pool, folder / "altered"), Status::bad_snapshot, "do not match their checksum");
  }
  auto swapped = good;
  std::swap_ranges(swapped.begin() + page + 3 * block, swapped.begin() + page + 4 * block,
                   swapped.begin() + page + 9 * block);
  REQUIRE(swapped != good);
  refused(restore_snapshot(*pool, swapped), Status::bad_snapshot, "do not match their checksum");
  CHECK_FALSE(check_snapshot(swapped).has_value());
  CHECK(pool->statistics().used == 1);
}
