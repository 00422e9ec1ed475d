#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/Module.h>
#include <mlir/Conversion/ArithToLLVM/ArithToLLVM.h>
#include <mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h>
#include <mlir/Conversion/LLVMCommon/ConversionTarget.h>
#include <mlir/Conversion/LLVMCommon/TypeConverter.h>
#include <mlir/Conversion/MathToLLVM/MathToLLVM.h>
#include <mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h>
#include <mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h>
#include <mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h>
#include <mlir/Dialect/Arith/IR/Arith.h>
#include <mlir/Dialect/ControlFlow/IR/ControlFlow.h>
#include <mlir/Dialect/LLVMIR/LLVMDialect.h>
#include <mlir/Dialect/Math/IR/Math.h>
#include <mlir/Dialect/MemRef/IR/MemRef.h>
#include <mlir/Dialect/SCF/IR/SCF.h>
#include <mlir/Dialect/Vector/IR/VectorOps.h>
#include <mlir/Dialect/Vector/Transforms/LoweringPatterns.h>
#include <mlir/Dialect/Vector/Transforms/VectorRewritePatterns.h>
#include <mlir/IR/Builders.h>
#include <mlir/IR/BuiltinOps.h>
#include <mlir/IR/Verifier.h>
#include <mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h>
#include <mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h>
#include <mlir/Target/LLVMIR/Export.h>
#include <mlir/Transforms/DialectConversion.h>
#include <mlir/Transforms/GreedyPatternRewriteDriver.h>

#include "compiler/backend.hpp"

namespace glaive {
namespace {

/// Collects what MLIR reports while it lives; without it MLIR would print.
class Captured {
 public:
  explicit Captured(mlir::MLIRContext* context)
      : handler_(context, [this](mlir::Diagnostic& diagnostic) {
          if (diagnostic.getSeverity() != mlir::DiagnosticSeverity::Error) return;
          if (not text_.empty()) text_ += "; ";
          text_ += diagnostic.str();
        }) {}
  std::string text(std::string_view if_none) const { return text_.empty() ? std::string(if_none) : text_; }
  bool any() const { return not text_.empty(); }

 private:
  std::string text_;
  mlir::ScopedDiagnosticHandler handler_;
};

/// Types of vectors that LLVM has: one dimension.
bool is_tiled(mlir::Type type) {
  const auto vector = mlir::dyn_cast<mlir::VectorType>(type);
  return vector and vector.getRank() != 1;
}

bool needs_vector_lowering(mlir::Operation* op) {
  return mlir::isa<mlir::vector::TransferReadOp, mlir::vector::TransferWriteOp, mlir::vector::ContractionOp,
                   mlir::vector::MultiDimReductionOp, mlir::vector::OuterProductOp, mlir::vector::MaskOp>(op) or
         llvm::any_of(op->getResultTypes(), is_tiled) or llvm::any_of(op->getOperandTypes(), is_tiled);
}

/// `llvm.func` is legal to the conversion whatever its blocks carry; scf leaves blocks with arguments of type index
/// there.
struct ConvertBlockArguments : mlir::OpConversionPattern<mlir::LLVM::LLVMFuncOp> {
  using OpConversionPattern::OpConversionPattern;
  mlir::LogicalResult matchAndRewrite(mlir::LLVM::LLVMFuncOp function, OpAdaptor,
                                      mlir::ConversionPatternRewriter& rewriter) const override {
    if (mlir::failed(rewriter.convertRegionTypes(&function.getBody(), *getTypeConverter()))) return mlir::failure();
    rewriter.modifyOpInPlace(function, [] {});
    return mlir::success();
  }
};

class RawHash : public llvm::raw_ostream {
 public:
  explicit RawHash(backend::KeyHash& hash) : hash_(hash) { SetBufferSize(1 << 16); }
  ~RawHash() override { flush(); }

 private:
  void write_impl(const char* data, std::size_t size) override {
    hash_.bytes(data, size);
    size_ += size;
  }
  std::uint64_t current_pos() const override { return size_; }

  backend::KeyHash& hash_;
  std::uint64_t size_ = 0;
};

mlir::OpPrintingFlags exact() { return mlir::OpPrintingFlags().assumeVerified().useLocalScope(); }

std::unexpected<Error> refuse_cuda() {
  return fail(Status::invalid_argument, "recipe: the source is CUDA C++, which is compiled for GPUs only");
}

std::string print(mlir::ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  module->print(stream, exact());
  return text;
}

mlir::DialectRegistry make_registry() {
  mlir::DialectRegistry registry;
  registry
      .insert<mlir::arith::ArithDialect, mlir::cf::ControlFlowDialect, mlir::LLVM::LLVMDialect, mlir::math::MathDialect,
              mlir::memref::MemRefDialect, mlir::scf::SCFDialect, mlir::vector::VectorDialect>();
  mlir::registerBuiltinDialectTranslation(registry);
  mlir::registerLLVMDialectTranslation(registry);
  return registry;
}

}  // namespace

struct MlirCompiler::Impl {
  mlir::MLIRContext context{make_registry(), mlir::MLIRContext::Threading::DISABLED};
  mlir::LLVMTypeConverter types;
  mlir::LLVMConversionTarget legal;
  mlir::ConversionTarget branches;
  mlir::FrozenRewritePatternSet tiles, control_flow, to_llvm;

