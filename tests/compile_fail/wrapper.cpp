// The same for the public C++ wrapper, as C++17.
#include "runtime/glaive.hpp"

using namespace glaive::api;

void use(const Pool& pool, const Sequence& sequence) {
#if CASE == 0
  (void)Shape(Sequences(1), Tokens(2));
  (void)Entry(sequence, Tokens(16));
  Batch batch(pool, Sequences(4), Tokens(64));
  batch.begin({{sequence, Tokens(16)}});
  const Tokens position = sequence.position();
  (void)position;
  Args args;
  args.set_states(nullptr, Slots(3), nullptr, nullptr);
  (void)Workspace(Device("cpu"), 4096);
#elif CASE == 1
  (void)Shape(Tokens(1), Sequences(2));
#elif CASE == 2
  (void)Shape(1, 2);
#elif CASE == 3
  (void)Shape(Sequences(true), Tokens(2));
#elif CASE == 4
  (void)Entry(sequence, Heads(16));  // the bug this project was born from
#elif CASE == 5
  (void)Entry(sequence, Sequences(16));
#elif CASE == 6
  (void)Entry(sequence, 16);
#elif CASE == 7
  Batch batch(pool, Tokens(64), Sequences(4));
#elif CASE == 8
  Batch batch(pool, Sequences(4), Tokens(64));
  batch.begin({{sequence, Heads(16)}});
#elif CASE == 9
  const Heads position = sequence.position();
  (void)position;
#elif CASE == 10
  const Sequence copy = sequence;
  (void)copy;
#elif CASE == 11
  (void)Batch(pool, Sequences(4), Heads(64));
#elif CASE == 12
  Args args;
  args.set_states(nullptr, Tokens(3), nullptr, nullptr);
#elif CASE == 13
  Args args;
  args.set_states(nullptr, 3, nullptr, nullptr);
#elif CASE == 14
  (void)Workspace(4096);  // of which device?
#endif
  (void)pool;
  (void)sequence;
}
