#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autotune/cache.hpp"
#include "autotune/cli/arguments.hpp"
#include "autotune/evaluator.hpp"
#include "runtime/problem.hpp"

namespace glaive::cli {

/// What a command ends with: 0 it worked, 1 it did not, 2 it was asked wrongly.
enum Exit : int { success = 0, failure = 1, usage = 2 };

// Each adds one command to the program; `exit` gets what it ends with.
void add_tune(CLI::App& program, int& exit);
void add_bench(CLI::App& program, int& exit);
void add_verify(CLI::App& program, int& exit);
void add_inspect(CLI::App& program, int& exit);
void add_list(CLI::App& program, int& exit);
void add_pack(CLI::App& program, int& exit);
void add_prepare(CLI::App& program, int& exit);
void add_winners(CLI::App& program, int& exit);
void add_emit(CLI::App& program, int& exit);
void add_doctor(CLI::App& program, int& exit);
void add_record(CLI::App& program, int& exit);
void add_replay(CLI::App& program, int& exit);
void add_report(CLI::App& program, int& exit);
void add_worker(CLI::App& program, int& exit);  ///< hidden

/// What compiles and runs kernels, in worker processes or, for debugging, in this one.
Result<std::unique_ptr<Evaluator>> make_evaluator(const std::string& device, int threads, bool in_process);

/// Adds --device.
void add_device(Command& command, std::string& asked);
/// The device asked for by name, or the usual one.
struct NamedDevice {
  std::string name;
  DeviceInfo info;
  int workers(int threads) const { return info.target.kind == Target::Kind::cpu ? threads : 1; }
};
Result<NamedDevice> read_device(const std::string& asked);

/// The command line as typed, quoted for a shell.
const std::string& command_line();
void set_command_line(int argc, char** argv);

/// Prints `glaive: sentence` and returns the code for an error of that status.
int report(const Error& error);
int report_usage(const std::string& sentence);
/// The same for an error that lies in a problem which nothing covers; names the problem.
int report_for(const Problem& problem, const Error& error);

/// `1 winner`, `2 winners`.
std::string counted(std::size_t count, std::string_view one, std::string_view many);

/// From now on Ctrl-C says that the work can be gone on with, before it ends the process.
void tell_when_interrupted();

/// Cases of the lines and sets together, each once. A line may also come as separate words. Fails with invalid_argument
/// and a message ready for report_usage.
Result<std::vector<Case>> read_cases(const std::vector<std::string>& lines, const std::vector<std::string>& sets,
                                     DType set_io = DType::f32);
/// What problem sets that name no dtype are for: bf16 on a GPU, f32 on a CPU.
DType set_io_of(const NamedDevice& device);
Result<Case> read_case(const std::string& line);

// Numbers as typed, so that a sentence can say what was given and what is allowed.
/// Number of threads asked for (0 = one per CPU that this process may run on).
Result<int> read_threads(const std::string& asked);
Result<std::uint64_t> read_seed(const std::string& asked);
/// A number from 1 to 1,000,000, given to `option`.
Result<std::uint64_t> read_count(std::string_view option, const std::string& asked);

/// Seconds to time for; nothing when nothing was asked.
Result<std::optional<double>> read_seconds(const std::string& asked);

/// The pack asked for, or the default one in the cache folder; neither need exist. Fails with untrusted when others can
/// write to the folder.
Result<std::filesystem::path> read_pack(const std::string& asked);

/// Adds --lock, which says how long to wait for another process on the device.
void add_lock(Command& command, std::string& asked);
/// `wait`, `fail` or a number of seconds; tells on stderr whom it waits for.
Result<Patience> read_patience(const std::string& asked);

}  // namespace glaive::cli
