#include "tests/compiler/recipes.hpp"

#include <elf.h>
#include <mlir/Dialect/Arith/IR/Arith.h>
#include <mlir/Dialect/LLVMIR/LLVMDialect.h>
#include <mlir/Dialect/SCF/IR/SCF.h>
#include <mlir/Dialect/Vector/IR/VectorOps.h>
#include <mlir/IR/Builders.h>
#include <mlir/IR/BuiltinOps.h>
#include <mlir/Parser/Parser.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>

namespace glaive::test {
namespace {

using mlir::OpBuilder;
using mlir::Value;
namespace arith = mlir::arith;
namespace LLVM = mlir::LLVM;
namespace scf = mlir::scf;
namespace vector = mlir::vector;

/// An entry under construction: its arguments and the types that it uses.
struct Entry {
  OpBuilder& builder;
  mlir::Location at;
  mlir::Type pointer, i64, f32, index;
  LLVM::LLVMFuncOp function;

  Entry(OpBuilder& given, std::string_view name)
      : builder(given),
        at(given.getUnknownLoc()),
        pointer(LLVM::LLVMPointerType::get(given.getContext())),
        i64(given.getI64Type()),
        f32(given.getF32Type()),
        index(given.getIndexType()) {
    const auto type = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(given.getContext()), {pointer, i64, pointer});
    function = make<LLVM::LLVMFuncOp>(name, type);
    builder.setInsertionPointToStart(function.addEntryBlock(builder));
  }

  template <class Op, class... Args>
  Op make(Args&&... args) {
    return builder.create<Op>(at, std::forward<Args>(args)...);
  }

  Value word(int i) { return make<LLVM::LoadOp>(i64, offset(i64, function.getArgument(0), i), /*alignment=*/8); }
  Value word_pointer(int i) { return make<LLVM::IntToPtrOp>(pointer, word(i)); }
  Value word_float(int i) { return make<arith::BitcastOp>(f32, make<arith::TruncIOp>(builder.getI32Type(), word(i))); }
  Value count(std::int64_t value) { return make<arith::ConstantIndexOp>(value); }
  Value offset(mlir::Type element, Value base, int by) {
    return make<LLVM::GEPOp>(pointer, element, base, llvm::ArrayRef<LLVM::GEPArg>{by});
  }
  Value offset(mlir::Type element, Value base, Value by) {  // `by` of type index
    const Value wide = make<arith::IndexCastOp>(i64, by);
    return make<LLVM::GEPOp>(pointer, element, base, llvm::ArrayRef<LLVM::GEPArg>{wide});
  }
  void finish() { make<LLVM::ReturnOp>(mlir::ValueRange{}); }
};

}  // namespace

MlirSource axpy_source(int width, int unroll) {
  return {{"axpy"}, [=](OpBuilder& builder, mlir::ModuleOp) {
            Entry e(builder, "axpy");
            const auto vec = mlir::VectorType::get({width}, e.f32);
            const auto x = e.word_pointer(0), y = e.word_pointer(1);
            const Value a = e.make<vector::BroadcastOp>(vec, e.word_float(2));
            const Value n = e.make<arith::IndexCastOp>(e.index, e.word(3));
            const auto step = e.count(width * unroll);
            const Value rest = e.make<arith::RemSIOp>(n, step);
            const Value full = e.make<arith::SubIOp>(n, rest);

            auto whole = e.make<scf::ForOp>(e.count(0), full, step);
            {
              const OpBuilder::InsertionGuard guard(builder);
              builder.setInsertionPointToStart(whole.getBody());
              const auto px = e.offset(e.f32, x, whole.getInductionVar()),
                         py = e.offset(e.f32, y, whole.getInductionVar());
              for (int u = 0; u < unroll; ++u) {
                const Value xs = e.make<LLVM::LoadOp>(vec, e.offset(e.f32, px, u * width), 4);
                const auto to = e.offset(e.f32, py, u * width);
                const Value ys = e.make<LLVM::LoadOp>(vec, to, 4);
                e.make<LLVM::StoreOp>(e.make<vector::FMAOp>(a, xs, ys), to, 4);
              }
            }
            auto tail = e.make<scf::ForOp>(full, n, e.count(width));
            {
              const OpBuilder::InsertionGuard guard(builder);
              builder.setInsertionPointToStart(tail.getBody());
              const auto i = tail.getInductionVar();
              const auto lanes = mlir::VectorType::get({width}, builder.getI1Type());
              const Value left = e.make<arith::SubIOp>(n, i);
              const Value mask = e.make<vector::CreateMaskOp>(lanes, left);
              const Value zero = e.make<arith::ConstantOp>(mlir::DenseElementsAttr::get(vec, 0.f));
              const Value xs = e.make<LLVM::MaskedLoadOp>(vec, e.offset(e.f32, x, i), mask, zero, 4);
              const auto to = e.offset(e.f32, y, i);
              const Value ys = e.make<LLVM::MaskedLoadOp>(vec, to, mask, zero, 4);
              e.make<LLVM::MaskedStoreOp>(e.make<vector::FMAOp>(a, xs, ys), to, mask, 4);
            }
            e.finish();
          }};
}

