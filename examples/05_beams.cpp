// Beam search: after every token the best beams go on, some of them twice, and no state is copied.
//   05_beams my.pack 'forward H4 K64 V64 f32' cuda:0
#include <algorithm>

#include "toy.hpp"

int main(int argc, char** argv) {
  return toy::run(argc, argv, [](const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem) {
    constexpr std::size_t beams = 6;
    constexpr std::int64_t layers = 2, prompt = 40, length = 120;
    // A beam reads its parent's slot and writes its own: twice the beams at most.
    toy::Model model(device, pack, problem, layers, 2 * beams + 1);
    std::minstd_rand random(1);

    std::vector<toy::Sequence> sequences;
    sequences.push_back(model.pool().acquire());
    model.step({{&sequences[0], toy::tokens_of(0, 0, prompt)}});
    while (sequences.size() < beams) sequences.push_back(sequences[0].fork());

    std::vector<std::vector<int>> texts(beams, toy::tokens_of(0, 0, prompt));
    std::vector<toy::Output> last;
    while (static_cast<std::int64_t>(texts[0].size()) < length) {
      std::vector<std::size_t> parents(beams);  // what a ranking of scores would give
      for (std::size_t& parent : parents) parent = random() % beams;
      model.pool().reorder(sequences, parents);
      std::vector<std::vector<int>> chosen;
      std::vector<toy::Work> work;
      for (std::size_t i = 0; i < beams; ++i) {
        chosen.push_back(texts[parents[i]]);
        const int token = toy::token_of(static_cast<int>(i), static_cast<std::int64_t>(chosen[i].size()));
        chosen[i].push_back(token);
        work.push_back({&sequences[i], {token}});
      }
      texts = chosen;
      last = model.step(work);
    }
    std::printf("%zu beams of %lld tokens; at most %lld slots\n", beams, static_cast<long long>(length),
                static_cast<long long>(model.pool().statistics().peak));
    double worst = 0;
    for (std::size_t i = 0; i < beams; ++i) {
      if (sequences[i].position().count() != length) return 1;
      const toy::Output all = model.alone(texts[i]);
      worst = std::max(worst,
                       toy::difference(last[i], {all.end() - static_cast<std::ptrdiff_t>(last[i].size()), all.end()}));
    }
    return toy::verdict(problem, "every beam's last token against its text alone", worst);
  });
}
