// Writes the packs of the consumers, each with a kernel of its own, both named `forward`.
#include "tests/runtime/support.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("packs") {
  fs::create_directories(PACKS);
  PackEntry entry = kernel_entry();
  fs::remove(PACKS "/8.pack");
  REQUIRE(add_to_pack(PACKS "/8.pack", {&entry, 1}).has_value());

  entry.key.problem = "forward H4 Hkv2 K16 V16 f32";
  entry.plan.variant = "test(C=1,wide)";
  entry.plan.stages[0].scratch_bytes = 16 * 16 * 4;
  entry.code = {kernel_object(TEST_KERNEL_WIDE)};
  fs::remove(PACKS "/16.pack");
  REQUIRE(add_to_pack(PACKS "/16.pack", {&entry, 1}).has_value());
}
