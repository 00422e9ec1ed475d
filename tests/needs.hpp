#pragma once
#include <string>

namespace glaive::testing {

/// What this machine lacks of what the program's tests need, or "": then they run. A program whose tests need nothing
/// defines none. Called before any test.
std::string missing();

}  // namespace glaive::testing
