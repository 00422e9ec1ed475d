#include "autotune/worker/worker.hpp"

#include "autotune/cli/command.hpp"

namespace glaive::cli {

Result<std::unique_ptr<Evaluator>> make_evaluator(int threads, bool in_process) {
  if (in_process or not have_compiler()) return make_local_evaluator(threads);
  return make_worker_evaluator({.threads = threads});
}

void add_worker(CLI::App& program, int& exit) {
  auto* command = program.add_subcommand("worker", "Compile and run kernels for the glaive that started this");
  command->group("");  // nothing for people
  command->callback(
      [&exit] { exit = serve_worker([](int threads, Pulse& pulse) { return make_local_evaluator(threads, pulse); }); });
}

}  // namespace glaive::cli
