#pragma once
// What CUDA families share: the text around a kernel, its arguments, and what an SM offers.
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "templates/family.hpp"

namespace glaive::cuda {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }
inline std::int64_t group_of(const Problem& problem) { return problem.heads.count() / problem.kv_heads.count(); }

/// Whether the problem has this op, and the target is a GPU with bf16 in mma.sync and cp.async: sm_80 or later.
Result<void> applicable(const Instance& instance, Op op);

/// What one SM of a target offers (CUDA C++ Programming Guide, compute capabilities).
struct Sm {
  std::int64_t shared_bytes;        ///< in all; 1 KiB of it is taken for each block
  std::int64_t block_shared_bytes;  ///< that one block may have
  std::int64_t threads;
  std::int64_t registers = 65536;
  std::int64_t blocks = 32;
};
Sm sm_of(const Target& target);
/// Blocks that an SM holds at once; 0 where one does not fit.
std::int64_t resident(const Sm& sm, std::int64_t threads, std::int64_t registers, std::int64_t shared_bytes);

inline constexpr std::int64_t task_bytes = 176;  ///< sizeof(Task) of task.cuh

/// A kernel of one launch, with every constant named. The constants come first, in a namespace of the kernel's own,
/// then the helpers, then its text, in that namespace again.
struct Kernel {
  std::string entry;  ///< the namespace's name too, with `_text` behind it
  std::string text;
  std::string helpers;  ///< beside ptx.cuh and task.cuh
  struct Constant {
    std::string_view name;
    std::int64_t value;
  };
  std::vector<Constant> constants;  ///< beside those of the problem
  std::vector<TensorMap> maps;      ///< where there are any they are the entry's last parameter, in this order
  std::int64_t tiles = 1;           ///< CTAs that share V of a head
  std::int64_t threads = 32;
  std::int64_t shared_bytes = 0;
  std::int64_t ctas = 1;     ///< that an SM shall hold at once: bounds the registers
  std::int64_t cluster = 1;  ///< CTAs that reach each other's shared memory; divides `tiles`
  std::int64_t segment = 0;  ///< tokens of a sequence for which there is a CTA; 0 = all of them
  bool early = false;        ///< may begin while the kernel before it ends; waits for it itself

  /// Maps of chunks: of tensors of 16 bits as panels of 64 channels, swizzled; of g as those or, in fp32, as whole
  /// rows.
  void map_chunks(std::initializer_list<Arg> tensors, DType gate, std::int64_t tokens, std::int64_t channels);
};

/// What families of kernels launched one after the other have in common: all but the kernels. Where they work by
/// segments the workspace holds the seeds of task.cuh.
class KernelFamily : public Family {
 public:
  Target::Kind kind() const override { return Target::Kind::cuda; }
  Source instantiate(const Instance& instance, const Config& config) const override;
  Plan plan(const Instance& instance, const Config& config) const override;

  virtual std::vector<Kernel> kernels(const Instance& instance, const Config& config) const = 0;
};

/// wgmma instructions for hopper.cuh, with results of these widths: multiples of 8 up to 256.
std::string products_text(const std::set<std::int64_t>& widths);

/// The text of a *.cuh file of this folder or a family's, by its name, which no two have; empty where there is none.
std::string_view text_of(std::string_view name);

}  // namespace glaive::cuda
