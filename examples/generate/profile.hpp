#pragma once
// Where the time of decoding goes.
#include "examples/generate/scheduler.hpp"

namespace generate {

struct DecodeProfile {
  double busy;       ///< the share of the time in kernels and matrix products
  std::string text;  ///< for people
};

/// Decodes as many sequences as the model serves, prompts again and again, and times `steps` of them with nothing else
/// in between.
DecodeProfile profile_decode(Model& model, const std::vector<std::vector<Token>>& prompts, std::int64_t chunk,
                             std::int64_t steps);

}  // namespace generate
