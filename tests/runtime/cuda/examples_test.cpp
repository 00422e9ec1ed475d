// The examples on a GPU, with the stub in place of libcuda.
#include "tests/runtime/examples.hpp"

#include "tests/runtime/cuda/support.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("examples: on a GPU, a captured graph among them, all equals each sequence alone") {
  const Folder folder;
  PackEntry entries[] = {gpu_entry(), gpu_entry()};
  entries[1].key.problem = "step H4 Hkv2 K8 V8 f32";
  REQUIRE(add_to_pack(folder / "p.pack", entries).has_value());
  const std::string stub = "GLAIVE_LIBCUDA= LD_LIBRARY_PATH='" STUB_WITH_KERNEL "' ";
  const Output first = run_command(stub + EXAMPLES "/01_first_call " + (folder / "p.pack").string() + " '" +
                                   kernel_problem + "' cuda:0");
  INFO(first.text);
  CHECK(first.exit == 0);
  CHECK(contains(first.text, "norm of o: "));
  CHECK_FALSE(contains(first.text, "nan"));
  examples_agree({"02_prefill_then_decode", "03_continuous_batching", "04_speculation", "05_beams", "06_prefix_cache",
                  "07_cuda_graph"},
                 folder / "p.pack", kernel_problem, "cuda:0", stub);
}
