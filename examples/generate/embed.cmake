# Writes kernels.cuh as a string: cmake -DIN=kernels.cuh -DOUT=kernels.cpp -P embed.cmake
file(READ "${IN}" text)
file(WRITE "${OUT}" "#include \"examples/generate/cuda_kernels.hpp\"\n\nconst char* const generate::cuda::kernels_text = R\"cuda(${text})cuda\";\n")
