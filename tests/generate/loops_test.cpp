// The loops between matrix products on a CPU.
#include <cmath>
#include <vector>

#include "examples/generate/cpu_loops.hpp"
#include "tests/catch.hpp"

namespace glaive::testing {
namespace {

namespace loops = generate::loops;
using Row = std::vector<float>;

float swish(float x) { return static_cast<float>(x / (1 + std::exp(-static_cast<double>(x)))); }

}  // namespace

TEST_CASE("loops: swish of any finite number is a number") {
  const auto width = GENERATE(32, 3);  // in vectors, and in what is left behind them
  for (const float x : {0.F, 0.34F, 0.35F, 1.F, 7.7F, 86.9F, 88.F, 89.F, 1e4F})
    for (const float gate : {x, -x}) {
      const auto size = static_cast<std::size_t>(width);
      const Row gates(size, gate), ones(size, 1.F);
      Row gated(size), normed(size);
      loops::swiglu(gates.data(), ones.data(), width, gated.data());
      loops::gated_norm(ones.data(), gates.data(), ones.data(), 0, width, normed.data());
      const double most = 1e-7 * (6 + std::abs(gate) / 2);  // as cpu_loops.cpp says of the exponential, and a division
      INFO("swish(" << gate << "), " << width << " wide");
      for (std::size_t i = 0; i < size; ++i) {
        CHECK(gated[i] == Approx(swish(gate)).epsilon(most).margin(1e-30));
        CHECK(normed[i] == Approx(swish(gate)).epsilon(most).margin(1e-30));
      }
    }
}

}  // namespace glaive::testing
