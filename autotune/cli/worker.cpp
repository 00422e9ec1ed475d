#include "autotune/worker/worker.hpp"

#include <memory>

#include "autotune/cli/command.hpp"

namespace glaive::cli {

Result<std::unique_ptr<Evaluator>> make_evaluator(const std::string& device, int threads, bool in_process) {
  if (in_process or (device == "cpu" and not have_compiler())) return make_local_evaluator(device, threads);
  return make_worker_evaluator({.threads = threads, .arguments = {"worker", device}});
}

void add_worker(CLI::App& program, int& exit) {
  auto* command = program.add_subcommand("worker", "Compile and run kernels for the glaive that started this");
  command->group("");  // nothing for people
  auto device = std::make_shared<std::string>("cpu");
  command->add_option("DEVICE", *device);
  command->callback([&exit, device] {
    exit = serve_worker([&](int threads, Pulse& pulse) { return make_local_evaluator(*device, threads, pulse); });
  });
}

}  // namespace glaive::cli
