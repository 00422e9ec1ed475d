#pragma once
// A thin builder for CPU kernels on vectors of one width: the handful of operations that tiles are made of, emitted
// straight to scf, arith, vector and llvm. The schedule is the caller's: accumulators are unrolled by C++ loops.
#include <functional>
#include <vector>

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/problem.hpp"

namespace glaive::cpu {

using Value = mlir::Value;
using Values = std::vector<Value>;

/// A place in a tensor of any dtype. Arithmetic is always fp32: loads widen, stores round to nearest even.
struct Place {
  Value pointer;
  DType type;
};

class Builder {
 public:
  Builder(mlir::OpBuilder& ops, int lanes);

  int lanes() const { return lanes_; }
  mlir::OpBuilder& ops() { return ops_; }
  template <class Op, class... Args>
  auto create(Args&&... args) {
    return ops_.create<Op>(loc_, std::forward<Args>(args)...);
  }

  /// `void name(words, task, scratch)`, a Stage's entry; the insertion point moves into its body until finish().
  struct Entry {
    Value words, task, scratch;
  };
  Entry begin_entry(mlir::ModuleOp module, std::string_view name);
  void finish();

  // 64-bit integers
  Value i64(std::int64_t value);
  Value add(Value a, Value b);
  Value add(Value a, std::int64_t b) { return b == 0 ? a : add(a, i64(b)); }
  Value sub(Value a, Value b);
  Value mul(Value a, Value b);
  Value mul(Value a, std::int64_t b) { return b == 1 ? a : mul(a, i64(b)); }
  Value div(Value a, std::int64_t b);
  Value div(Value a, Value b);
  Value rem(Value a, Value b);
  Value min(Value a, Value b);
  Value max_index(Value a, Value b);
  Value less(Value a, Value b);
  Value equal(Value a, Value b);
  Value differ(Value a, Value b);
  Value either(Value a, Value b);
  Value select(Value condition, Value yes, Value no);

  // memory: pointers to fp32, offsets in elements
  Value word(Value words, std::int64_t index);          ///< i64 argument
  Value pointer_word(Value words, std::int64_t index);  ///< pointer argument
  Value is_null(Value pointer);
  Value at(Value pointer, Value elements);  ///< pointer + elements
  Value at(Value pointer, std::int64_t elements);
  Value load(Value pointer);  ///< one vector
  void store(Value vector, Value pointer);
  Value load_first(Value pointer, int count);  ///< the first `count` lanes, zeros behind them
  void store_first(Value vector, Value pointer, int count);
  Value load_scalar(Value pointer);
  Value load_index(Value pointer);                      ///< int32, widened
  void raise(Value flags_pointer, std::uint32_t bits);  ///< ORs bits into a uint32, atomically
  Value null();
  void store_scalar(Value scalar, Value pointer);
  Value splat(Value scalar);
  Value load_splat(Value pointer) { return splat(load_scalar(pointer)); }
  enum class Near { second_cache, first_cache };
  void prefetch(Value pointer, bool for_write, Near near);

  // memory of any dtype
  Place at(Place place, Value elements);
  Place at(Place place, std::int64_t elements);
  Value load_first(Place place, int count);
  void store_first(Value vector, Place place, int count);
  void copy_first(Place from, Place to, int count);  ///< bits, unchanged
  /// Fills one vector of elements with a value that the dtype holds exactly.
  void fill(Place place, float value);

  // vectors of fp32
  Value constant(float value);
  Value fadd(Value a, Value b);
  Value fsub(Value a, Value b);
  Value fmul(Value a, Value b);
  Value negate(Value a);
  Value fma(Value a, Value b, Value c);
  /// exp(x) for x in [-inf, 0]; 0 below 2^-126, relative error under 2e-7. Cody-Waite on base 2: 2^n by the exponent
  /// field, 2^f by the degree-6 minimax polynomial on [0,1).
  Value exp(Value x);
  /// log(1 + u) for u in [0,1], absolute error under 1e-7, exact at 0: u times the polynomial that interpolates
  /// log(1+u)/u at the Chebyshev nodes.
  Value log1p(Value u);
  Value max(Value a, Value b);        ///< NaN when either is
  Value min_float(Value a, Value b);  ///< likewise
  /// Sums over the lanes of every vector, as scalars.
  Values sums(const Values& vectors);
  /// `lanes` vectors as rows of a square matrix: its columns.
  Values transpose(const Values& rows);

  // control
  /// for (i = from; i < to; i += step): body maps the carried values to the next ones.
  using Body = std::function<Values(Value i, const Values& carried)>;
  Values loop(Value from, Value to, std::int64_t step, const Values& initial, const Body& body);
  void loop(Value from, Value to, std::int64_t step, const std::function<void(Value i)>& body);
  /// Covers 0..count with steps of `step`; body gets the start and how many are in this step (the last may be fewer).
  Values strips(std::int64_t count, std::int64_t step, const Values& initial,
                const std::function<Values(Value start, int size, const Values& carried)>& body);
  void strips(std::int64_t count, std::int64_t step, const std::function<void(Value start, int size)>& body);
  /// Values of one branch or the other, of the same types.
  Values choose(Value condition, const std::function<Values()>& yes, const std::function<Values()>& no);
  void when(Value condition, const std::function<void()>& yes, const std::function<void()>& no = {});

 private:
  mlir::OpBuilder& ops_;
  mlir::Location loc_;
  int lanes_;
  mlir::VectorType vector_, mask_, ints_;
  mlir::Type f32_, i64_, pointer_;
  mlir::LLVM::LLVMFuncOp function_;

  Value mask(int count);
  mlir::Type element(DType type);
  Value widen(Value raw, DType type);
  Value narrow(Value vector, DType type);
};

}  // namespace glaive::cpu
