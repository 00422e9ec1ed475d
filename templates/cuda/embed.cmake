# Writes a C++ file that holds every text as a string: cmake -DOUT=file -DTEXTS="a.cuh;b.cuh" -P embed.cmake
set(text "#include \"templates/cuda/cuda.hpp\"\n\nnamespace glaive::cuda {\nnamespace {\n\nstruct {\n  std::string_view name, text;\n} constexpr texts[] = {\n")
foreach(file IN LISTS TEXTS)
  get_filename_component(name "${file}" NAME)
  file(READ "${file}" content)
  string(APPEND text "    {\"${name}\", R\"cuda(${content})cuda\"},\n")
endforeach()
string(APPEND text "};\n\n}  // namespace\n\nstd::string_view text_of(std::string_view name) {\n  for (const auto& entry : texts)\n    if (entry.name == name) return entry.text;\n  return {};\n}\n\n}  // namespace glaive::cuda\n")
file(WRITE "${OUT}" "${text}")
