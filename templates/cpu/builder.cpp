#include "templates/cpu/builder.hpp"

#include <cmath>

namespace glaive::cpu {

namespace arith = mlir::arith;
namespace llvmd = mlir::LLVM;
namespace scf = mlir::scf;
namespace vec = mlir::vector;

Builder::Builder(mlir::OpBuilder& ops, int lanes)
    : ops_(ops),
      loc_(ops.getUnknownLoc()),
      lanes_(lanes),
      vector_(mlir::VectorType::get({lanes}, ops.getF32Type())),
      mask_(mlir::VectorType::get({lanes}, ops.getI1Type())),
      ints_(mlir::VectorType::get({lanes}, ops.getI32Type())),
      f32_(ops.getF32Type()),
      i64_(ops.getI64Type()),
      pointer_(llvmd::LLVMPointerType::get(ops.getContext())) {}

Builder::Entry Builder::begin_entry(mlir::ModuleOp module, std::string_view name) {
  ops_.setInsertionPointToEnd(module.getBody());
  auto type = llvmd::LLVMFunctionType::get(llvmd::LLVMVoidType::get(ops_.getContext()), {pointer_, i64_, pointer_});
  function_ = create<llvmd::LLVMFuncOp>(llvm::StringRef(name.data(), name.size()), type);
  auto* block = function_.addEntryBlock(ops_);
  ops_.setInsertionPointToStart(block);
  return {block->getArgument(0), block->getArgument(1), block->getArgument(2)};
}

void Builder::finish() {
  create<llvmd::ReturnOp>(mlir::ValueRange{});
  ops_.setInsertionPointAfter(function_);
}

Value Builder::i64(std::int64_t value) { return create<arith::ConstantOp>(ops_.getI64IntegerAttr(value)); }
Value Builder::add(Value a, Value b) { return create<arith::AddIOp>(a, b, arith::IntegerOverflowFlags::nsw); }
Value Builder::sub(Value a, Value b) { return create<arith::SubIOp>(a, b, arith::IntegerOverflowFlags::nsw); }
Value Builder::mul(Value a, Value b) { return create<arith::MulIOp>(a, b, arith::IntegerOverflowFlags::nsw); }
Value Builder::div(Value a, std::int64_t b) { return b == 1 ? a : create<arith::DivUIOp>(a, i64(b)).getResult(); }
Value Builder::div(Value a, Value b) { return create<arith::DivUIOp>(a, b); }
Value Builder::rem(Value a, Value b) { return create<arith::RemUIOp>(a, b); }
Value Builder::min(Value a, Value b) { return create<arith::MinSIOp>(a, b); }
Value Builder::max_index(Value a, Value b) { return create<arith::MaxSIOp>(a, b); }
Value Builder::differ(Value a, Value b) { return create<arith::CmpIOp>(arith::CmpIPredicate::ne, a, b); }
Value Builder::either(Value a, Value b) { return create<arith::OrIOp>(a, b); }
Value Builder::less(Value a, Value b) { return create<arith::CmpIOp>(arith::CmpIPredicate::slt, a, b); }
Value Builder::equal(Value a, Value b) { return create<arith::CmpIOp>(arith::CmpIPredicate::eq, a, b); }
Value Builder::select(Value condition, Value yes, Value no) { return create<arith::SelectOp>(condition, yes, no); }

Value Builder::word(Value words, std::int64_t index) {
  Value address =
      create<llvmd::GEPOp>(pointer_, i64_, words, llvm::ArrayRef<llvmd::GEPArg>{static_cast<int32_t>(index)});
  return create<llvmd::LoadOp>(i64_, address, 8);
}
Value Builder::pointer_word(Value words, std::int64_t index) {
  return create<llvmd::IntToPtrOp>(pointer_, word(words, index));
}
Value Builder::is_null(Value pointer) { return equal(create<llvmd::PtrToIntOp>(i64_, pointer), i64(0)); }
Value Builder::at(Value pointer, Value elements) {
  return create<llvmd::GEPOp>(pointer_, f32_, pointer, llvm::ArrayRef<llvmd::GEPArg>{elements});
}
Value Builder::at(Value pointer, std::int64_t elements) {
  if (elements == 0) return pointer;
  return create<llvmd::GEPOp>(pointer_, f32_, pointer, llvm::ArrayRef<llvmd::GEPArg>{static_cast<int32_t>(elements)});
}
Value Builder::load(Value pointer) { return create<llvmd::LoadOp>(vector_, pointer, 4); }
void Builder::store(Value vector, Value pointer) { create<llvmd::StoreOp>(vector, pointer, 4); }

Value Builder::mask(int count) {
  llvm::SmallVector<bool> lanes;
  for (int lane = 0; lane < lanes_; ++lane) lanes.push_back(lane < count);
  return create<arith::ConstantOp>(mlir::DenseElementsAttr::get(mask_, lanes));
}
Value Builder::load_first(Value pointer, int count) {
  if (count == lanes_) return load(pointer);
  return create<llvmd::MaskedLoadOp>(vector_, pointer, mask(count), mlir::ValueRange{constant(0)},
                                     ops_.getI32IntegerAttr(4));
}
void Builder::store_first(Value vector, Value pointer, int count) {
  if (count == lanes_) return store(vector, pointer);
  create<llvmd::MaskedStoreOp>(vector, pointer, mask(count), 4);
}
Value Builder::load_scalar(Value pointer) { return create<llvmd::LoadOp>(f32_, pointer, 4); }
Value Builder::load_index(Value pointer) {
  return create<arith::ExtSIOp>(i64_, create<llvmd::LoadOp>(ops_.getI32Type(), pointer, 4));
}
void Builder::store_scalar(Value scalar, Value pointer) { create<llvmd::StoreOp>(scalar, pointer, 4); }
Value Builder::splat(Value scalar) { return create<vec::BroadcastOp>(vector_, scalar); }
void Builder::prefetch(Value pointer, bool for_write, Near near) {
  create<llvmd::Prefetch>(pointer, for_write ? 1 : 0, near == Near::first_cache ? 3 : 2, 1);
}

void Builder::raise(Value flags_pointer, std::uint32_t bits) {
  Value value = create<arith::ConstantOp>(ops_.getI32IntegerAttr(static_cast<std::int32_t>(bits)));
  create<llvmd::AtomicRMWOp>(llvmd::AtomicBinOp::_or, flags_pointer, value, llvmd::AtomicOrdering::monotonic);
}
Value Builder::null() { return create<llvmd::ZeroOp>(pointer_); }

mlir::Type Builder::element(DType type) {
  switch (type) {
    case DType::f32:
      return f32_;
    case DType::f16:
      return ops_.getF16Type();
    case DType::bf16:
      return ops_.getI16Type();  // by hand: without AVX512_BF16, LLVM 19 rounds to bf16 through a libcall per lane
  }
  return f32_;
}
Place Builder::at(Place place, Value elements) {
  return {create<llvmd::GEPOp>(pointer_, element(place.type), place.pointer, llvm::ArrayRef<llvmd::GEPArg>{elements}),
          place.type};
}
Place Builder::at(Place place, std::int64_t elements) { return elements == 0 ? place : at(place, i64(elements)); }

Value Builder::widen(Value raw, DType type) {
  if (type == DType::f32) return raw;
  const auto like = [&](mlir::Type element) -> mlir::Type {
    auto vector = llvm::dyn_cast<mlir::VectorType>(raw.getType());
    return vector ? vector.clone(element) : element;
  };
  if (type == DType::f16) return create<arith::ExtFOp>(like(f32_), raw);
  mlir::Type ints = like(ops_.getI32Type());
  Value sixteen = create<arith::ConstantOp>(
      llvm::isa<mlir::VectorType>(ints)
          ? mlir::TypedAttr(mlir::DenseElementsAttr::get(llvm::cast<mlir::VectorType>(ints), int32_t{16}))
          : mlir::TypedAttr(ops_.getI32IntegerAttr(16)));
  return create<arith::BitcastOp>(like(f32_), create<arith::ShLIOp>(create<arith::ExtUIOp>(ints, raw), sixteen));
}
Value Builder::narrow(Value vector, DType type) {
  if (type == DType::f32) return vector;
  if (type == DType::f16) return create<arith::TruncFOp>(vector_.clone(ops_.getF16Type()), vector);
  const auto ints = [&](std::int32_t value) {
    return create<arith::ConstantOp>(mlir::DenseElementsAttr::get(ints_, value)).getResult();
  };
  Value bits = create<arith::BitcastOp>(ints_, vector);
  Value odd = create<arith::AndIOp>(create<arith::ShRUIOp>(bits, ints(16)), ints(1));
  Value rounded = create<arith::AddIOp>(create<arith::AddIOp>(bits, odd), ints(0x7fff));
  Value nan = create<arith::CmpFOp>(arith::CmpFPredicate::UNO, vector, vector);
  Value kept = create<arith::SelectOp>(nan, ints(0x7fc00000), rounded);
  return create<arith::TruncIOp>(vector_.clone(ops_.getI16Type()), create<arith::ShRUIOp>(kept, ints(16)));
}

namespace {
constexpr unsigned alignment_of(DType type) { return type == DType::f32 ? 4 : 2; }
}  // namespace

// Lane by lane at the edge of a 16-bit row: AVX2 has no masked load or store of 16 bits.
Value Builder::load_first(Place place, int count) {
  if (place.type == DType::f32) return load_first(place.pointer, count);
  auto type = vector_.clone(element(place.type));
  const unsigned alignment = alignment_of(place.type);
  if (count == lanes_) return widen(create<llvmd::LoadOp>(type, place.pointer, alignment), place.type);
  Value raw = create<arith::ConstantOp>(ops_.getZeroAttr(type));
  for (int lane = 0; lane < count; ++lane)
    raw = create<vec::InsertOp>(create<llvmd::LoadOp>(type.getElementType(), at(place, lane).pointer, alignment), raw,
                                llvm::ArrayRef<int64_t>{lane});
  return widen(raw, place.type);
}
void Builder::store_first(Value vector, Place place, int count) {
  if (place.type == DType::f32) return store_first(vector, place.pointer, count);
  const unsigned alignment = alignment_of(place.type);
  Value raw = narrow(vector, place.type);
  if (count == lanes_) {
    create<llvmd::StoreOp>(raw, place.pointer, alignment);
    return;
  }
  for (int lane = 0; lane < count; ++lane)
    create<llvmd::StoreOp>(create<vec::ExtractOp>(raw, llvm::ArrayRef<int64_t>{lane}), at(place, lane).pointer,
                           alignment);
}
void Builder::copy_first(Place from, Place to, int count) {
  if (from.type == DType::f32) return store_first(load_first(from.pointer, count), to.pointer, count);
  auto type = vector_.clone(ops_.getI16Type());
  const auto move = [&](mlir::Type moved, std::int64_t lane) {
    create<llvmd::StoreOp>(create<llvmd::LoadOp>(moved, at(from, lane).pointer, 2), at(to, lane).pointer, 2);
  };
  if (count == lanes_) return move(type, 0);
  for (int lane = 0; lane < count; ++lane) move(type.getElementType(), lane);
}
void Builder::fill(Place place, float value) { store_first(constant(value), place, lanes_); }
Value Builder::constant(float value) { return create<arith::ConstantOp>(mlir::DenseElementsAttr::get(vector_, value)); }
Value Builder::fadd(Value a, Value b) { return create<arith::AddFOp>(a, b); }
Value Builder::fsub(Value a, Value b) { return create<arith::SubFOp>(a, b); }
Value Builder::negate(Value a) { return create<arith::NegFOp>(a); }
Value Builder::fmul(Value a, Value b) { return create<arith::MulFOp>(a, b); }
Value Builder::fma(Value a, Value b, Value c) { return create<vec::FMAOp>(a, b, c); }

Value Builder::exp(Value x) {
  // Coefficients of 2^f - 1 = f * (c1 + f * (c2 + ...)) with the constant term exact, so that f = 0 gives exactly 1 and
  // n = -127 gives exactly 0.
  constexpr float c[] = {6.931470633e-01f, 2.402293086e-01f, 5.548528209e-02f,
                         9.675451554e-03f, 1.246784581e-03f, 2.161291632e-04f};
  Value z = create<arith::MaximumFOp>(fmul(x, constant(1.44269504f)), constant(-127.0f));
  Value n = create<llvmd::FFloorOp>(vector_, z);
  Value f = create<arith::SubFOp>(z, n);
  Value p = constant(c[5]);
  for (int i = 4; i >= 0; --i) p = fma(p, f, constant(c[i]));
  p = fma(p, f, constant(1.0f));
  Value exponent = create<arith::ShLIOp>(create<arith::FPToSIOp>(ints_, n),
                                         create<arith::ConstantOp>(mlir::DenseElementsAttr::get(ints_, int32_t{23})));
  Value bits = create<arith::AddIOp>(create<arith::BitcastOp>(ints_, p), exponent);
  return create<arith::BitcastOp>(vector_, bits);
}

Value Builder::log1p(Value u) {
  constexpr float c[] = {9.999999659e-01f,  -4.999944498e-01f, 3.331812171e-01f,  -2.483539899e-01f, 1.907688074e-01f,
                         -1.360224762e-01f, 7.751608674e-02f,  -2.907406468e-02f, 5.126102141e-03f};
  Value p = constant(c[8]);
  for (int i = 7; i >= 0; --i) p = fma(p, u, constant(c[i]));
  return fmul(p, u);
}
Value Builder::max(Value a, Value b) { return create<arith::MaximumFOp>(a, b); }
Value Builder::min_float(Value a, Value b) { return create<arith::MinimumFOp>(a, b); }

Values Builder::transpose(const Values& rows) {
  // Blocks of `half` lanes trade places across the diagonal, from halves of the matrix down to single lanes.
  Values out = rows;
  for (int half = lanes_ / 2; half >= 1; half /= 2) {
    llvm::SmallVector<int64_t> upper, lower;
    for (int lane = 0; lane < lanes_; ++lane) {
      const bool low = (lane & half) == 0;
      upper.push_back(low ? lane : lanes_ + lane - half);
      lower.push_back(low ? lane + half : lanes_ + lane);
    }
    for (int i = 0; i < lanes_; ++i) {
      if (i & half) continue;
      Value a = out[i], b = out[i + half];
      out[i] = create<vec::ShuffleOp>(a, b, upper);
      out[i + half] = create<vec::ShuffleOp>(a, b, lower);
    }
  }
  return out;
}

Values Builder::sums(const Values& vectors) {
  // A transposing tree: each level halves the number of vectors and doubles the sums a vector holds.
  Values scalars(vectors.size());
  for (std::size_t base = 0; base < vectors.size(); base += lanes_) {
    const auto count = std::min<std::size_t>(lanes_, vectors.size() - base);
    Values level(vectors.begin() + base, vectors.begin() + base + count);
    level.resize(lanes_, level.back());
    for (int half = lanes_ / 2; half >= 1; half /= 2) {
      // Vector i pairs with vector i + half; lanes go in blocks of `half`.
      llvm::SmallVector<int64_t> low, high;
      for (int lane = 0; lane < lanes_; ++lane) {
        const int block = lane / half, within = lane % half;
        const int from = (block / 2) * 2 * half + within;
        const int vector_base = block % 2 == 0 ? 0 : lanes_;
        low.push_back(vector_base + from);
        high.push_back(vector_base + from + half);
      }
      Values next;
      for (int i = 0; i < half; ++i)
        next.push_back(fadd(create<vec::ShuffleOp>(level[i], level[i + half], low),
                            create<vec::ShuffleOp>(level[i], level[i + half], high)));
      level = std::move(next);
    }
    for (std::size_t i = 0; i < count; ++i)
      scalars[base + i] = create<vec::ExtractOp>(level[0], llvm::ArrayRef<int64_t>{static_cast<int64_t>(i)});
  }
  return scalars;
}

Values Builder::loop(Value from, Value to, std::int64_t step, const Values& initial, const Body& body) {
  auto op = create<scf::ForOp>(from, to, i64(step), mlir::ValueRange(initial),
                               [&](mlir::OpBuilder& inner, mlir::Location loc, Value i, mlir::ValueRange carried) {
                                 mlir::OpBuilder::InsertionGuard guard(ops_);
                                 ops_.setInsertionPoint(inner.getInsertionBlock(), inner.getInsertionPoint());
                                 const Values next = body(i, Values(carried.begin(), carried.end()));
                                 ops_.create<scf::YieldOp>(loc, mlir::ValueRange(next));
                               });
  return Values(op.getResults().begin(), op.getResults().end());
}
void Builder::loop(Value from, Value to, std::int64_t step, const std::function<void(Value)>& body) {
  loop(from, to, step, {}, [&](Value i, const Values&) -> Values {
    body(i);
    return {};
  });
}
Values Builder::strips(std::int64_t count, std::int64_t step, const Values& initial,
                       const std::function<Values(Value, int, const Values&)>& body) {
  const std::int64_t whole = count / step * step;
  Values carried = initial;
  if (whole == step)
    carried = body(i64(0), static_cast<int>(step), carried);
  else if (whole > 0)
    carried = loop(i64(0), i64(whole), step, carried,
                   [&](Value i, const Values& values) { return body(i, static_cast<int>(step), values); });
  if (whole < count) carried = body(i64(whole), static_cast<int>(count - whole), carried);
  return carried;
}
void Builder::strips(std::int64_t count, std::int64_t step, const std::function<void(Value, int)>& body) {
  strips(count, step, {}, [&](Value start, int size, const Values&) -> Values {
    body(start, size);
    return {};
  });
}
Values Builder::choose(Value condition, const std::function<Values()>& yes, const std::function<Values()>& no) {
  const auto branch = [&](const std::function<Values()>& body) {
    return [&](mlir::OpBuilder& inner, mlir::Location loc) {
      mlir::OpBuilder::InsertionGuard guard(ops_);
      ops_.setInsertionPoint(inner.getInsertionBlock(), inner.getInsertionPoint());
      const Values values = body();
      ops_.create<scf::YieldOp>(loc, mlir::ValueRange(values));
    };
  };
  auto op = create<scf::IfOp>(condition, branch(yes), branch(no));
  return Values(op.getResults().begin(), op.getResults().end());
}
void Builder::when(Value condition, const std::function<void()>& yes, const std::function<void()>& no) {
  auto op = create<scf::IfOp>(condition, static_cast<bool>(no));
  mlir::OpBuilder::InsertionGuard guard(ops_);
  ops_.setInsertionPointToStart(&op.getThenRegion().front());
  yes();
  if (no) {
    ops_.setInsertionPointToStart(&op.getElseRegion().front());
    no();
  }
}

}  // namespace glaive::cpu
