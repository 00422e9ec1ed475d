# Writes a C++ file that holds a text: cmake -DOUT=file -DIN=file -P embed.cmake
file(READ "${IN}" text)
file(WRITE "${OUT}" "#include <string_view>

namespace glaive::test {

extern const std::string_view gpu_fault_kernel;
const std::string_view gpu_fault_kernel = R\"cuda(${text})cuda\";

}  // namespace glaive::test
")
