#include "examples/generate/scheduler.hpp"

#include <algorithm>

#include "examples/generate/failure.hpp"

namespace generate {

Scheduler::Scheduler(Model& model, std::int64_t chunk, OnToken on_token)
    : model_(model), chunk_(chunk), on_token_(std::move(on_token)) {}

std::size_t Scheduler::submit(Request request) {
  if (request.prompt.empty()) fail("a prompt has no tokens; it needs one at least");
  for (const Token token : request.prompt)
    if (token < 0 || token >= model_.config().vocab_size)
      fail("token ", token, " of a prompt is outside the model's vocabulary of ", model_.config().vocab_size);
  requests_.push_back(std::move(request));
  ended_.push_back(false);
  return requests_.size() - 1;
}

bool Scheduler::is_prompt(const Active& active) const {
  // Positions move in commit alone, so they say how much of the prompt has been read.
  return active.sequence.position().count() < std::ssize(requests_[active.request].prompt);
}

bool Scheduler::decoding() const {
  return !active_.empty() &&
         std::none_of(active_.begin(), active_.end(), [&](const Active& a) { return is_prompt(a); });
}

bool Scheduler::step() {
  admit();
  if (!active_.empty()) enqueue();
  if (!in_flight_.empty() && (active_.empty() || std::ssize(in_flight_) >= model_.device().ahead())) collect();
  return !in_flight_.empty() || !active_.empty() || next_ < requests_.size();
}

void Scheduler::stop() {
  active_.clear();
  next_ = requests_.size();
  run();  // what is under way
}

void Scheduler::admit() {
  for (; next_ < requests_.size() && std::ssize(active_) < model_.limits().sequences; ++next_)
    if (requests_[next_].most_tokens > 0) active_.push_back({next_, model_.acquire()});
}

void Scheduler::enqueue() {
  // First come, first served. No row that decodes is ever left out, which would lose what it sampled: those before it
  // took no fewer tokens in the step in which it ended its prompt.
  std::vector<Work> work;
  InFlight rows;
  std::int64_t budget = model_.limits().tokens;
  bool prefills = false, decodes = false;
  for (Active& active : active_) {
    const std::vector<Token>& prompt = requests_[active.request].prompt;
    bool samples = true;
    if (is_prompt(active)) {
      const std::int64_t position = active.sequence.position().count(), left = std::ssize(prompt) - position;
      const std::int64_t count = std::min({chunk_, left, budget});
      if (count == 0) break;  // the rest waits
      work.push_back({&active.sequence, {prompt.begin() + position, prompt.begin() + position + count}});
      samples = count == left;
      prefills = true;
    } else {
      work.push_back({&active.sequence, {static_cast<Token>(-1 - active.row)}});
      decodes = true;
    }
    budget -= std::ssize(work.back().tokens);
    active.row = std::ssize(rows);
    active.sampled += samples ? 1 : 0;
    rows.push_back(samples ? static_cast<std::ptrdiff_t>(active.request) : -1);
  }
  mixed_steps_ += prefills && decodes ? 1 : 0;
  model_.enqueue(work);
  in_flight_.push_back(std::move(rows));
  std::erase_if(active_, [&](const Active& a) { return a.sampled == requests_[a.request].most_tokens; });
}

void Scheduler::collect() {
  const std::vector<Token> tokens = model_.device().collect();
  const std::vector<std::int64_t>& ends = model_.config().eos_token_ids;
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    if (in_flight_.front()[row] < 0) continue;
    const auto request = static_cast<std::size_t>(in_flight_.front()[row]);
    if (ended_[request]) continue;  // enqueued before the host knew
    if (tokens[row] < 0)
      fail("the model's logits for request ", request,
           " have no finite maximum; its weights must be such that they do");
    on_token_(request, tokens[row]);
    if (!requests_[request].may_end || std::find(ends.begin(), ends.end(), tokens[row]) == ends.end()) continue;
    ended_[request] = true;
    std::erase_if(active_, [&](const Active& a) { return a.request == request; });
  }
  in_flight_.pop_front();
}

}  // namespace generate
