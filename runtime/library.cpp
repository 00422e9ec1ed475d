#include "runtime/library.hpp"

#include <link.h>

namespace glaive {

Result<Library> Library::open(std::string_view what, std::span<const std::string> names) {
  std::string tried, strange;
  for (const std::string& name : names) {
    void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* const why = dlerror();
      tried += (tried.empty() ? "" : ", ") + name;
      // What is not there is said in short; a file that is there and does not fit deserves the loader's words.
      if (why != nullptr and std::string_view(why).find("No such file") == std::string_view::npos)
        strange += std::string("; ") + why;
      continue;
    }
    Library library;
    library.handle_ = handle;
    link_map* map = nullptr;
    const bool known = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 and map != nullptr and map->l_name != nullptr;
    library.path_ = known and * map->l_name != 0 ? map->l_name : name;
    return library;
  }
  return fail(Status::not_found, std::string(what) + " is not found (looked for " + tried + ")" + strange);
}

}  // namespace glaive
