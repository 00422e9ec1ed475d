// The same for the public C++ wrapper, as C++17.
#include "runtime/glaive.hpp"

using namespace glaive::api;

void use() {
#if CASE == 0
  (void)Shape(Sequences(1), Tokens(2));
#elif CASE == 1
  (void)Shape(Tokens(1), Sequences(2));
#elif CASE == 2
  (void)Shape(1, 2);
#elif CASE == 3
  (void)Shape(Sequences(true), Tokens(2));
#endif
}
