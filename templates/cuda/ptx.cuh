// What kernels need of the machine, and the only place with PTX in it. Nothing of the toolkit is included.
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

// ---- elements in memory
struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ inline float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
template <class T>
__device__ T narrow(float x);  // to nearest even
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 narrow<bf16>(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
__device__ inline f16 narrow<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// ---- pairs of 16-bit elements in a register, the first in the low half
template <class T>
__device__ float2 widen_pair(u32 pair);
template <>
__device__ inline float2 widen_pair<bf16>(u32 pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
template <>
__device__ inline float2 widen_pair<f16>(u32 pair) {
  return {widen(f16{u16(pair)}), widen(f16{u16(pair >> 16)})};
}
template <class T>
__device__ u32 narrow_pair(float first, float second);
template <>
__device__ inline u32 narrow_pair<bf16>(float first, float second) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
template <>
__device__ inline u32 narrow_pair<f16>(float first, float second) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

// ---- stages of a plan that overlap (griddepcontrol; before sm_90 stages follow each other)
/// The next stage's CTAs may begin once all of this one's have come here.
__device__ inline void let_next_stage_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// Until the stage before is over and what it wrote is seen.
__device__ inline void wait_for_stage_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- 2^x, good to about 2^-22; 0 below 2^-126
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- memory
__device__ inline uint4 load_streaming(const void* global) {  // once read it will not be soon again
  uint4 x;
  asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(global)
               : "memory");
  return x;
}
__device__ inline void store_streaming(void* global, uint4 x) {
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(global), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}
__device__ inline char* shared_memory() {
  extern __shared__ __align__(1024) uint4 bytes[];
  return reinterpret_cast<char*>(bytes);
}
__device__ inline u32 shared_address(const void* shared) { return u32(__cvta_generic_to_shared(shared)); }

/// 16 bytes to shared memory in the background, zeros where `present` is false; both addresses aligned to 16.
__device__ inline void copy_async(void* shared, const void* global, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(present ? 16 : 0)
               : "memory");
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// ---- matrices: fragments of mma.sync, 16-bit elements. Lane l holds of an 8x8 matrix row l / 4, columns 2 (l % 4) and
// the next. An A operand [16 x 16] is four of them: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
struct Matrices {
  u32 m[4];
};
/// Four 8x8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline Matrices load_matrices(const void* row) {
  Matrices x;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.m[0]), "=r"(x.m[1]), "=r"(x.m[2]), "=r"(x.m[3])
               : "r"(shared_address(row))
               : "memory");
  return x;
}
__device__ inline Matrices load_transposed(const void* row) {
  Matrices x;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.m[0]), "=r"(x.m[1]), "=r"(x.m[2]), "=r"(x.m[3])
               : "r"(shared_address(row))
               : "memory");
  return x;
}
__device__ inline u32 transpose(u32 matrix) {
  u32 x;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(x) : "r"(matrix));
  return x;
}
/// d [16 x 8] += a [16 x 16] b [16 x 8], b by columns: b0 holds rows 0-7, b1 rows 8-15. d: columns 2 (l % 4) and the
/// next of row l / 4, then of row l / 4 + 8.
__device__ inline void multiply(float (&d)[4], const Matrices& a, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.m[0]), "r"(a.m[1]), "r"(a.m[2]), "r"(a.m[3]), "r"(b0), "r"(b1));
}
/// The same with 8 columns of a: rows 0-7 and 8-15.
__device__ inline void multiply(float (&d)[4], u32 a0, u32 a1, u32 b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(b));
}
