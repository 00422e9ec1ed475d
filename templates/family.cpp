#include "templates/family.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "templates/segments/segments.hpp"
#include "templates/step/step.hpp"
#include "templates/stream/stream.hpp"
#include "templates/stream_wgmma/stream_wgmma.hpp"
#if GLAIVE_HAVE_MLIR
#include "templates/chunk/chunk.hpp"
#include "templates/recurrent/recurrent.hpp"
#endif

namespace glaive {

// clang-format off
const std::vector<Arg>& entry_args() {
  static const std::vector<Arg> args = {
      Arg::q, Arg::k, Arg::v, Arg::g, Arg::o,
      Arg::state_in, Arg::state_out, Arg::read_slots, Arg::write_slots, Arg::cu_seqlens, Arg::device_status,
      Arg::q_token, Arg::q_head, Arg::k_token, Arg::k_head, Arg::v_token, Arg::v_head, Arg::g_token, Arg::g_head,
      Arg::o_token, Arg::o_head,
      Arg::state_in_slot, Arg::state_in_head, Arg::state_out_slot, Arg::state_out_head,
      Arg::tokens, Arg::longest, Arg::kv_heads, Arg::slots, Arg::scale, Arg::gate_tau, Arg::gate_clamp};
  return args;
}
// clang-format on

std::span<const Family* const> families() {
  static const Family* const table[] = {
#if GLAIVE_HAVE_MLIR
      &chunk_family(),        &recurrent_family(),      &step_family(),
#endif
      &stream_wgmma_family(), &segments_wgmma_family(), &stream_family(), &segments_family(), &cuda_step_family()};
  return table;
}

const Family* find_family(std::string_view name) {
  const auto all = families();
  const auto found = std::ranges::find(all, name, &Family::name);
  return found == all.end() ? nullptr : *found;
}

const Family* find_family(std::string_view name, Target::Kind kind) {
  const auto all = families();
  const auto found = std::ranges::find_if(
      all, [&](const Family* family) { return family->name() == name and family->kind() == kind; });
  return found == all.end() ? nullptr : *found;
}

std::string named(const Family& family) {
  return std::string(family.name()) + (family.kind() == Target::Kind::cpu ? " (cpu)" : " (gpu)");
}

std::string to_string(const Variant& variant, const Instance& instance) {
  const auto parameters = variant.family->parameters(instance);
  std::string text(variant.family->name());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    text += i == 0 ? '(' : ',';
    text += parameters[i].name;
    text += '=' + std::to_string(variant.config[i]);
  }
  return text + ')';
}

namespace {

std::string join(const auto& items, const auto& text_of) {
  std::string text;
  for (const auto& item : items) text += (text.empty() ? "" : ", ") + std::string(text_of(item));
  return text;
}

std::unexpected<Error> bad(std::string message) { return fail(Status::invalid_argument, std::move(message)); }

std::string_view trim(std::string_view text) {
  while (not text.empty() and text.front() == ' ') text.remove_prefix(1);
  while (not text.empty() and text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

Result<Variant> parse_variant(std::string_view text, const Instance& instance) {
  text = trim(text);
  const auto open = text.find('(');
  const std::string name(trim(text.substr(0, open)));
  Variant variant{find_family(name, instance.target.kind), {}};
  if (not variant.family) variant.family = find_family(name);
  if (not variant.family)
    return bad("variant `" + std::string(text) + "`: no family `" + name +
               "`; families of this build: " + join(families(), [](const Family* family) { return named(*family); }));
  if (auto covers = variant.family->applicable(instance); not covers)
    return fail(covers.error().status, "family `" + name + "` " + covers.error().message);
  variant.config = variant.family->default_config(instance);
  if (open != text.npos) {
    if (text.back() != ')') return bad("variant `" + std::string(text) + "`: the closing `)` is missing");
    const auto parameters = variant.family->parameters(instance);
    std::vector<bool> given(parameters.size(), false);
    auto rest = text.substr(open + 1, text.size() - open - 2);
    while (not trim(rest).empty()) {
      const auto comma = rest.find(',');
      const auto word = trim(rest.substr(0, comma));
      rest = comma == rest.npos ? std::string_view() : rest.substr(comma + 1);
      const auto equals = word.find('=');
      const auto key = trim(word.substr(0, equals));
      const auto found = std::ranges::find(parameters, key, &Parameter::name);
      if (equals == word.npos or found == parameters.end())
        return bad("family `" + name + "`: no parameter `" + std::string(key) + "`; parameters are " +
                   join(parameters, [](const Parameter& p) { return p.name; }) + ", each given as name=value");
      const auto digits = trim(word.substr(equals + 1));
      int value = 0;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error != std::errc() or end != digits.data() + digits.size() or not std::ranges::count(found->values, value))
        return bad("family `" + name + "`: " + std::string(key) + "=" + std::string(digits) + " is not one of " +
                   join(found->values, [](int v) { return std::to_string(v); }));
      const auto index = static_cast<std::size_t>(found - parameters.begin());
      if (given[index]) return bad("variant `" + std::string(text) + "`: " + std::string(key) + " is given twice");
      given[index] = true;
      variant.config[index] = value;
    }
  }
  if (auto why = variant.family->constraint(instance, variant.config))
    return bad("variant `" + to_string(variant, instance) + "` is not legal: " + *why);
  return variant;
}

std::vector<Variant> enumerate(const Instance& instance) {
  std::vector<Variant> variants;
  for (const Family* family : families()) {
    if (not family->applicable(instance)) continue;
    const auto parameters = family->parameters(instance);
    std::vector<std::size_t> digits(parameters.size(), 0);
    for (bool more = true; more;) {
      Config config(parameters.size());
      for (std::size_t i = 0; i < digits.size(); ++i) config[i] = parameters[i].values[digits[i]];
      if (not family->constraint(instance, config)) variants.push_back({family, std::move(config)});
      more = false;
      for (std::size_t i = digits.size(); i-- > 0;) {
        if (++digits[i] < parameters[i].values.size()) {
          more = true;
          break;
        }
        digits[i] = 0;
      }
    }
  }
  return variants;
}

std::uint64_t space_hash(const Instance& instance) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  const auto mix = [&](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    hash = (hash ^ 0xffu) * 0x100000001b3u;
  };
  for (const Family* family : families()) {
    if (not family->applicable(instance)) continue;
    mix(family->name());
    for (const auto& parameter : family->parameters(instance)) {
      mix(parameter.name);
      for (const int value : parameter.values) mix(std::to_string(value));
    }
  }
  return hash;
}

}  // namespace glaive
