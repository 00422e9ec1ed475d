#include <llvm-c/Core.h>
#include <llvm/ADT/StringExtras.h>
#include <llvm/Analysis/TargetLibraryInfo.h>
#include <llvm/Analysis/TargetTransformInfo.h>
#include <llvm/IR/DiagnosticInfo.h>
#include <llvm/IR/DiagnosticPrinter.h>
#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/MCSubtargetInfo.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/TargetParser/Host.h>
#include <llvm/Transforms/IPO/AlwaysInliner.h>
#include <llvm/Transforms/InstCombine/InstCombine.h>
#include <llvm/Transforms/Scalar/DCE.h>
#include <llvm/Transforms/Scalar/EarlyCSE.h>
#include <llvm/Transforms/Scalar/LICM.h>
#include <llvm/Transforms/Scalar/LoopPassManager.h>
#include <llvm/Transforms/Scalar/SROA.h>
#include <llvm/Transforms/Scalar/SimplifyCFG.h>
#include <llvm/Transforms/Utils/Cloning.h>

#include <algorithm>

#include "compiler/backend.hpp"

namespace glaive {

std::string host_cpu_name() { return llvm::sys::getHostCPUName().str(); }

std::string compiler_build() {
  unsigned major = 0, minor = 0, patch = 0;
  LLVMGetVersion(&major, &minor, &patch);  // of the library that runs, not of the headers
  return "glaive-compiler 1, LLVM " + std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

namespace backend {
namespace {

constexpr const char* triple = "x86_64-unknown-linux-gnu";

using Effort = CompileOptions::Effort;

const llvm::Target* x86() {
  static const llvm::Target* const target = [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();  // inline assembly
    std::string error;
    return llvm::TargetRegistry::lookupTarget(triple, error);
  }();
  return target;
}

/// Messages and frame sizes that LLVM reports through the context, instead of printing.
struct Diagnostics {
  std::string errors;
  std::int64_t stack_bytes = 0;

  static void receive(const llvm::DiagnosticInfo* info, void* self) {
    auto& diagnostics = *static_cast<Diagnostics*>(self);
    if (const auto* size = llvm::dyn_cast<llvm::DiagnosticInfoStackSize>(info)) {
      diagnostics.stack_bytes = std::max(diagnostics.stack_bytes, static_cast<std::int64_t>(size->getStackSize()));
      return;
    }
    if (info->getSeverity() != llvm::DS_Error) return;
    if (not diagnostics.errors.empty()) diagnostics.errors += "; ";
    llvm::raw_string_ostream stream(diagnostics.errors);
    llvm::DiagnosticPrinterRawOStream printer(stream);
    info->print(printer);
  }
};

void set_attributes(llvm::Module& module, const CompileOptions& options, std::span<const std::string> entries) {
  std::string features;
  for (const auto& feature : options.target.features) features += (features.empty() ? "+" : ",+") + feature;
  const auto width = std::to_string(vector_bits(options.target));
  for (auto& function : module) {
    if (function.isDeclaration()) continue;
    if (std::ranges::find(entries, function.getName()) == entries.end())
      function.setLinkage(llvm::GlobalValue::InternalLinkage);
    function.addFnAttr("target-cpu", options.target.arch);
    if (not features.empty()) function.addFnAttr("target-features", features);
    if (not options.tune_cpu.empty()) function.addFnAttr("tune-cpu", options.tune_cpu);
    function.addFnAttr("prefer-vector-width", width);
    function.addFnAttr("no-builtins");           // a loop that clears or copies must not become a call
    function.addFnAttr("warn-stack-size", "0");  // reports every frame to Diagnostics
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
}

/// Families write unrolled vector code already: cleaning up after the lowering is all that pays before instruction
/// selection.
void add_light_passes(llvm::ModulePassManager& passes) {
  llvm::FunctionPassManager function;
  function.addPass(llvm::SROAPass(llvm::SROAOptions::ModifyCFG));
  function.addPass(llvm::EarlyCSEPass(true));
  function.addPass(llvm::SimplifyCFGPass());
  function.addPass(llvm::InstCombinePass());
  function.addPass(llvm::createFunctionToLoopPassAdaptor(llvm::LICMPass(llvm::LICMOptions()), /*UseMemorySSA=*/true));
  function.addPass(llvm::EarlyCSEPass(true));
  function.addPass(llvm::SimplifyCFGPass());
  function.addPass(llvm::DCEPass());
  passes.addPass(llvm::AlwaysInlinerPass());
  passes.addPass(llvm::createModuleToFunctionPassAdaptor(std::move(function)));
}

void optimise(llvm::Module& module, llvm::TargetMachine& machine, Effort effort) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  llvm::ModulePassManager passes;
  if (effort == Effort::light)
    add_light_passes(passes);
  else
    passes = builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3);
  passes.run(module, modules);
}

Result<void> generate(llvm::Module& module, llvm::TargetMachine& machine, llvm::CodeGenFileType type,
                      llvm::raw_pwrite_stream& stream) {
  llvm::legacy::PassManager passes;
  if (machine.addPassesToEmitFile(passes, stream, nullptr, type, /*DisableVerify=*/true))
    return fail(Status::failed, "codegen: LLVM cannot write this kind of file");
  passes.run(module);
  return {};
}

}  // namespace

void MachineDeleter::operator()(llvm::TargetMachine* machine) const { delete machine; }

Result<Machine> make_machine(const CompileOptions& options) {
  const auto& target = options.target;
  const auto bad = [&](const std::string& what) { return fail(Status::invalid_argument, "target: " + what); };
  if (target.kind != Target::Kind::cpu)
    return bad(to_string(target) + " is no CPU target; this compiler makes cpu:... code");
  const std::string_view levels[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
  if (std::ranges::find(levels, target.arch) == std::end(levels))
    return bad("unknown level '" + target.arch + "'; allowed are x86-64-v2, x86-64-v3, x86-64-v4");

  std::string features;
  for (const auto& feature : target.features) features += (features.empty() ? "+" : ",+") + feature;
  llvm::TargetOptions target_options;
  target_options.AllowFPOpFusion = llvm::FPOpFusion::Fast;
  const auto level =
      options.effort == Effort::light ? llvm::CodeGenOptLevel::Default : llvm::CodeGenOptLevel::Aggressive;

  // Names are looked up in a machine without features: LLVM prints a warning for each that it does not know.
  const std::unique_ptr<llvm::MCSubtargetInfo> known(x86()->createMCSubtargetInfo(triple, target.arch, ""));
  for (const auto& feature : target.features) {
    const auto names = known->getAllProcessorFeatures();
    if (std::ranges::none_of(names, [&](const auto& entry) { return feature == entry.Key; }))
      return bad("LLVM knows no x86 feature '" + feature + "' (of " + to_string(target) + ")");
  }
  if (not options.tune_cpu.empty() and not known->isCPUStringValid(options.tune_cpu))
    return bad("LLVM knows no x86-64 processor '" + options.tune_cpu + "' to tune for");

  // JIT=true would choose the large code model.
  return Machine(x86()->createTargetMachine(triple, target.arch, features, target_options, llvm::Reloc::PIC_,
                                            llvm::CodeModel::Small, level, /*JIT=*/false));
}

Result<Object> emit_object(llvm::Module& module, llvm::TargetMachine& machine, const CompileOptions& options,
                           std::span<const std::string> entries, StageClock& clock, Dump* dump) {
  Diagnostics diagnostics;
  auto& context = module.getContext();
  context.setDiagnosticHandlerCallBack(Diagnostics::receive, &diagnostics);

  clock.start();
  module.setTargetTriple(triple);
  module.setDataLayout(machine.createDataLayout());
  module.setPICLevel(llvm::PICLevel::BigPIC);
  set_attributes(module, options, entries);
  std::string broken;
  llvm::raw_string_ostream broken_stream(broken);
  if (llvm::verifyModule(module, &broken_stream))
    return fail(Status::failed, "translate: LLVM refuses the module: " + broken_stream.str());
  optimise(module, machine, options.effort);
  clock.done("optimise");

  std::unique_ptr<llvm::Module> copy;
  if (dump) {
    llvm::raw_string_ostream stream(dump->llvm);
    module.print(stream, nullptr);
    copy = llvm::CloneModule(module);  // code generation alters the module
  }

  clock.start();
  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  if (auto made = generate(module, machine, llvm::CodeGenFileType::ObjectFile, stream); not made)
    return std::unexpected(made.error());
  clock.done("codegen");
  if (not diagnostics.errors.empty()) return fail(Status::failed, "codegen: " + diagnostics.errors);

  if (dump) {
    llvm::SmallVector<char, 0> text;
    llvm::raw_svector_ostream text_stream(text);
    if (auto made = generate(*copy, machine, llvm::CodeGenFileType::AssemblyFile, text_stream); not made)
      return std::unexpected(made.error());
    dump->assembly.assign(text.begin(), text.end());
  }
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  return Object{{data, data + bytes.size()}, diagnostics.stack_bytes};
}

}  // namespace backend
}  // namespace glaive
