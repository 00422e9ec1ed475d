#pragma once
#include <span>
#include <string>

#include "autotune/story.hpp"

namespace glaive {

/// One page with everything in it: style, charts, and a few lines of script for what is pointed at. Nothing is loaded
/// from anywhere.
std::string html_report(std::span<const Story> stories);

}  // namespace glaive
