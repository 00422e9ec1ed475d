# Writes the version and, where git knows it, the commit into a C++ file, touching it only when they change.
set(commit "")
if(GIT)
  execute_process(COMMAND "${GIT}" -C "${SOURCE}" describe --always --dirty --exclude=*
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(text "#include \"autotune/evidence.hpp\"

namespace glaive {

std::string_view glaive_version() { return \"${VERSION}\"; }
std::string_view glaive_commit() { return \"${commit}\"; }

}  // namespace glaive
")
set(old "")
if(EXISTS "${OUT}")
  file(READ "${OUT}" old)
endif()
if(NOT old STREQUAL text)
  file(WRITE "${OUT}" "${text}")
endif()