  Impl() : types((context.loadAllAvailableDialects(), &context)), legal(context), branches(context) {
    context.printOpOnDiagnostic(false);

    mlir::RewritePatternSet tile_patterns(&context);
    mlir::vector::VectorTransformsOptions options;
    options.setVectorTransformsOptions(mlir::vector::VectorContractLowering::OuterProduct);
    options.setVectorTransposeLowering(mlir::vector::VectorTransposeLowering::Shuffle16x16);
    mlir::vector::populateVectorMaskOpLoweringPatterns(tile_patterns);
    mlir::vector::populateVectorContractLoweringPatterns(tile_patterns, options);
    mlir::vector::populateVectorOuterProductLoweringPatterns(tile_patterns);
    mlir::vector::populateVectorMultiReductionLoweringPatterns(
        tile_patterns, mlir::vector::VectorMultiReductionLowering::InnerParallel);
    mlir::vector::populateVectorBroadcastLoweringPatterns(tile_patterns);
    mlir::vector::populateVectorTransposeLoweringPatterns(tile_patterns, options);
    mlir::vector::populateVectorTransferPermutationMapLoweringPatterns(tile_patterns);
    mlir::vector::populateVectorTransferLoweringPatterns(tile_patterns, 1);
    mlir::vector::populateVectorShapeCastLoweringPatterns(tile_patterns);
    mlir::vector::populateVectorInsertExtractStridedSliceTransforms(tile_patterns);
    tiles = std::move(tile_patterns);

    mlir::RewritePatternSet control_patterns(&context);
    mlir::populateSCFToControlFlowConversionPatterns(control_patterns);
    control_flow = std::move(control_patterns);
    branches.addIllegalOp<mlir::scf::ForOp, mlir::scf::IfOp, mlir::scf::WhileOp, mlir::scf::IndexSwitchOp,
                          mlir::scf::ExecuteRegionOp, mlir::scf::ParallelOp, mlir::scf::ForallOp>();
    branches.markUnknownOpDynamicallyLegal([](mlir::Operation*) { return true; });

    mlir::RewritePatternSet patterns(&context);
    mlir::arith::populateArithToLLVMConversionPatterns(types, patterns);
    mlir::populateVectorToLLVMConversionPatterns(types, patterns);
    mlir::populateMathToLLVMConversionPatterns(types, patterns);
    mlir::populateFinalizeMemRefToLLVMConversionPatterns(types, patterns);
    mlir::cf::populateControlFlowToLLVMConversionPatterns(types, patterns);
    // What upstream does to 1-D vectors in a greedy rewrite of its own, at many times the cost.
    mlir::vector::populateVectorBroadcastLoweringPatterns(patterns);
    mlir::vector::populateVectorInterleaveLoweringPatterns(patterns);
    mlir::vector::populateVectorInsertExtractStridedSliceTransforms(patterns);
    mlir::vector::populateVectorMaskOpLoweringPatterns(patterns);
    mlir::vector::populateVectorMaskMaterializationPatterns(patterns, /*force32BitVectorIndices=*/false);
    patterns.add<ConvertBlockArguments>(types, &context);
    to_llvm = std::move(patterns);

    legal.addLegalOp<mlir::ModuleOp>();
    legal.addDynamicallyLegalOp<mlir::LLVM::LLVMFuncOp>([this](mlir::LLVM::LLVMFuncOp function) {
      return llvm::all_of(function.getBody(),
                          [this](mlir::Block& block) { return types.isLegal(block.getArgumentTypes()); });
    });
  }

  Result<mlir::OwningOpRef<mlir::ModuleOp>> build(const MlirSource& source, backend::StageClock& clock) {
    clock.start();
    Captured diagnostics(&context);
    mlir::OwningOpRef<mlir::ModuleOp> module = mlir::ModuleOp::create(mlir::UnknownLoc::get(&context));
    mlir::OpBuilder builder(&context);
    builder.setInsertionPointToStart(module->getBody());
    if (not source.build) return fail(Status::invalid_argument, "recipe: the source has none");
    try {
      source.build(builder, *module);
    } catch (const std::exception& error) {
      return fail(Status::failed, std::string("recipe: it threw: ") + error.what());
    }
    clock.done("build");
    if (diagnostics.any()) return fail(Status::failed, "recipe: " + diagnostics.text(""));

    clock.start();
    if (mlir::failed(mlir::verify(*module)))
      return fail(Status::failed, "verify: " + diagnostics.text("the module is malformed"));
    if (auto checked = check_entries(source, *module); not checked) return std::unexpected(checked.error());
    clock.done("verify");
    return module;
  }

