// The driver without a GPU, with all that the example asks of one: its own kernels, run from their text by the
// emulator, a GLA kernel, and cuBLAS and NVRTC in so far as they are called.
#include <dlfcn.h>

#include <cmath>

#include "runtime/plan.hpp"
#include "tests/runtime/cuda/stub.hpp"
#include "tests/templates/emulator/emulator.hpp"

#define __shared__ static
namespace example {
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
#include "examples/generate/kernels.cuh"
}  // namespace example

namespace {

using namespace glaive::testing;
using glaive::Arg;

template <class T>
T as(u64 word) {
  T value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

/// Runs a kernel of the example's with the words that it was launched with.
template <auto kernel, class... Parameters, std::size_t... i>
void emulate(const StubLaunch& launch, void (*)(Parameters...), std::index_sequence<i...>) {
  static int runs = 0;
  const std::function<void()> body = [&] { kernel(as<Parameters>(launch.words[i])...); };
  emulator::run(launch.grid[0], 1, launch.block[0], 0, runs++ % 3, body);
}
template <auto kernel, class... Parameters>
StubKernel emulated(void (*)(Parameters...)) {
  return {.words = sizeof...(Parameters), .body = [](const StubLaunch& launch) {
            emulate<kernel>(launch, kernel, std::index_sequence_for<Parameters...>());
          }};
}

u16* numbers(u64 word) { return reinterpret_cast<u16*>(word); }

/// GLA in bf16 from raw logits, a token after the other; word i is Arg i.
void gla(const StubLaunch& launch) {
  const auto word = [&](Arg arg) { return launch.words[static_cast<std::size_t>(arg)]; };
  const auto count = [&](Arg arg) { return static_cast<i64>(word(arg)); };
  const auto number = [&](Arg arg) { return as<float>(word(arg)); };
  const auto slot_of = [&](Arg array, i64 b) { return reinterpret_cast<const int*>(word(array))[b]; };
  const auto at = [&](Arg tensor, Arg token, Arg head, i64 t, i64 h) {
    return numbers(word(tensor)) + t * count(token) + h * count(head);
  };
  const i64 kv_heads = count(Arg::kv_heads), group = count(Arg::heads) / kv_heads;
  const i64 K = count(Arg::k_head), V = count(Arg::v_head);
  const auto* cu = reinterpret_cast<const int*>(word(Arg::cu_seqlens));
  for (i64 b = 0; b < count(Arg::sequences); ++b)
    for (i64 h = 0; h < kv_heads; ++h) {
      std::vector<float> state(static_cast<std::size_t>(K * V));
      const auto slot = [&](Arg base, Arg slot_stride, Arg head_stride, i64 place) {
        return reinterpret_cast<float*>(word(base)) + place * count(slot_stride) + h * count(head_stride);
      };
      if (const int read = slot_of(Arg::read_slots, b); read >= 0)
        std::copy_n(slot(Arg::state_in, Arg::state_in_slot, Arg::state_in_head, read), K * V, state.begin());
      for (i64 t = cu[b]; t < cu[b + 1]; ++t) {
        const u16 *k = at(Arg::k, Arg::k_token, Arg::k_head, t, h), *v = at(Arg::v, Arg::v_token, Arg::v_head, t, h),
                  *g = at(Arg::g, Arg::g_token, Arg::g_head, t, h);
        for (i64 i = 0; i < K; ++i) {
          const float logit = example::to_float(g[i]);
          const float gate = (std::min(logit, 0.F) - std::log1p(std::exp(-std::fabs(logit)))) / number(Arg::gate_tau);
          const float decay = std::exp(std::max(gate, number(Arg::gate_clamp)));
          for (i64 j = 0; j < V; ++j) {
            float& s = state[static_cast<std::size_t>(i * V + j)];
            s = decay * s + example::to_float(k[i]) * example::to_float(v[j]);
          }
        }
        for (i64 head = h * group; head < (h + 1) * group; ++head) {
          const u16* const q = at(Arg::q, Arg::q_token, Arg::q_head, t, head);
          u16* const o = at(Arg::o, Arg::o_token, Arg::o_head, t, head);
          for (i64 j = 0; j < V; ++j) {
            float sum = 0;
            for (i64 i = 0; i < K; ++i) sum += example::to_float(q[i]) * state[static_cast<std::size_t>(i * V + j)];
            o[j] = example::to_bf16(number(Arg::scale) * sum);
          }
        }
      }
      if (const int write = slot_of(Arg::write_slots, b); write >= 0)
        std::ranges::copy(state, slot(Arg::state_out, Arg::state_out_slot, Arg::state_out_head, write));
    }
}

/// What cuBLAS's gemm is asked for here, in words: c = a^T b + beta c, columns first, a and b in bf16.
enum { A, B, C, M, N, Depth, LdA, LdB, LdC, TypeC, Beta, gemm_words };
constexpr int type_f32 = 0, type_bf16 = 14;

void gemm(const StubLaunch& launch) {
  const auto& w = launch.words;
  const auto count = [&](int word) { return static_cast<i64>(w[static_cast<std::size_t>(word)]); };
  for (i64 column = 0; column < count(N); ++column)
    for (i64 row = 0; row < count(M); ++row) {
      float sum = 0;
      for (i64 i = 0; i < count(Depth); ++i)
        sum += example::to_float(numbers(w[A])[row * count(LdA) + i]) *
               example::to_float(numbers(w[B])[column * count(LdB) + i]);
      const i64 at = column * count(LdC) + row;
      const bool wide = count(TypeC) == type_f32, adds = as<float>(w[Beta]) != 0;
      float* const f32 = reinterpret_cast<float*>(w[C]) + at;
      u16* const bf16 = numbers(w[C]) + at;
      if (adds) sum += wide ? *f32 : example::to_float(*bf16);
      if (wide)
        *f32 = sum;
      else
        *bf16 = example::to_bf16(sum);
    }
}

}  // namespace

extern "C" {

Stub* make_stub();
int cuModuleLoadData(void** module, const void* image);
int cuModuleUnload(void* module);
int cuModuleGetFunction(void** function, void* module, const char* name);
int cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void* stream,
                   void** parameters, void** extra);

// ---- cuBLAS
struct cublasContext {
  void* module = nullptr;
  void* function = nullptr;
  void* stream = nullptr;
};
int cublasCreate_v2(cublasContext** handle) {
  *handle = new cublasContext;
  return cuModuleLoadData(&(*handle)->module, "") +
         cuModuleGetFunction(&(*handle)->function, (*handle)->module, "gemm");
}
int cublasDestroy_v2(cublasContext* handle) {
  const int outcome = cuModuleUnload(handle->module);
  delete handle;
  return outcome;
}
int cublasSetStream_v2(cublasContext* handle, void* stream) {
  handle->stream = stream;
  return 0;
}
int cublasSetWorkspace_v2(cublasContext*, void* workspace, std::size_t) { return workspace == nullptr ? 7 : 0; }
int cublasGemmEx(cublasContext* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                 const void* a, int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c,
                 int c_type, int ldc, int compute_type, int algorithm) {
  constexpr int invalid = 7;
  if (transpose_a != 1 || transpose_b != 0 || a_type != type_bf16 || b_type != type_bf16) return invalid;
  if (compute_type != 68 || algorithm != -1 || *static_cast<const float*>(alpha) != 1) return invalid;
  if (m < 1 || n < 1 || k < 1 || lda < k || ldb < k || ldc < m) return invalid;
  u64 words[gemm_words] = {};
  words[A] = reinterpret_cast<u64>(a), words[B] = reinterpret_cast<u64>(b), words[C] = reinterpret_cast<u64>(c);
  words[M] = static_cast<u64>(m), words[N] = static_cast<u64>(n), words[Depth] = static_cast<u64>(k);
  words[LdA] = static_cast<u64>(lda), words[LdB] = static_cast<u64>(ldb), words[LdC] = static_cast<u64>(ldc);
  words[TypeC] = static_cast<u64>(c_type);
  words[Beta] = std::bit_cast<u32>(*static_cast<const float*>(beta));
  void* parameters[gemm_words];
  for (int i = 0; i < gemm_words; ++i) parameters[i] = &words[i];
  return cuLaunchKernel(handle->function, 1, 1, 1, 1, 1, 1, 0, handle->stream, parameters, nullptr);
}

// ---- NVRTC, whose code nobody reads
int nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*, const char* const*) {
  *program = nullptr;
  return 0;
}
int nvrtcCompileProgram(void*, int, const char* const*) { return 0; }
int nvrtcGetCUBINSize(void*, std::size_t* bytes) {
  *bytes = 1;
  return 0;
}
int nvrtcGetCUBIN(void*, char* code) {
  *code = 0;
  return 0;
}
int nvrtcGetProgramLogSize(void*, std::size_t*) { return 1; }
int nvrtcGetProgramLog(void*, char*) { return 1; }
int nvrtcDestroyProgram(void**) { return 0; }

}  // extern "C"

namespace {

template <auto kernel>
void add(const char* name) {
  make_stub()->set_kernel(name, emulated<kernel>(kernel));
}
const bool loaded = [] {
  add<example::embed>("embed");
  add<example::repeat>("repeat");
  add<example::rms_norm>("rms_norm");
  add<example::gated_norm>("gated_norm");
  add<example::swiglu>("swiglu");
  add<example::sample>("sample");
  make_stub()->set_kernel("gla", {.words = static_cast<std::size_t>(Arg::gate_clamp) + 1, .body = gla});
  make_stub()->set_kernel("gemm", {.words = gemm_words, .body = gemm});
  return true;
}();

}  // namespace
