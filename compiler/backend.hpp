#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/compiler.hpp"
#include "compiler/key.hpp"

namespace llvm {
class Module;
class TargetMachine;
}  // namespace llvm

/// The steps below MLIR, each in a source file of its own, so that no file includes both MLIR's and lld's headers.
namespace glaive::backend {

/// Records how long each stage took, where somebody asked.
class StageClock {
 public:
  explicit StageClock(Dump* dump) : dump_(dump) {}
  /// Starts the clock; time between `done` and `start` belongs to no stage.
  void start() { start_ = std::chrono::steady_clock::now(); }
  void done(std::string_view stage) {
    if (dump_) dump_->times.push_back({stage, std::chrono::steady_clock::now() - start_});
  }

 private:
  Dump* dump_;
  std::chrono::steady_clock::time_point start_;
};

struct MachineDeleter {
  void operator()(llvm::TargetMachine* machine) const;
};
using Machine = std::unique_ptr<llvm::TargetMachine, MachineDeleter>;

/// Checks level, features and processor against what LLVM knows: LLVM itself only warns about a wrong name.
Result<Machine> make_machine(const CompileOptions& options);

struct Object {
  std::vector<std::byte> bytes;  ///< relocatable ELF
  std::int64_t stack_bytes = 0;  ///< largest frame of a function
};

/// Optimises `module` in place and generates its code. Definitions that are not in `entries` become internal.
Result<Object> emit_object(llvm::Module& module, llvm::TargetMachine& machine, const CompileOptions& options,
                           std::span<const std::string> entries, StageClock& clock, Dump* dump);

/// What a relocatable ELF object holds. Fails where the bytes are no such object.
struct ObjectFacts {
  std::int64_t text_bytes = 0;
  std::vector<std::string> undefined;  ///< symbols that it needs
};
Result<ObjectFacts> object_facts(std::span<const std::byte> object);

/// Links one object into a shared object that exports its global symbols. One link at a time in a process. Fails with
/// `failed` when lld refuses the object, with io_error when descriptors, memory or threads do not suffice now.
Result<std::vector<std::byte>> link_shared(std::span<const std::byte> object);

}  // namespace glaive::backend
