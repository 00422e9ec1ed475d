#pragma once
#include <filesystem>
#include <string>

#include "runtime/status.hpp"

namespace glaive::cli {

/// A place for text: a file, which is replaced in one step, or something that is written to as it is, such as a pipe or
/// the output of this program.
struct Place {
  std::filesystem::path path;
  bool replaced;
};

/// Whether `asked` is `-`, which stands for the standard output.
inline bool is_standard_output(const std::string& asked) { return asked == "-"; }

/// Finds out whether `asked` can be written, and leaves it as it is.
Result<Place> find_place(const std::string& asked);
/// Whether what is written to one of them would be lost in, or mixed with, what is written to the other.
bool same_place(const Place& a, const Place& b);
Result<void> write(const Place& place, const std::string& text);

/// Both, where nothing takes long between them; reports an error, and returns what to end with.
int write_file(const std::string& asked, const std::string& text);

}  // namespace glaive::cli
