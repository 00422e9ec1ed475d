#pragma once
// Continuous batching: requests join when a slot is free, prompts are read in chunks beside the decoding of others, and
// who is done leaves. The host stays a step ahead of a GPU: a row's next token may be named before it is known.
#include <deque>
#include <functional>

#include "examples/generate/model.hpp"

namespace generate {

struct Request {
  std::vector<Token> prompt;  ///< from one token on
  std::int64_t most_tokens;   ///< to be generated
  bool may_end = true;        ///< earlier, where the model ends the text
};

class Scheduler {
 public:
  /// on_token: called with the number of a request, in the order of submission, and its next token.
  using OnToken = std::function<void(std::size_t request, Token token)>;

  /// chunk: the most tokens of a prompt in one step.
  Scheduler(Model& model, std::int64_t chunk, OnToken on_token);

  std::size_t submit(Request request);
  /// One step; false when there is nothing left to do.
  bool step();
  void run() {
    while (step()) {
    }
  }
  /// Gives up what is served and what waits.
  void stop();
  /// Whether all that is served is being decoded.
  bool decoding() const;
  std::int64_t mixed_steps() const { return mixed_steps_; }

 private:
  struct Active {
    std::size_t request;
    api::Sequence sequence;
    std::int64_t sampled = 0;  ///< tokens, those on their way included
    std::int64_t row = -1;     ///< in the step before, once it decodes
  };
  /// Which request a row's token belongs to; -1 for a part of a prompt.
  using InFlight = std::vector<std::ptrdiff_t>;

  void admit();
  void enqueue();
  void collect();
  bool is_prompt(const Active& active) const;

  Model& model_;
  std::int64_t chunk_;
  OnToken on_token_;
  std::vector<Request> requests_;
  std::vector<bool> ended_;  ///< by the model's end of text
  std::size_t next_ = 0;     ///< to be admitted
  std::vector<Active> active_;
  std::deque<InFlight> in_flight_;
  std::int64_t mixed_steps_ = 0;
};

}  // namespace generate
