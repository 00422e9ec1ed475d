#include "autotune/worker/wire.hpp"

#include <algorithm>
#include <bit>

namespace glaive::wire {
namespace {

// Whoever adds a field to one of these: it travels, too.
static_assert(sizeof(Timing) == sizeof(std::vector<double>) + 8);
static_assert(sizeof(MeasurePolicy) == 56);
static_assert(sizeof(Rates) == 16);

void put_real(ByteWriter& out, double value) { out.number(std::bit_cast<std::uint64_t>(value)); }
double get_real(ByteReader& in) { return std::bit_cast<double>(in.number<std::uint64_t>()); }

void put_message(ByteWriter& out, std::string_view message) { out.text(message.substr(0, most_message_bytes)); }

template <class Enum>
void put_enum(ByteWriter& out, Enum value) {
  out.number(static_cast<std::uint32_t>(value));
}
template <class Enum>
Enum get_enum(ByteReader& in, Enum last) {
  return static_cast<Enum>(in.number_in<std::uint32_t>(0, static_cast<std::uint32_t>(last)));
}

constexpr auto last_drop = Drop::device_error;
constexpr auto last_status = Status::device_lost;
constexpr std::uint32_t most_items = 1 << 20;

/// A count of items that take at least a byte each.
std::uint32_t get_count(ByteReader& in) { return in.number_in<std::uint32_t>(0, most_items); }

Target get_target(ByteReader& in) {
  auto target = parse_target(in.text());
  if (not target) return in.refuse(), Target();
  return std::move(*target);
}

}  // namespace

void put(ByteWriter& out, const Hello& hello) {
  out.number(hello.version);
  out.number(hello.threads);
  out.number(hello.memory_bytes);
}
Hello get_hello(ByteReader& in) {
  Hello hello;
  hello.version = in.number<std::uint32_t>();
  hello.threads = in.number_in<std::int32_t>(1, 1 << 16);
  hello.memory_bytes = in.number<std::uint64_t>();
  return hello;
}

void put(ByteWriter& out, const Welcome& welcome) {
  out.number(welcome.version);
  const auto& device = welcome.device;
  out.text(to_string(device.target));
  out.text(device.name);
  out.number(static_cast<std::int32_t>(device.units));
  for (const auto bytes : {device.l1_bytes, device.l2_bytes, device.l3_bytes, device.memory_rate}) out.number(bytes);
  out.number(welcome.workers);
  out.text(welcome.compiler);
}
Welcome get_welcome(ByteReader& in) {
  Welcome welcome;
  welcome.version = in.number<std::uint32_t>();
  auto& device = welcome.device;
  device.target = get_target(in);
  device.name = in.text();
  device.units = in.number<std::int32_t>();
  for (auto* const bytes : {&device.l1_bytes, &device.l2_bytes, &device.l3_bytes, &device.memory_rate})
    *bytes = in.number<std::int64_t>();
  welcome.workers = in.number<std::int32_t>();
  welcome.compiler = in.text();
  return welcome;
}

void put(ByteWriter& out, const Instance& instance, const Variant& variant, Optimise optimise) {
  out.text(to_string(instance.problem));
  out.text(to_string(instance.target));
  out.text(variant.family->name());
  out.number(static_cast<std::uint32_t>(variant.config.size()));
  for (const int value : variant.config) out.number(value);
  put_enum(out, optimise);
}
VariantOf get_variant(ByteReader& in, std::span<const Family* const> families) {
  VariantOf asked;
  auto problem = parse_problem(in.text());
  if (not problem) return in.refuse(), asked;
  asked.instance.problem = *problem;
  asked.instance.target = get_target(in);
  const auto name = in.text();
  const auto family = std::ranges::find(families, name, &Family::name);
  if (family == families.end()) return in.refuse(), asked;
  asked.variant.family = *family;
  for (auto left = get_count(in); left > 0 and in.good(); --left) asked.variant.config.push_back(in.number<int>());
  asked.optimise = get_enum(in, Optimise::full);
  return asked;
}

void put(ByteWriter& out, const Case& what) { out.text(to_string(what)); }
Case get_case(ByteReader& in) {
  const auto what = parse_case(in.text(most_frame_bytes));  // a ragged batch is a long line
  if (not what) return in.refuse(), Case();
  return *what;
}

void put(ByteWriter& out, Gates gates) { put_enum(out, gates); }
Gates get_gates(ByteReader& in) { return get_enum(in, Gates::zero); }

void put(ByteWriter& out, const CodeObject& code) {
  put_enum(out, code.format);
  out.text(to_string(code.target));
  out.blob(code.bytes);
  out.number(code.text_bytes);
  out.number(code.stack_bytes);
}
CodeObject get_code(ByteReader& in) {
  CodeObject code;
  code.format = get_enum(in, CodeObject::Format::ptx);
  code.target = get_target(in);
  const auto bytes = in.blob();
  code.bytes.assign(bytes.begin(), bytes.end());
  code.text_bytes = in.number<std::int64_t>();
  code.stack_bytes = in.number<std::int64_t>();
  return code;
}

void put(ByteWriter& out, const Built& built) {
  out.blob(encode(built.plan));
  put(out, built.code);
}
Built get_built(ByteReader& in) {
  auto plan = decode_plan(in.blob(), 1);
  if (not plan) return in.refuse(), Built();
  return {std::move(*plan), get_code(in)};
}

void put(ByteWriter& out, const Verdict& verdict) {
  put_enum(out, verdict.drop);
  put_real(out, verdict.error_o);
  put_real(out, verdict.error_state);
  put_message(out, verdict.message);
}
Verdict get_verdict(ByteReader& in) {
  Verdict verdict;
  verdict.drop = get_enum(in, last_drop);
  verdict.error_o = get_real(in);
  verdict.error_state = get_real(in);
  verdict.message = in.text();
  return verdict;
}

void put(ByteWriter& out, const Case& what, std::span<const Contender> contenders, const MeasurePolicy& policy,
         std::span<const std::size_t> keep) {
  put(out, what);
  put_real(out, policy.min_sample_seconds);
  out.number(policy.warmup);
  out.number(policy.min_samples);
  out.number(policy.max_samples);
  out.number(policy.max_discarded);
  put_real(out, policy.budget_seconds);
  put_real(out, policy.hopeless);
  put_real(out, policy.error);
  out.number(static_cast<std::uint8_t>(policy.until_clear));
  put(out, policy.gates);
  out.number(static_cast<std::uint32_t>(keep.size()));
  for (const std::size_t i : keep) out.number(static_cast<std::uint32_t>(i));
  out.number(static_cast<std::uint32_t>(contenders.size()));
  for (const auto& contender : contenders) {
    put_enum(out, contender.kind);
    if (contender.kind == Contender::Kind::kernel) put(out, *contender.built);
  }
}
RaceAsked get_race(ByteReader& in) {
  RaceAsked asked;
  asked.what = get_case(in);
  asked.policy.min_sample_seconds = get_real(in);
  asked.policy.warmup = in.number<int>();
  asked.policy.min_samples = in.number<int>();
  asked.policy.max_samples = in.number<int>();
  asked.policy.max_discarded = in.number<int>();
  asked.policy.budget_seconds = get_real(in);
  asked.policy.hopeless = get_real(in);
  asked.policy.error = get_real(in);
  asked.policy.until_clear = in.number<std::uint8_t>() != 0;
  asked.policy.gates = get_gates(in);
  for (auto left = get_count(in); left > 0 and in.good(); --left) asked.keep.push_back(in.number<std::uint32_t>());
  for (auto left = get_count(in); left > 0 and in.good(); --left) {
    asked.kinds.push_back(get_enum(in, Contender::Kind::tiles));
    if (asked.kinds.back() == Contender::Kind::kernel) asked.kernels.push_back(get_built(in));
  }
  for (const std::size_t i : asked.keep)
    if (i >= asked.kinds.size()) in.refuse();
  return asked;
}
std::vector<Contender> RaceAsked::contenders() const {
  std::vector<Contender> contenders;
  std::size_t kernel = 0;
  for (const auto kind : kinds)
    contenders.push_back({kind, kind == Contender::Kind::kernel ? &kernels[kernel++] : nullptr});
  return contenders;
}

void put(ByteWriter& out, std::span<const Timing> timings) {
  out.number(static_cast<std::uint32_t>(timings.size()));
  for (const auto& timing : timings) {
    out.number(static_cast<std::uint8_t>(timing.dropped));
    out.number(timing.discarded);
    out.blob(std::as_bytes(std::span(timing.samples)));
  }
}
std::vector<Timing> get_timings(ByteReader& in) {
  std::vector<Timing> timings;
  for (auto left = get_count(in); left > 0 and in.good(); --left) {
    Timing timing;
    timing.dropped = in.number<std::uint8_t>() != 0;
    timing.discarded = in.number<int>();
    const auto bytes = in.blob();
    timing.samples.resize(bytes.size() / sizeof(double));
    if (not timing.samples.empty())
      std::memcpy(timing.samples.data(), bytes.data(), timing.samples.size() * sizeof(double));
    timings.push_back(std::move(timing));
  }
  return timings;
}

void put(ByteWriter& out, const Rates& rates) {
  put_real(out, rates.fma);
  put_real(out, rates.copy);
}
Rates get_rates(ByteReader& in) {
  const double fma = get_real(in);
  return {fma, get_real(in)};
}

void put(ByteWriter& out, const Failure& failure) {
  put_enum(out, failure.status);
  put_enum(out, failure.drop);
  out.number(static_cast<std::uint32_t>(failure.contender));
  put_message(out, failure.message);
}
Failure get_failure(ByteReader& in) {
  const auto status = get_enum(in, last_status);
  const auto drop = get_enum(in, last_drop);
  const auto contender = in.number<std::uint32_t>();
  return {{status, in.text()}, drop, contender};
}

ByteWriter begin(Ask ask) {
  ByteWriter out;
  put_enum(out, ask);
  return out;
}
ByteWriter begin_answer(bool answered) {
  ByteWriter out;
  put_enum(out, answered);
  return out;
}
bool get_answered(ByteReader& in) { return get_enum(in, true); }

std::vector<std::byte> frame(std::span<const std::byte> payload) {
  const std::uint32_t header[] = {magic, static_cast<std::uint32_t>(payload.size())};
  std::vector<std::byte> bytes(header_bytes + payload.size());
  std::memcpy(bytes.data(), header, header_bytes);
  if (not payload.empty()) std::memcpy(bytes.data() + header_bytes, payload.data(), payload.size());
  return bytes;
}
std::optional<std::size_t> payload_bytes(std::span<const std::byte, header_bytes> header) {
  ByteReader in(header);
  if (in.number<std::uint32_t>() != magic) return std::nullopt;
  const auto size = in.number<std::uint32_t>();
  if (size > most_frame_bytes) return std::nullopt;
  return size;
}

}  // namespace glaive::wire
