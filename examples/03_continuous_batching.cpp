// Continuous batching: 64 sequences that come and go, prefilled in chunks beside the decoding of others, in one batch a
// step.
//   03_continuous_batching my.pack 'forward H4 K64 V64 f32' cuda:0
#include <algorithm>

#include "toy.hpp"

namespace {

struct Request {
  int text;
  std::int64_t prompt, length;  // tokens: of the prompt, and in all
  toy::Sequence sequence;       // held while it is served
  toy::Output output;
};

}  // namespace

int main(int argc, char** argv) {
  return toy::run(argc, argv, [](const toy::Device& device, const toy::Pack& pack, const toy::Problem& problem) {
    constexpr std::int64_t layers = 2, slots = 24, chunk = 16;
    toy::Model model(device, pack, problem, layers, slots + 1);  // one for the check at the end

    std::vector<Request> waiting, serving, done;
    for (int i = 0; i < 64; ++i) waiting.push_back({i, 5 + 11 * i % 60, 10 + 13 * i % 90, {}, {}});
    for (Request& r : waiting) r.length = std::max(r.length, r.prompt + 4);

    int steps = 0, mixed = 0;
    std::int64_t tokens = 0;
    for (; !waiting.empty() || !serving.empty(); ++steps) {
      // Admission: a slot is taken at once, so a full pool is known here and not in the middle of a sequence.
      while (!waiting.empty() && model.pool().statistics().used < slots) {
        Request request = std::move(waiting.back());
        waiting.pop_back();
        request.sequence = model.pool().acquire();
        serving.push_back(std::move(request));
      }
      std::vector<toy::Work> work;
      bool prefills = false, decodes = false;
      for (const Request& r : serving) {
        const std::int64_t position = r.sequence.position().count();
        const std::int64_t count = position < r.prompt ? std::min(chunk, r.prompt - position) : 1;
        (position < r.prompt ? prefills : decodes) = true;
        work.push_back({&r.sequence, toy::tokens_of(r.text, position, position + count)});
        tokens += count;
      }
      mixed += prefills && decodes;
      const auto outputs = model.step(work);
      for (std::size_t i = serving.size(); i-- > 0;) {
        Request& r = serving[i];
        r.output.insert(r.output.end(), outputs[i].begin(), outputs[i].end());
        if (r.sequence.position().count() < r.length) continue;
        r.sequence = toy::Sequence();  // its slot is free for the next
        done.push_back(std::move(r));
        serving.erase(serving.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    std::printf("%zu sequences, %lld tokens in %d batches, %d of them with prefill beside decode; at most %lld slots\n",
                done.size(), static_cast<long long>(tokens), steps, mixed,
                static_cast<long long>(model.pool().statistics().peak));
    double worst = 0;
    for (const Request& r : done)
      worst = std::max(worst, toy::difference(r.output, model.alone(toy::tokens_of(r.text, 0, r.length))));
    return toy::verdict(problem, "every sequence against itself alone", worst);
  });
}
