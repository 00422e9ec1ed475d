// Speculative decoding: a draft proposes tokens, one batch checks them all, and a rollback takes back what was wrong.
//   04_speculation my.pack 'forward H4 K64 V64 f32' cuda:0
#include <algorithm>

#include "toy.hpp"

int main(int argc, char** argv) {
  return toy::run(argc, argv, [](const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem) {
    constexpr std::int64_t layers = 2, length = 200, drafts = 4;
    constexpr int text = 7;
    toy::Model model(device, pack, problem, layers, 4);
    std::minstd_rand random(1);
    const auto width = static_cast<std::ptrdiff_t>(problem.heads * problem.value_dim);

    toy::Sequence sequence = model.pool().acquire();
    toy::Output output = model.step({{&sequence, toy::tokens_of(text, 0, 32)}})[0];
    int rounds = 0, rollbacks = 0;
    for (; sequence.position().count() < length; ++rounds) {
      const std::int64_t at = sequence.position().count();
      const std::int64_t count = std::min(drafts, length - at);
      // The draft is right up to some token; what the model says of it is known after the step.
      const std::int64_t right = std::min<std::int64_t>(count, 1 + random() % (drafts + 1));
      std::vector<int> draft = toy::tokens_of(text, at, at + right);
      while (static_cast<std::int64_t>(draft.size()) < count) draft.push_back(-1);

      const toy::Sequence checkpoint = sequence.fork();  // shares the slot: nothing is copied
      toy::Output checked = model.step({{&sequence, draft}})[0];
      if (right < count) {
        sequence.rollback(checkpoint);
        checked = model.step({{&sequence, toy::tokens_of(text, at, at + right)}})[0];
        ++rollbacks;
      }
      output.insert(output.end(), checked.begin(), checked.begin() + right * width);
    }
    std::printf("%lld tokens in %d rounds, %d of them rolled back; position %lld; at most %lld slots\n",
                static_cast<long long>(length), rounds, rollbacks, static_cast<long long>(sequence.position().count()),
                static_cast<long long>(model.pool().statistics().peak));
    if (sequence.position().count() != length) return 1;
    return toy::verdict(problem, "the accepted tokens against the text alone",
                        toy::difference(output, model.alone(toy::tokens_of(text, 0, length))));
  });
}
