#pragma once
// What a GLA model asks of a device beside glaive's kernels: matrix products from a library, and the small operations
// between them. Each is enqueued behind the one before; on a CPU it is done when it returns.
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "examples/generate/tokenizer.hpp"
#include "examples/generate/weights.hpp"
#include "runtime/glaive.hpp"

namespace generate {

namespace api = glaive::api;

/// Weights on a device, in its dtype.
struct Matrix {
  std::int64_t rows, columns;
  api::Memory numbers;
};

/// Rows of numbers on a device, `stride` numbers apart.
struct Rows {
  void* data;
  std::int64_t stride;
  std::int32_t dtype;  ///< GLAIVE_F32 or GLAIVE_BF16
};

enum class Phase { products, gla, elementwise, host };

/// What a while of decoding took, in seconds. On a CPU `busy` is the sum of the first three phases; on a GPU it is the
/// time from the first to the last operation of each step, and phases are measured apart (`Device::time_phases`).
struct Profile {
  double wall = 0, busy = 0;
  std::array<double, 4> phases = {};
  std::int64_t steps = 0;
};

/// Operations recorded once, to be enqueued again and again.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch() = 0;
};

class Device {
 public:
  /// "cpu", or "cuda:0" and so on. threads: of a CPU, 0 for all.
  static std::unique_ptr<Device> open(const std::string& name, int threads);
  virtual ~Device() = default;

  const api::Device& glaive() const { return glaive_; }
  const std::string& name() const { return name_; }
  /// Of weights in products, and of all activations but the residual stream, the logits and weights of norms: those
  /// are f32.
  std::int32_t dtype() const { return dtype_; }
  virtual void* stream() const { return nullptr; }
  /// Steps that may be enqueued before the tokens of the first are collected.
  virtual int ahead() const = 0;

  Matrix matrix(const HostMatrix& host) const;
  api::Memory vector(const std::vector<float>& host, std::int32_t dtype = GLAIVE_F32) const;

  /// y = x w^T, or y += x w^T.
  virtual void multiply(const Matrix& w, Rows x, Rows y, std::int64_t rows, bool add = false) = 0;
  /// Every row of y becomes `row`, which is of y's dtype.
  virtual void repeat(const api::Memory& row, std::int64_t width, Rows y, std::int64_t rows) = 0;
  /// x becomes the rows of `table` for the tokens that were sent.
  virtual void embed(const Matrix& table, Rows x, std::int64_t tokens) = 0;
  /// y_i = weight x_i / rms(x_i); with `ends`, of row ends[i + 1] - 1 of x: the last one of each sequence.
  virtual void rms_norm(Rows x, const api::Memory& weight, double eps, std::int64_t width, Rows y, std::int64_t rows,
                        const std::int32_t* ends = nullptr) = 0;
  /// The same for each head of o, times gate * sigmoid(gate).
  virtual void gated_norm(Rows o, Rows gate, const api::Memory& weight, double eps, std::int64_t heads,
                          std::int64_t width, Rows y, std::int64_t rows) = 0;
  /// y = a * sigmoid(a) * b of rows that are a, then b.
  virtual void swiglu(Rows both, std::int64_t width, Rows y, std::int64_t rows) = 0;
  /// The index of the largest of each row, -1 where that is no finite number, kept for the next step's `embed`, and for
  /// `collect`.
  virtual void sample(Rows logits, std::int64_t width, std::int64_t rows) = 0;

  /// Once, before the first step: the most of both in a step.
  virtual void reserve(std::int64_t tokens, std::int64_t rows) = 0;
  /// The next step's tokens; -1 - i stands for what row i of the step before sampled, which the host may not know yet.
  virtual void send(std::span<const Token> tokens) = 0;
  /// What follows are the step's kernels.
  virtual void start_step() {}
  /// The end of those: what the first `rows` rows sampled will be collected.
  virtual void finish_step(std::int64_t rows) = 0;
  /// Of the oldest step that was not collected; waits for it.
  virtual std::vector<Token> collect() = 0;
  /// Waits for everything.
  virtual void wait() {}

  virtual bool has_graphs() const { return false; }
  /// What `enqueue` enqueues, which does not run now.
  virtual std::unique_ptr<Graph> record(const std::function<void()>&) { return nullptr; }

  virtual void phase(Phase next) = 0;
  /// Whether graphs that are recorded from now on time their phases.
  virtual void time_phases(bool) {}
  virtual void start_profile() = 0;
  virtual Profile profile() = 0;  ///< since it was started

 protected:
  Device(const std::string& name, int threads, std::int32_t dtype)
      : name_(name), dtype_(dtype), glaive_(name.c_str(), threads) {}

 private:
  std::string name_;
  std::int32_t dtype_;
  api::Device glaive_;
};

std::unique_ptr<Device> open_cpu(int threads);
std::unique_ptr<Device> open_cuda(const std::string& name);

}  // namespace generate
