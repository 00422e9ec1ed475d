#pragma once
#include <span>
#include <string_view>

namespace glaive {

/// A part of the emitted launcher, as it is in autotune/emit/launcher. It is C that compiles as it stands, of the name
/// `gla`.
struct LauncherPart {
  std::string_view name, text;
};
std::span<const LauncherPart> launcher_parts();

}  // namespace glaive
