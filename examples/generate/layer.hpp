#pragma once
// One block of the model: GLA and an MLP, each behind an RMS norm and added to the residual stream.
//
//   h = norm(x);  q, k, v, r, c = W h;  logits = A c + b          c: the low rank of the gate; r: the output gate
//   o = GLA(q, k, v, logsigmoid(logits) / tau)                    glaive; the logsigmoid is in its kernel
//   x += W_o (norm(o of each head) * swish(r))
//   h = norm(x);  a, u = W h;  x += W_d (swish(a) * u)
#include "examples/generate/config.hpp"
#include "examples/generate/device.hpp"

namespace generate {

/// A HostLayer on a device.
struct Layer {
  api::Memory attn_norm;
  Matrix projections, gate;
  api::Memory gate_bias;
  Matrix output;
  api::Memory head_norm, mlp_norm;
  Matrix mlp_in, mlp_out;
};
Layer to_device(const Device& device, const HostLayer& host);

/// Numbers [rows, width] on a device.
class Tensor {
 public:
  Tensor(const Device& device, std::int64_t rows, std::int64_t width, std::int32_t dtype)
      : width_(width),
        dtype_(dtype),
        memory_(device.glaive(), static_cast<std::size_t>(rows * width * (dtype == GLAIVE_F32 ? 4 : 2))) {}
  /// From a column on: a part of each row.
  Rows from(std::int64_t column = 0) const {
    const std::int64_t bytes = column * (dtype_ == GLAIVE_F32 ? 4 : 2);
    return {static_cast<std::byte*>(memory_.data()) + bytes, width_, dtype_};
  }
  const api::Memory& memory() const { return memory_; }

 private:
  std::int64_t width_;
  std::int32_t dtype_;
  api::Memory memory_;
};

/// What the layers of a model work in, one after the other.
struct Activations {
  Tensor x;            ///< the residual stream, f32
  Tensor h;            ///< normed
  Tensor projections;  ///< q, k, v, output gate, low rank
  Tensor gate_logits;
  Tensor o, gated;
  Tensor mlp, mlp_gated;

  Activations(const Device& device, const Config& config, std::int64_t tokens);
};

/// Runs GLA for tensors that are set.
using Gla = std::function<void(const api::Args&)>;

void forward(Device& device, const Config& config, const Layer& layer, const Activations& a, std::int64_t tokens,
             const Gla& gla);

}  // namespace generate