  Result<void> check_entries(const MlirSource& source, mlir::ModuleOp module) {
    if (source.entries.empty()) return fail(Status::invalid_argument, "verify: the source names no entry");
    const auto pointer = mlir::LLVM::LLVMPointerType::get(&context);
    const auto type = mlir::LLVM::LLVMFunctionType::get(mlir::LLVM::LLVMVoidType::get(&context),
                                                        {pointer, mlir::IntegerType::get(&context, 64), pointer});
    for (const auto& entry : source.entries) {
      auto function = module.lookupSymbol<mlir::LLVM::LLVMFuncOp>(entry);
      if (not function or function.isExternal()) {
        std::string defined;
        for (auto other : module.getOps<mlir::LLVM::LLVMFuncOp>())
          if (not other.isExternal()) defined += (defined.empty() ? "" : ", ") + other.getSymName().str();
        return fail(Status::failed, "verify: no llvm.func defines the entry '" + entry + "'; the module defines " +
                                        (defined.empty() ? "none" : defined));
      }
      if (function.getFunctionType() != type) {
        std::string given;
        llvm::raw_string_ostream(given) << function.getFunctionType();
        return fail(Status::failed,
                    "verify: the entry '" + entry + "' is " + given + " instead of !llvm.func<void (ptr, i64, ptr)>");
      }
      if (function.getLinkage() != mlir::LLVM::Linkage::External)
        return fail(Status::failed, "verify: the entry '" + entry + "' must have external linkage");
    }
    return {};
  }

  Result<void> lower(mlir::ModuleOp module) {
    Captured diagnostics(&context);
    const bool tiled =
        module
            .walk([](mlir::Operation* op) {
              return needs_vector_lowering(op) ? mlir::WalkResult::interrupt() : mlir::WalkResult::advance();
            })
            .wasInterrupted();
    if (tiled and mlir::failed(mlir::applyPatternsAndFoldGreedily(module, tiles)))
      return fail(Status::failed, "lower: " + diagnostics.text("vector lowering does not converge"));
    // A step of its own: the blocks that it makes must exist when the function's blocks change their types.
    if (mlir::failed(mlir::applyPartialConversion(module.getOperation(), branches, control_flow)) or
        mlir::failed(mlir::applyFullConversion(module.getOperation(), legal, to_llvm)))
      return fail(Status::failed, "lower: " + diagnostics.text("an operation has no counterpart in LLVM"));
    return {};
  }
};

MlirCompiler::MlirCompiler() : impl_(std::make_unique<Impl>()) {}
MlirCompiler::~MlirCompiler() = default;

Result<CodeObject> MlirCompiler::compile(const Source& given, const CompileOptions& options, Dump* dump) {
  if (dump) *dump = {};
  if (not std::holds_alternative<MlirSource>(given)) return refuse_cuda();
  const auto& source = std::get<MlirSource>(given);
  backend::StageClock clock(dump);
  auto machine = backend::make_machine(options);
  if (not machine) return std::unexpected(machine.error());

  auto module = impl_->build(source, clock);
  if (not module) return std::unexpected(module.error());
  if (dump) dump->mlir = print(**module);

  clock.start();
  if (auto lowered = impl_->lower(**module); not lowered) return std::unexpected(lowered.error());
  clock.done("lower");
  if (dump) dump->lowered = print(**module);

  clock.start();
  llvm::LLVMContext context;  // one per compilation: it never gives back what it has made unique
  std::unique_ptr<llvm::Module> translated;
  {
    Captured diagnostics(&impl_->context);
    translated = mlir::translateModuleToLLVMIR(**module, context, "glaive", /*disableVerification=*/true);
    if (not translated)
      return fail(Status::failed, "translate: " + diagnostics.text("MLIR cannot express the module in LLVM IR"));
  }
  module->release().erase();
  clock.done("translate");

  auto object = backend::emit_object(*translated, **machine, options, source.entries, clock, dump);
  if (not object) return std::unexpected(object.error());
  auto facts = backend::object_facts(object->bytes);
  if (not facts) return std::unexpected(facts.error());
  for (const auto& name : facts->undefined)
    if (name != "memcpy" and name != "memmove" and name != "memset")
      return fail(Status::failed, "link: the code calls '" + name + "', which nothing defines");

  clock.start();
  auto shared = backend::link_shared(object->bytes);
  if (not shared) return std::unexpected(shared.error());
  clock.done("link");
  return CodeObject{CodeObject::Format::shared_object, options.target, std::move(*shared), facts->text_bytes,
                    object->stack_bytes};
}

Result<std::string> MlirCompiler::content_key(const Source& given, const CompileOptions& options) {
  if (not std::holds_alternative<MlirSource>(given)) return refuse_cuda();
  const auto& source = std::get<MlirSource>(given);
  backend::StageClock clock(nullptr);
  auto module = impl_->build(source, clock);
  if (not module) return std::unexpected(module.error());
  backend::KeyHash hash;
  hash.part(compiler_build());
  hash.part(to_string(options));
  for (const auto& entry : source.entries) hash.part(entry);
  {
    RawHash stream(hash);
    (*module)->print(stream, exact());
  }
  return hash.hex();
}

}  // namespace glaive
