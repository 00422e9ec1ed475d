// In a file of its own, which the linker leaves out where a program has needs.
#include "tests/needs.hpp"

std::string glaive::testing::missing() { return ""; }
