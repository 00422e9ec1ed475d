#include "examples/generate/profile.hpp"

#include <cstdio>

namespace generate {
namespace {

Profile decode(Model& model, const std::vector<std::vector<Token>>& prompts, std::int64_t chunk, std::int64_t steps) {
  constexpr std::int64_t warm = 8;
  // Prompts take several steps to be read, in which those that are done already decode.
  std::int64_t reading = 1;
  for (const std::vector<Token>& prompt : prompts) reading += std::ssize(prompt);
  reading *= model.limits().sequences;
  Scheduler scheduler(model, chunk, [](std::size_t, Token) {});
  for (std::int64_t i = 0; i < model.limits().sequences; ++i)
    scheduler.submit({prompts[static_cast<std::size_t>(i) % prompts.size()], reading + warm + steps + 1, false});
  while (!scheduler.decoding()) scheduler.step();
  for (std::int64_t i = 0; i < warm; ++i) scheduler.step();
  model.device().start_profile();
  for (std::int64_t i = 0; i < steps; ++i) scheduler.step();
  const Profile profile = model.device().profile();
  scheduler.stop();
  return profile;
}

std::string line(const char* name, double share, double microseconds) {
  char text[96];
  std::snprintf(text, sizeof text, "  %-32s %9.1f us  %5.1f %%\n", name, share * microseconds, share * 100);
  return text;
}

}  // namespace

DecodeProfile profile_decode(Model& model, const std::vector<std::vector<Token>>& prompts, std::int64_t chunk,
                             std::int64_t steps) {
  const Profile whole = decode(model, prompts, chunk, steps);
  model.time_phases(true);
  const Profile parts = decode(model, prompts, chunk, steps);
  model.time_phases(false);

  const double each = whole.wall / static_cast<double>(whole.steps), busy = whole.busy / whole.wall;
  const auto sequences = static_cast<double>(model.limits().sequences);
  char head[160];
  std::snprintf(head, sizeof head, "decode of %.0f sequences on %s: %lld steps, %.1f us each, %.0f tokens/s\n",
                sequences, model.device().name().c_str(), static_cast<long long>(whole.steps), each * 1e6,
                sequences / each);
  DecodeProfile profile = {busy, head};
  const char* const names[] = {"matrix products", "GLA", "norms, gates, embedding, argmax"};
  double all = 0;
  for (std::size_t i = 0; i < std::size(names); ++i) all += parts.phases[i];
  for (std::size_t i = 0; i < std::size(names); ++i)
    profile.text += line(names[i], parts.phases[i] / all * busy, each * 1e6);
  profile.text += line("outside of them", 1 - busy, each * 1e6);
  return profile;
}

}  // namespace generate
