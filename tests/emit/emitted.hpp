#pragma once
// What was emitted, as a library in this process.
#include <dlfcn.h>

#include "autotune/emit/launcher/gla.h"
#include "runtime/glaive.h"
#include "tests/emit/support.hpp"

namespace glaive::testing {

class EmittedLibrary {
 public:
  explicit EmittedLibrary(const Folder& folder) {
    const auto library = (folder / "libgla.so").string();
    const Output compiled = run_command(strict_c + ("-O3 -shared -fPIC " + (folder / "out").string()) +
                                        "/src/gla.c -o " + library + " -lpthread -ldl -lm");
    INFO(compiled.text);
    REQUIRE(compiled.exit == 0);
    handle_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(handle_ != nullptr);
    find(last_error, "gla_last_error"), find(problem_find, "gla_problem_find");
    find(device_open, "gla_device_open"), find(device_close, "gla_device_close");
    find(operator_create, "gla_operator_create"), find(operator_close, "gla_operator_close");
    find(operator_plan, "gla_operator_plan"), find(operator_plan_within, "gla_operator_plan_within");
    find(operator_workspace, "gla_operator_workspace"), find(plan_workspace, "gla_plan_workspace");
    find(plan_fit, "gla_plan_fit"), find(plan_variant, "gla_plan_variant"), find(plan_target, "gla_plan_target");
    find(run, "gla_run"), find(launch_prepare, "gla_launch_prepare");
    find(launch_run, "gla_launch_run"), find(launch_close, "gla_launch_close");
    find(launch_stages, "gla_launch_stages"), find(launch_tasks, "gla_launch_tasks");
    find(launch_task, "gla_launch_task");
  }
  EmittedLibrary(const EmittedLibrary&) = delete;
  ~EmittedLibrary() { dlclose(handle_); }

  decltype(&gla_last_error) last_error;
  decltype(&gla_problem_find) problem_find;
  decltype(&gla_device_open) device_open;
  decltype(&gla_device_close) device_close;
  decltype(&gla_operator_create) operator_create;
  decltype(&gla_operator_close) operator_close;
  decltype(&gla_operator_plan) operator_plan;
  decltype(&gla_operator_plan_within) operator_plan_within;
  decltype(&gla_operator_workspace) operator_workspace;
  decltype(&gla_plan_workspace) plan_workspace;
  decltype(&gla_plan_fit) plan_fit;
  decltype(&gla_plan_variant) plan_variant;
  decltype(&gla_plan_target) plan_target;
  decltype(&gla_run) run;
  decltype(&gla_launch_prepare) launch_prepare;
  decltype(&gla_launch_run) launch_run;
  decltype(&gla_launch_close) launch_close;
  decltype(&gla_launch_stages) launch_stages;
  decltype(&gla_launch_tasks) launch_tasks;
  decltype(&gla_launch_task) launch_task;

 private:
  template <class Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
    INFO(name);
    REQUIRE(function != nullptr);
  }
  void* handle_ = nullptr;
};

/// A problem of it on a device.
class EmittedOperator {
 public:
  EmittedOperator(const EmittedLibrary& gla, const char* device, int workers, const char* problem) : gla_(gla) {
    gla_problem found;
    INFO(problem << " on " << device);
    const bool opened = gla_.device_open(device, workers, &device_) == GLA_OK and
                        gla_.problem_find(problem, &found) == GLA_OK and
                        gla_.operator_create(device_, found, &op_) == GLA_OK;
    INFO(gla_.last_error());
    REQUIRE(opened);
  }
  EmittedOperator(const EmittedOperator&) = delete;
  ~EmittedOperator() {
    gla_.operator_close(op_);
    gla_.device_close(device_);
  }
  const gla_operator* get() const { return op_; }
  const gla_plan* plan(const gla_shape& shape) const {
    const gla_plan* plan = nullptr;
    REQUIRE(gla_.operator_plan(op_, &shape, &plan) == GLA_OK);
    return plan;
  }

 private:
  const EmittedLibrary& gla_;
  gla_device* device_ = nullptr;
  gla_operator* op_ = nullptr;
};

inline gla_shape emitted_shape(const glaive_shape& s) { return {s.sequences, s.tokens, s.longest, s.cu_seqlens}; }

inline gla_args emitted_args(const glaive_args& a) {
  return {a.q,
          a.k,
          a.v,
          a.g,
          a.o,
          a.initial_state,
          a.final_state,
          a.read_slots,
          a.write_slots,
          a.slots,
          a.device_status,
          a.stream,
          a.q_token_stride,
          a.q_head_stride,
          a.k_token_stride,
          a.k_head_stride,
          a.v_token_stride,
          a.v_head_stride,
          a.g_token_stride,
          a.g_head_stride,
          a.o_token_stride,
          a.o_head_stride,
          a.initial_state_slot_stride,
          a.initial_state_head_stride,
          a.final_state_slot_stride,
          a.final_state_head_stride,
          a.scale,
          a.gate_tau,
          a.gate_clamp};
}

}  // namespace glaive::testing
