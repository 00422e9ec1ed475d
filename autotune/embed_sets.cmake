# Writes a C++ file that holds every problem set as a string: cmake -DOUT=file -DSETS="a.txt;b.txt" -P embed_sets.cmake
set(text "#include \"autotune/sets.hpp\"\n\nnamespace glaive {\nnamespace {\n\nconstexpr BuiltinSet sets[] = {\n")
foreach(file IN LISTS SETS)
  get_filename_component(name "${file}" NAME_WLE)
  file(READ "${file}" content)
  string(APPEND text "    {\"${name}\", R\"set(${content})set\"},\n")
endforeach()
string(APPEND text "};\n\n}  // namespace\n\nstd::span<const BuiltinSet> builtin_sets() { return sets; }\n\n}  // namespace glaive\n")
file(WRITE "${OUT}" "${text}")
