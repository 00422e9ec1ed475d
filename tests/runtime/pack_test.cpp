#include "runtime/pack.hpp"

#include <cstring>

#include "runtime/dispatch.hpp"
#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

std::vector<std::byte> three_entries() {
  const PackEntry entries[] = {small_entry(1), small_entry(2), small_entry(3)};
  return encode_pack(entries);
}

bool same(const PackEntry& a, const PackEntry& b) {
  return a.key == b.key and a.plan == b.plan and a.evidence == b.evidence and a.code.size() == b.code.size() and
         std::equal(a.code.begin(), a.code.end(), b.code.begin(), [](const CodeObject& x, const CodeObject& y) {
           return x.format == y.format and x.target == y.target and x.bytes == y.bytes and
                  x.text_bytes == y.text_bytes and x.stack_bytes == y.stack_bytes;
         });
}

}  // namespace

TEST_CASE("an entry comes out of a pack as it went in") {
  PackEntry entry = small_entry(7);
  entry.code[0].format = CodeObject::Format::cubin;
  entry.code[0].target = *parse_target("cuda:sm_90a");
  entry.code[0].text_bytes = 1234;
  entry.code[0].stack_bytes = 56;
  entry.code.push_back({});
  entry.code[1].target = base_target();
  entry.evidence = std::string("text with\nlines and a \0 byte", 28);
  const auto bytes = encode_pack({&entry, 1});
  const auto pack = Pack::from_memory(bytes);
  REQUIRE(pack.has_value());
  REQUIRE(pack->size() == 1);
  CHECK(pack->key(0) == entry.key);
  const auto loaded = pack->load(0);
  REQUIRE(loaded.has_value());
  CHECK(same(*loaded, entry));
}

TEST_CASE("an empty pack is a pack") {
  const auto bytes = encode_pack({});
  const auto pack = Pack::from_memory(bytes);
  REQUIRE(pack.has_value());
  CHECK(pack->size() == 0);
  CHECK_FALSE(pack->find(kernel_key()).has_value());
  CHECK(pack->load(0).error().status == Status::invalid_argument);
}

TEST_CASE("every field changes a winner's key, its text, and what find gives") {
  const WinnerKey base = kernel_key();
  CHECK(to_string(base) ==
        "device{" + base.device + "} target{" + base.target +
            "} problem{forward H4 Hkv2 K8 V8 f32} bucket{work 4..7, tokens 2..15} policy{v1 effort=normal} "
            "space{17} schema{1}");
  PackEntry entry = small_entry(0);
  entry.key = base;
  const auto bytes = encode_pack({&entry, 1});
  const auto pack = Pack::from_memory(bytes);
  REQUIRE(pack.has_value());
  CHECK(pack->find(base) == 0u);
  const auto differs = [&](auto&& change) {
    WinnerKey other = base;
    change(other);
    return not(other == base) and to_string(other) != to_string(base) and not pack->find(other);
  };
  CHECK(differs([](WinnerKey& k) { k.device += "x"; }));
  CHECK(differs([](WinnerKey& k) { k.target += "x"; }));
  CHECK(differs([](WinnerKey& k) { k.problem += "x"; }));
  CHECK(differs([](WinnerKey& k) { k.bucket.work += 1; }));
  CHECK(differs([](WinnerKey& k) { k.bucket.tokens += 1; }));
  CHECK(differs([](WinnerKey& k) { k.policy += "x"; }));
  CHECK(differs([](WinnerKey& k) { k.space += 1; }));
  CHECK(differs([](WinnerKey& k) { k.schema += 1; }));
}