MlirSource tile_source(int rows, int width, int unroll) {
  return {{"tile"}, [=](OpBuilder& builder, mlir::ModuleOp) {
            Entry e(builder, "tile");
            const auto vec = mlir::VectorType::get({width}, e.f32);
            const auto a = e.word_pointer(0), b = e.word_pointer(1), c = e.word_pointer(2);
            const Value n = e.make<arith::IndexCastOp>(e.index, e.word(3));
            const Value zero = e.make<arith::ConstantOp>(mlir::DenseElementsAttr::get(vec, 0.f));
            auto loop = e.make<scf::ForOp>(e.count(0), n, e.count(unroll), llvm::SmallVector<Value>(rows * 2, zero));
            {
              const OpBuilder::InsertionGuard guard(builder);
              builder.setInsertionPointToStart(loop.getBody());
              const auto k = loop.getInductionVar();
              const auto pa = e.offset(e.f32, a, e.make<arith::MulIOp>(k, e.count(rows)));
              const auto pb = e.offset(e.f32, b, e.make<arith::MulIOp>(k, e.count(2 * width)));
              llvm::SmallVector<Value> sums(loop.getRegionIterArgs());
              for (int u = 0; u < unroll; ++u) {
                Value columns[2];
                for (int j = 0; j < 2; ++j)
                  columns[j] = e.make<LLVM::LoadOp>(vec, e.offset(e.f32, pb, (u * 2 + j) * width), 4);
                for (int i = 0; i < rows; ++i) {
                  const Value one = e.make<LLVM::LoadOp>(e.f32, e.offset(e.f32, pa, u * rows + i), 4);
                  const Value all = e.make<vector::BroadcastOp>(vec, one);
                  for (int j = 0; j < 2; ++j) sums[i * 2 + j] = e.make<vector::FMAOp>(all, columns[j], sums[i * 2 + j]);
                }
              }
              e.make<scf::YieldOp>(sums);
            }
            for (int i = 0; i < rows * 2; ++i)
              e.make<LLVM::StoreOp>(loop.getResult(i), e.offset(e.f32, c, i * width), 4);
            e.finish();
          }};
}

MlirSource text_source(std::string text, std::vector<std::string> entries) {
  return {std::move(entries), [text = std::move(text)](OpBuilder& builder, mlir::ModuleOp module) {
            auto parsed = mlir::parseSourceString<mlir::ModuleOp>(
                text, mlir::ParserConfig(builder.getContext(), /*verifyAfterParse=*/false));
            if (parsed)
              module.getBody()->getOperations().splice(module.getBody()->end(), parsed->getBody()->getOperations());
          }};
}

MlirSource throwing_source(std::string message) {
  return {{"entry"}, [=](OpBuilder&, mlir::ModuleOp) { throw std::runtime_error(message); }};
}

MlirSource body_source(const std::string& body) {
  std::string text = "llvm.func @entry(%words: !llvm.ptr, %task: i64, %scratch: !llvm.ptr) {\n";
  for (const std::string i : {"0", "1", "2", "3"}) {
    text += "  %at" + i + " = llvm.getelementptr %words[" + i + "] : (!llvm.ptr) -> !llvm.ptr, i64\n";
    text += "  %w" + i + " = llvm.load %at" + i + " : !llvm.ptr -> i64\n";
    text += "  %p" + i + " = llvm.inttoptr %w" + i + " : i64 to !llvm.ptr\n";
  }
  return text_source(text + body + "\n  llvm.return\n}\n");
}

DynamicSymbols dynamic_symbols(std::span<const std::byte> shared_object) {
  DynamicSymbols found;
  const auto* base = reinterpret_cast<const char*>(shared_object.data());
  const auto& header = *reinterpret_cast<const Elf64_Ehdr*>(base);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(base + header.e_shoff);
  for (int i = 0; i < header.e_shnum; ++i) {
    if (sections[i].sh_type != SHT_DYNSYM) continue;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(base + sections[i].sh_offset);
    const char* names = base + sections[sections[i].sh_link].sh_offset;
    for (std::size_t s = 1; s < sections[i].sh_size / sizeof *symbols; ++s)
      (symbols[s].st_shndx == SHN_UNDEF ? found.needed : found.exported).emplace_back(names + symbols[s].st_name);
  }
  return found;
}

ErrorOutput::ErrorOutput() : saved_(dup(STDERR_FILENO)), file_(memfd_create("stderr", MFD_CLOEXEC)) {
  std::fflush(stderr);
  dup2(file_, STDERR_FILENO);
}

ErrorOutput::~ErrorOutput() {
  std::fflush(stderr);
  dup2(saved_, STDERR_FILENO);
  close(saved_);
  close(file_);
}

std::string ErrorOutput::text() const {
  std::fflush(stderr);
  std::string text(static_cast<std::size_t>(lseek(file_, 0, SEEK_END)), '\0');
  return text.substr(0, static_cast<std::size_t>(std::max<ssize_t>(pread(file_, text.data(), text.size(), 0), 0)));
}

}  // namespace glaive::test
