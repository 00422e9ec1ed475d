#include "examples/generate/layer.hpp"

namespace generate {

Layer to_device(const Device& device, const HostLayer& host) {
  return {device.vector(host.attn_norm), device.matrix(host.projections),
          device.matrix(host.gate),      device.vector(host.gate_bias, device.dtype()),
          device.matrix(host.output),    device.vector(host.head_norm),
          device.vector(host.mlp_norm),  device.matrix(host.mlp_in),
          device.matrix(host.mlp_out)};
}

Activations::Activations(const Device& device, const Config& c, std::int64_t tokens)
    : x(device, tokens, c.hidden_size, GLAIVE_F32),
      h(device, tokens, c.hidden_size, device.dtype()),
      projections(device, tokens, c.queries() + c.keys() + c.values() + c.outputs() + c.gate_low_rank_dim,
                  device.dtype()),
      gate_logits(device, tokens, c.keys(), device.dtype()),
      o(device, tokens, c.outputs(), device.dtype()),
      gated(device, tokens, c.outputs(), device.dtype()),
      mlp(device, tokens, 2 * c.intermediate_size, device.dtype()),
      mlp_gated(device, tokens, c.intermediate_size, device.dtype()) {}

void forward(Device& device, const Config& c, const Layer& layer, const Activations& a, std::int64_t tokens,
             const Gla& gla) {
  const Rows q = a.projections.from(0), k = a.projections.from(c.queries()),
             v = a.projections.from(c.queries() + c.keys()),
             output_gate = a.projections.from(c.queries() + c.keys() + c.values()),
             low_rank = a.projections.from(c.queries() + c.keys() + c.values() + c.outputs());

  device.phase(Phase::elementwise);
  device.rms_norm(a.x.from(), layer.attn_norm, c.norm_eps, c.hidden_size, a.h.from(), tokens);
  device.phase(Phase::products);
  device.multiply(layer.projections, a.h.from(), q, tokens);
  device.phase(Phase::elementwise);
  device.repeat(layer.gate_bias, c.keys(), a.gate_logits.from(), tokens);
  device.phase(Phase::products);
  device.multiply(layer.gate, low_rank, a.gate_logits.from(), tokens, true);

  device.phase(Phase::gla);
  api::Args args;  // q, k and v are where the product left them: their tokens are a whole row apart
  args.q = q.data, args.q_token_stride = q.stride;
  args.k = k.data, args.k_token_stride = k.stride;
  args.v = v.data, args.v_token_stride = v.stride;
  args.g = a.gate_logits.from().data;
  args.gate_tau = c.gate_logit_normalizer;
  args.gate_clamp = c.clamp_min.value_or(0.F);
  args.o = a.o.from().data;
  args.stream = device.stream();
  gla(args);

  device.phase(Phase::elementwise);
  device.gated_norm(a.o.from(), output_gate, layer.head_norm, c.norm_eps, c.heads, c.value_dim, a.gated.from(), tokens);
  device.phase(Phase::products);
  device.multiply(layer.output, a.gated.from(), a.x.from(), tokens, true);

  device.phase(Phase::elementwise);
  device.rms_norm(a.x.from(), layer.mlp_norm, c.norm_eps, c.hidden_size, a.h.from(), tokens);
  device.phase(Phase::products);
  device.multiply(layer.mlp_in, a.h.from(), a.mlp.from(), tokens);
  device.phase(Phase::elementwise);
  device.swiglu(a.mlp.from(), c.intermediate_size, a.mlp_gated.from(), tokens);
  device.phase(Phase::products);
  device.multiply(layer.mlp_out, a.mlp_gated.from(), a.x.from(), tokens, true);
}

}  // namespace generate
