#pragma once
#include <dlfcn.h>

#include <span>
#include <string>
#include <string_view>

#include "runtime/status.hpp"

namespace glaive {

/// A library of the system's that a build does not need, opened while the program runs. It is never closed: drivers and
/// compilers leave threads and handlers behind.
class Library {
 public:
  Library() = default;
  /// The first of `names`, paths or sonames, that the loader opens. Fails with not_found: `<what>` and where it was
  /// looked for; a file that is there and cannot be opened is told with the loader's words.
  static Result<Library> open(std::string_view what, std::span<const std::string> names);

  const std::string& path() const { return path_; }
  /// Null where the library has no such function.
  template <class Function>
  void find(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
  }

 private:
  void* handle_ = nullptr;
  std::string path_;
};

}  // namespace glaive