TEST_CASE("buckets have the stated edges") {
  const auto bucket = [](std::int64_t sequences, std::int64_t kv_heads, std::int64_t longest) {
    Extents e;
    e[Axis::sequences] = sequences;
    e[Axis::kv_heads] = kv_heads;
    e[Axis::longest] = longest;
    return bucket_of(e);
  };
  CHECK(bucket(1, 1, 0) == Bucket{0, 0});
  CHECK(bucket(1, 1, 1) == Bucket{0, 0});
  CHECK(bucket(1, 2, 2) == Bucket{1, 1});
  CHECK(bucket(1, 3, 15) == Bucket{1, 1});
  CHECK(bucket(2, 2, 16) == Bucket{2, 2});
  CHECK(bucket(95, 1, 63) == Bucket{6, 2});
  CHECK(bucket(96, 1, 64) == Bucket{7, 3});
  CHECK(bucket(4, 64, 1024) == Bucket{10, 5});
  CHECK(bucket(4095, 1, 65535) == Bucket{13, 7});
  CHECK(bucket(4096, 64, 1 << 30) == Bucket{14, 8});
  CHECK(bucket(INT64_MAX, INT64_MAX, INT64_MAX) == Bucket{14, 8});
  CHECK(to_string(Bucket{2, 5}) == "work 4..7, tokens 1024..4095");
  CHECK(to_string(Bucket{0, 0}) == "work 1, tokens 0..1");
  CHECK(to_string(Bucket{14, 8}) == "work 4096.., tokens 65536..");
  CHECK(distance({2, 5}, {4, 4}) == 3);
  CHECK(distance({2, 5}, {2, 5}) == 0);
}

TEST_CASE("nearest takes the closest bucket of the same device, target and problem") {
  std::vector<PackEntry> entries;
  const auto add = [&](Bucket bucket, const char* device, const char* problem) {
    entries.push_back(small_entry(static_cast<int>(entries.size())));
    entries.back().key.bucket = bucket;
    entries.back().key.device = device;
    entries.back().key.target = "t";
    entries.back().key.problem = problem;
  };
  add({2, 2}, "a", "p");
  add({8, 8}, "a", "p");
  add({5, 5}, "b", "p");
  add({5, 5}, "a", "other");
  const auto bytes = encode_pack(entries);
  const auto pack = Pack::from_memory(bytes);
  REQUIRE(pack.has_value());
  CHECK(pack->nearest("a", "t", "p", {2, 2}) == 0u);
  CHECK(pack->nearest("a", "t", "p", {6, 6}) == 1u);
  CHECK(pack->nearest("a", "t", "p", {4, 4}) == 0u);
  CHECK(pack->nearest("b", "t", "p", {0, 0}) == 2u);
  CHECK_FALSE(pack->nearest("c", "t", "p", {5, 5}).has_value());
  CHECK_FALSE(pack->nearest("a", "u", "p", {5, 5}).has_value());
  CHECK_FALSE(pack->nearest("a", "t", "q", {5, 5}).has_value());
}

TEST_CASE("a foreign, a newer and a truncated pack are told apart") {
  auto bytes = three_entries();
  const std::string text = "#!/bin/sh\nexit 0\n";
  CHECK(contains(Pack::from_memory(std::as_bytes(std::span(text))).error().message, "no glaive pack"));
  CHECK(contains(Pack::from_memory({}).error().message, "no glaive pack"));
  auto newer = bytes;
  newer[8] = std::byte{2};
  CHECK(contains(Pack::from_memory(newer).error().message, "newer glaive"));
  CHECK(Pack::from_memory(newer).error().status == Status::bad_pack);
  bytes.pop_back();
  CHECK(contains(Pack::from_memory(bytes).error().message, "should have"));
  bytes.resize(40);
  CHECK(contains(Pack::from_memory(bytes).error().message, "cut short"));
}

TEST_CASE("a pack cut short anywhere is refused") {
  const auto bytes = three_entries();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> head(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto pack = Pack::from_memory(head);
    REQUIRE_FALSE(pack.has_value());
    REQUIRE(pack.error().status == Status::bad_pack);
  }
}

TEST_CASE("any flipped byte is noticed, and costs only the entry it is in") {
  const auto good = three_entries();
  std::mt19937 random(8);
  int opened = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    auto bytes = good;
    bytes[i] ^= static_cast<std::byte>(1 << random() % 8);
    const auto pack = Pack::from_memory(bytes);
    if (not pack) {
      REQUIRE(pack.error().status == Status::bad_pack);
      continue;
    }
    ++opened;
    REQUIRE(pack->size() == 3);
    int damaged = 0;
    for (std::size_t e = 0; e < 3; ++e) {
      const auto entry = pack->load(e);
      if (entry) continue;
      ++damaged;
      REQUIRE(entry.error().status == Status::bad_pack);
      REQUIRE(contains(entry.error().message, "entry " + std::to_string(e)));
    }
    REQUIRE(damaged == 1);
  }
  CHECK(opened > 300);  // flips behind the index
}

