// A prefix cache on disk: a long prompt is computed once, its state is written to a file, and later sequences start
// from there.
//   06_prefix_cache my.pack 'forward H4 K64 V64 f32' cuda:0
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "toy.hpp"

namespace {
double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
}  // namespace

int main(int argc, char** argv) {
  return toy::run(argc, argv, [](const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem) {
    constexpr std::int64_t layers = 2, prefix = 2048, suffix = 24;
    const auto path =
        std::filesystem::temp_directory_path() / ("glaive-prefix-" + std::to_string(std::random_device()()));
    {
      toy::Model model(device, pack, problem, layers, 2);
      const auto begin = std::chrono::steady_clock::now();
      const toy::Sequence sequence = model.pool().acquire();
      model.step({{&sequence, toy::tokens_of(0, 0, prefix)}});
      std::printf("prefill of %lld tokens: %.2f ms\n", static_cast<long long>(prefix), 1e3 * seconds_since(begin));
      sequence.write_snapshot(path.string());
    }
    // Another pool, another size: another process, for all the file knows.
    toy::Model model(device, pack, problem, layers, 6);
    const auto begin = std::chrono::steady_clock::now();
    const toy::Sequence cached = model.pool().read_snapshot(path.string());
    std::printf("from the cache: %.2f ms for %ju bytes, at position %lld\n", 1e3 * seconds_since(begin),
                std::filesystem::file_size(path), static_cast<long long>(cached.position().count()));
    std::filesystem::remove(path);

    double worst = 0;
    for (int text = 1; text <= 3; ++text) {
      const toy::Sequence sequence = cached.fork();
      const toy::Output output = model.step({{&sequence, toy::tokens_of(text, 0, suffix)}})[0];
      std::vector<int> whole = toy::tokens_of(0, 0, prefix);
      const std::vector<int> rest = toy::tokens_of(text, 0, suffix);
      whole.insert(whole.end(), rest.begin(), rest.end());
      const toy::Output all = model.alone(whole);
      worst =
          std::max(worst, toy::difference(output, {all.end() - static_cast<std::ptrdiff_t>(output.size()), all.end()}));
    }
    return toy::verdict(problem, "from the cached prefix against the whole text", worst);
  });
}
