#include <random>

#include "compiler/cuda.hpp"
#include "tests/files.hpp"

using namespace glaive;
using namespace glaive::testing;

// The cubins are kernels.hpp as NVRTC 13.0 compiles it.

namespace {

std::vector<std::byte> cubin(const std::string& arch) { return read_bytes(GLAIVE_CUBINS "/" + arch + ".cubin"); }

/// A copy that ends where its memory does, so that a sanitizer sees a read past it.
Result<std::vector<KernelFacts>> facts_of_copy(std::span<const std::byte> bytes) {
  const auto copy = std::make_unique<std::byte[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  return cubin_facts({copy.get(), bytes.size()});
}

}  // namespace

TEST_CASE("facts of known cubins") {
  struct Row {
    const char *arch, *entry;
    KernelFacts facts;
  };
  for (const char* arch : {"sm_80", "sm_90a", "sm_120"}) {
    const auto kernels = cubin_facts(cubin(arch));
    REQUIRE(kernels.has_value());
    std::string text;
    for (const KernelFacts& k : *kernels)
      text += k.entry + " registers=" + std::to_string(k.registers) + " stack=" + std::to_string(k.stack_bytes) +
              " spills=" + std::to_string(k.spills) + " shared=" + std::to_string(k.shared_bytes) +
              " parameters=" + std::to_string(k.parameter_bytes) + " threads=" + std::to_string(k.most_threads) +
              " text=" + std::to_string(k.text_bytes) + "\n";
    const auto golden = read_bytes(std::string(GLAIVE_CUBINS "/") + arch + ".facts");
    CHECK(text == std::string(reinterpret_cast<const char*>(golden.data()), golden.size()));
  }
}

TEST_CASE("a cubin cut short is refused or read, and nothing past its end is touched") {
  const auto whole = cubin("sm_90a");
  std::size_t refused = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) refused += not facts_of_copy(std::span(whole).first(size));
  // The section headers stand near the end: without them there is nothing to read.
  CHECK(refused > whole.size() / 2);
  CHECK_FALSE(cubin_facts({}).has_value());
}

TEST_CASE("a cubin with any byte altered is refused or read within its bounds") {
  const auto whole = cubin("sm_80");
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    auto altered = whole;
    // Mostly in the headers, which is where offsets and sizes are.
    for (int i = 0; i < 3; ++i) {
      const std::size_t at =
          random() % 4 == 0 ? random() % whole.size()
                            : (random() % 2 == 0 ? random() % 64 : whole.size() - 1 - random() % (whole.size() / 3));
      altered[at] = static_cast<std::byte>(random() % 3 == 0 ? 0xff : random());
    }
    const auto facts = facts_of_copy(altered);
    if (facts)
      for (const KernelFacts& kernel : *facts) {
        REQUIRE(kernel.text_bytes <= static_cast<std::int64_t>(whole.size()));
        REQUIRE(kernel.most_threads >= 0);
      }
  }
}

TEST_CASE("other files are no cubins, and say so") {
  for (const char* file : {"/proc/self/exe", GLAIVE_CUBINS "/sm_80.facts"}) {
    const auto facts = cubin_facts(read_bytes(file));
    REQUIRE_FALSE(facts.has_value());
    CHECK(contains(facts.error().message, "no cubin"));
  }
}
