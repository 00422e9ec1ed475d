// One misuse of the extents per CASE; CASE 0 is the same code used rightly, and must compile.
#include "runtime/extents.hpp"

#include "runtime/batch.hpp"
#include "runtime/problem.hpp"

using namespace glaive;

void append(Tokens) {}
void with_heads(Heads) {}

void use() {
#if CASE == 0
  append(Tokens(3));
  with_heads(Heads(4));
  Tokens tokens(2);
  tokens += Tokens(1);
  (void)(Tokens(1) == Tokens(1) and Tokens(1) < Tokens(2) and Tokens(3) - Tokens(1) == Tokens(2));
  (void)Shape::uniform(Sequences(1), Tokens(2));
  const std::int64_t count = tokens.count();
  (void)count;
  (void)Batch::Entry{Sequence(), Tokens(16)};
#elif CASE == 1
  append(Heads(16));  // the bug this project was born from: heads passed as the number of new tokens
#elif CASE == 2
  append(16);
#elif CASE == 3
  (void)(Tokens(1) == Heads(1));
#elif CASE == 4
  append(Tokens(true));
#elif CASE == 5
  (void)(Tokens(1) + Heads(1));
#elif CASE == 6
  const std::int64_t count = Tokens(1);
  (void)count;
#elif CASE == 7
  with_heads(KvHeads(1));
#elif CASE == 8
  Tokens tokens(2);
  tokens += Heads(1);
#elif CASE == 9
  (void)Shape::uniform(Tokens(1), Sequences(2));
#elif CASE == 10
  (void)(Tokens(1) < Heads(1));
#elif CASE == 11
  append(Tokens(1.5));
#elif CASE == 12
  (void)(Tokens(1) == 1);
#elif CASE == 13
  Problem problem;
  problem.k = ValueDim(64);
#elif CASE == 14
  (void)Batch::Entry{Sequence(), Heads(16)};
#endif
}
