#pragma once
// CUDA kernels compiled for the host with emulator.hpp in the place of PTX.
#include <functional>
#include <memory>
#include <string>

#include "autotune/verify.hpp"
#include "templates/family.hpp"

namespace glaive {

class Emulated {
 public:
  /// Whether there is a C++ compiler to build one with.
  static bool available();
  using Edit = std::function<void(std::string& text)>;
  /// Throws what the compiler says. `edit` changes the kernel's text first.
  Emulated(const Instance& instance, const Variant& variant, const Edit& edit = {});
  ~Emulated();
  Emulated(const Emulated&) = delete;

  const Plan& plan() const { return plan_; }
  /// Each run takes the threads in another order. Throws if it writes outside the workspace.
  void run(Words words, const Extents& extents);

 private:
  Plan plan_;
  void* library_ = nullptr;
  using Entry = void(const std::uint64_t* words, const void* maps, unsigned grid, int order);
  std::vector<Entry*> entries_;  // of the plan's stages
  int runs_ = 0;
};

}  // namespace glaive
