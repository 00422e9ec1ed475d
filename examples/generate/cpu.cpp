// A CPU: products by OpenBLAS, the rest in plain loops, all in f32.
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <queue>

#include "examples/generate/cpu_loops.hpp"
#include "examples/generate/device.hpp"

namespace generate {
namespace {

float* row(Rows rows, std::int64_t index) { return static_cast<float*>(rows.data) + index * rows.stride; }
const float* numbers(const api::Memory& memory) { return static_cast<const float*>(memory.data()); }

Token largest(const float* logits, std::int64_t width) {
  float best = -std::numeric_limits<float>::infinity();
  Token at = -1;
  for (std::int64_t i = 0; i < width; ++i)
    if (logits[i] > best) best = logits[i], at = static_cast<Token>(i);
  return std::isfinite(best) ? at : -1;
}

class Cpu final : public Device {
 public:
  explicit Cpu(int threads) : Device("cpu", threads, GLAIVE_F32) { openblas_set_num_threads(glaive().threads()); }

  int ahead() const override { return 1; }

  void multiply(const Matrix& w, Rows x, Rows y, std::int64_t rows, bool add) override {
    const auto m = static_cast<int>(rows), n = static_cast<int>(w.rows), k = static_cast<int>(w.columns);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, row(x, 0), static_cast<int>(x.stride),
                numbers(w.numbers), k, add ? 1.F : 0.F, row(y, 0), static_cast<int>(y.stride));
  }
  void repeat(const api::Memory& of, std::int64_t width, Rows y, std::int64_t rows) override {
    for (std::int64_t i = 0; i < rows; ++i) std::copy_n(numbers(of), width, row(y, i));
  }
  void embed(const Matrix& table, Rows x, std::int64_t tokens) override {
    for (std::int64_t i = 0; i < tokens; ++i) {
      Token token = tokens_[static_cast<std::size_t>(i)];
      if (token < 0) token = std::max(0, sampled_[static_cast<std::size_t>(-1 - token)]);
      std::copy_n(numbers(table.numbers) + token * table.columns, table.columns, row(x, i));
    }
  }
  void rms_norm(Rows x, const api::Memory& weight, double eps, std::int64_t width, Rows y, std::int64_t rows,
                const std::int32_t* ends) override {
    for (std::int64_t i = 0; i < rows; ++i)
      loops::rms_norm(row(x, ends != nullptr ? std::max(0, ends[i + 1] - 1) : i), numbers(weight), eps, width,
                      row(y, i));
  }
  void gated_norm(Rows o, Rows gate, const api::Memory& weight, double eps, std::int64_t heads, std::int64_t width,
                  Rows y, std::int64_t rows) override {
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t c = 0; c < heads * width; c += width)
        loops::gated_norm(row(o, i) + c, row(gate, i) + c, numbers(weight), eps, width, row(y, i) + c);
  }
  void swiglu(Rows both, std::int64_t width, Rows y, std::int64_t rows) override {
    for (std::int64_t i = 0; i < rows; ++i) loops::swiglu(row(both, i), row(both, i) + width, width, row(y, i));
  }
  void sample(Rows logits, std::int64_t width, std::int64_t rows) override {
    for (std::int64_t i = 0; i < rows; ++i) sampled_[static_cast<std::size_t>(i)] = largest(row(logits, i), width);
  }

  void reserve(std::int64_t, std::int64_t rows) override { sampled_.resize(static_cast<std::size_t>(rows)); }
  void send(std::span<const Token> tokens) override { tokens_.assign(tokens.begin(), tokens.end()); }
  void finish_step(std::int64_t rows) override {
    done_.emplace(sampled_.begin(), sampled_.begin() + rows);
    phase(Phase::host);
    ++profile_.steps;
  }
  std::vector<Token> collect() override {
    std::vector<Token> tokens = std::move(done_.front());
    done_.pop();
    return tokens;
  }

  void phase(Phase next) override {
    const Clock::time_point now = Clock::now();
    profile_.phases[static_cast<std::size_t>(phase_)] += std::chrono::duration<double>(now - since_).count();
    since_ = now;
    phase_ = next;
  }
  void start_profile() override {
    phase(Phase::host);
    profile_ = {};
  }
  Profile profile() override {
    phase(Phase::host);
    for (std::size_t i = 0; i < profile_.phases.size(); ++i) {
      profile_.wall += profile_.phases[i];
      if (static_cast<Phase>(i) != Phase::host) profile_.busy += profile_.phases[i];
    }
    return profile_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::vector<Token> tokens_, sampled_;
  std::queue<std::vector<Token>> done_;
  Profile profile_;
  Phase phase_ = Phase::host;
  Clock::time_point since_ = Clock::now();
};

}  // namespace

std::unique_ptr<Device> open_cpu(int threads) { return std::make_unique<Cpu>(threads); }

}  // namespace generate
