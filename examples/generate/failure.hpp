#pragma once
// What is wrong with what the user gave, in one sentence: what it was, and what is allowed.
#include <sstream>
#include <stdexcept>

namespace generate {

class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw Failure(sentence.str());
}

}  // namespace generate