TEST_CASE("an entry with a right checksum and wrong contents is a miss, not a crash") {
  // The same file made by a program that checksums rubbish: packs are encoded with fields out of range.
  PackEntry entry = small_entry(1);
  const auto refused = [&](auto&& change) {
    PackEntry bad = entry;
    change(bad);
    const auto bytes = encode_pack({&bad, 1});
    const auto pack = Pack::from_memory(bytes);
    return not pack or (not pack->load(0) and pack->load(0).error().status == Status::bad_pack);
  };
  CHECK_FALSE(refused([](PackEntry&) {}));
  CHECK(refused([](PackEntry& e) { e.code.clear(); }));
  CHECK(refused([](PackEntry& e) { e.code[0].format = static_cast<CodeObject::Format>(9); }));
  CHECK(refused([](PackEntry& e) { e.code[0].target.arch = "x86-64-v1"; }));
  CHECK(refused([](PackEntry& e) { e.plan.stages[0].code = 1; }));
  CHECK(refused([](PackEntry& e) { e.key.bucket.work = 15; }));
  CHECK(refused([](PackEntry& e) { e.key.bucket.tokens = 9; }));
}

TEST_CASE("opening reads the index only: damage further back shows when the entry is loaded") {
  Folder folder;
  auto bytes = three_entries();
  bytes.back() ^= std::byte{1};
  write_bytes(folder / "p.pack", bytes);
  const auto pack = Pack::open(folder / "p.pack");
  REQUIRE(pack.has_value());
  CHECK(pack->load(0).has_value());
  CHECK(contains(pack->load(2).error().message, "p.pack, entry 2: its checksum"));
}

TEST_CASE("a pack can be moved") {
  const auto bytes = three_entries();
  Pack a = *Pack::from_memory(bytes);
  Pack b = std::move(a);
  a = std::move(b);
  CHECK(a.size() == 3);
}

TEST_CASE("candidates are ranked by match, threads and distance") {
  const DeviceInfo here = host_cpu_device();
  const Problem problem = *parse_problem(kernel_problem);
  std::vector<PackEntry> entries;
  const auto add = [&](Bucket bucket, const std::string& device, const char* target, const char* policy) {
    entries.push_back(small_entry(static_cast<int>(entries.size())));
    entries.back().key.bucket = bucket;
    entries.back().key.device = device;
    entries.back().key.target = target;
    entries.back().key.policy = policy;
  };
  const std::string me = identity(here), target = to_string(here.target);
  add({1, 1}, "elsewhere", "cpu:x86-64-v2", "v1 threads=2");      // 0: other device
  add({4, 4}, me, target.c_str(), "v1 threads=2");                // 1: nearest by bucket
  add({1, 1}, me, target.c_str(), "v1 effort=normal threads=2");  // 2: exact
  add({1, 1}, me, target.c_str(), "v1 threads=1 effort=normal");  // 3: other number of threads
  add({1, 1}, "elsewhere", "cuda:sm_90a", "v1");                  // 4: does not run here
  add({1, 1}, "elsewhere", "rubbish", "v1");                      // 5: nor that
  add({2, 1}, me, target.c_str(), "v1 threads=2");                // 6: nearer
  const auto bytes = encode_pack(entries);
  const auto pack = Pack::from_memory(bytes);
  REQUIRE(pack.has_value());
  const auto found = candidates(*pack, here, 2, problem, {1, 1});
  std::vector<std::size_t> order;
  for (const Candidate& c : found) order.push_back(c.index);
  CHECK(order == std::vector<std::size_t>{2, 6, 1, 3, 0});
  CHECK(found[0].match == Match::exact);
  CHECK(found[1].match == Match::nearest);
  CHECK(found[3].match == Match::nearest);
  CHECK(found[4].match == Match::other_device);
  CHECK(candidates(*pack, here, 1, problem, {1, 1})[0].index == 3);
  CHECK(candidates(*pack, here, 2, *parse_problem("H1 K8 V8"), {1, 1}).empty());
}
