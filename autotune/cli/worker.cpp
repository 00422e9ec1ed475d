#include "autotune/worker/worker.hpp"

#include <memory>

#include "autotune/cli/command.hpp"

namespace glaive::cli {

Result<std::unique_ptr<Evaluator>> make_evaluator(const std::string& device, int threads, bool in_process) {
  if (in_process or (device == "cpu" and not have_compiler())) return make_local_evaluator(device, threads);
  return make_worker_evaluator({.threads = threads, .arguments = {"worker", device}});
}

void add_worker(CLI::App& program, int& exit) {
  Command command(program, exit, "worker", "Compile and run kernels for the glaive that started this");
  command.hide();
  auto device = std::make_shared<std::string>("cpu");
  command.option("DEVICE", *device, "");
  command.run([device] {
    return serve_worker([&](int threads, Pulse& pulse) { return make_local_evaluator(*device, threads, pulse); });
  });
}

}  // namespace glaive::cli
