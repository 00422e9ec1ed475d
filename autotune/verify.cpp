#include "autotune/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "autotune/parallel.hpp"

namespace glaive {
namespace {

struct Fault {
  Drop drop;
  std::string message;
};

/// A tensor that a kernel writes, with what is known about it.
struct Output {
  std::string_view name;
  const Guarded& got;
  std::span<const double> want;
  Tolerance::Of allowed;
};

/// An element's place in words that lead to the bug: which token or slot, head and channel.
std::string place(const Call& call, std::string_view tensor, std::int64_t index) {
  if (tensor == "o") {
    const std::int64_t token = index / call.o_strides.token, rest = index % call.o_strides.token;
    std::int64_t sequence = 0;
    while (call.first_token(sequence + 1) <= token) ++sequence;
    return fmt::format("sequence {} token {} head {} channel {}", sequence, token - call.first_token(sequence),
                       rest / call.o_strides.head, rest % call.o_strides.head);
  }
  const std::int64_t rest = index % call.state_slot, element = rest % call.state_head;
  const bool k_first = call.what.problem.layout == StateLayout::kv;
  const std::int64_t columns = (k_first ? call.what.problem.v.count() : call.what.problem.k.count());
  return fmt::format("slot {} kv head {} row {} column {}", index / call.state_slot, rest / call.state_head,
                     element / columns, element % columns);
}

/// What an output holds, looked at once.
struct Look {
  static constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  std::int64_t stranger = none;  ///< the first element written where nothing belongs
  std::int64_t missing = none;   ///< the first that was never written or is NaN
  std::int64_t unwritten = 0, nans = 0, count = 0;
  double difference = 0, norm = 0;  ///< squares, summed over the others
};

Look look_at(const Output& output) {
  const auto got = output.got.data();
  const auto looks = by_blocks(std::ssize(got), [&](std::int64_t first, std::int64_t last) {
    Look look;
    for (std::int64_t at = first; at < last; ++at) {
      const auto i = static_cast<std::size_t>(at);
      const double want = output.want[i];
      if (std::isnan(want)) {
        // A state that is updated in place has no padding, and all its slots belong to somebody.
        if (not is_poison(got[i])) look.stranger = std::min(look.stranger, at);
      } else if (std::isnan(got[i])) {
        ++(is_poison(got[i]) ? look.unwritten : look.nans);
        look.missing = std::min(look.missing, at);
      } else {
        look.difference += (got[i] - want) * (got[i] - want);
        look.norm += want * want;
        ++look.count;
      }
    }
    return look;
  });
  Look all;
  for (const Look& look : looks) {
    all.stranger = std::min(all.stranger, look.stranger);
    all.missing = std::min(all.missing, look.missing);
    all.unwritten += look.unwritten, all.nans += look.nans, all.count += look.count;
    all.difference += look.difference, all.norm += look.norm;
  }
  return all;
}

std::optional<Fault> check_untouched(const Call& call, const Output& output, const Look& look) {
  if (look.stranger == Look::none) return {};
  return Fault{Drop::out_of_bounds, fmt::format("{} was written where nothing belongs: {}", output.name,
                                                place(call, output.name, look.stranger))};
}

std::optional<Fault> check_numbers(const Call& call, const Output& output, const Look& look) {
  if (look.missing == Look::none) return {};
  return Fault{Drop::nan_output, fmt::format("{}: {} elements never written and {} NaN, the first at {}", output.name,
                                             look.unwritten, look.nans, place(call, output.name, look.missing))};
}

std::optional<Fault> check_error(const Call& call, const Output& output, const Look& look) {
  if (look.count == 0) return {};
  const auto got = output.got.data();
  const double error = relative_error(look.difference, look.norm);
  const double rms = std::sqrt(look.norm / static_cast<double>(look.count));
  struct Worst {
    double off = 0;
    std::size_t at = 0;
  } worst;
  const auto worsts = by_blocks(std::ssize(got), [&](std::int64_t first, std::int64_t last) {
    Worst of_block;
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
      const double want = output.want[i];
      if (std::isnan(want) or got[i] == want) continue;
      // What lies far out, rounds far off.
      const double off = std::abs(got[i] - want) / std::max(rms, std::abs(want) / 5);
      if (off > of_block.off) of_block = {off, i};
    }
    return of_block;
  });
  for (const Worst& of_block : worsts)
    if (of_block.off > worst.off) worst = of_block;
  if (error <= output.allowed.tensor and worst.off <= output.allowed.element) return {};
  return Fault{
      Drop::wrong_result,
      fmt::format("{} is off by {:.2e} ({:.0e} allowed), its worst element by {:.2e} of the RMS ({:.0e} allowed): "
                  "{:.9g} instead of {:.9g} at {}",
                  output.name, error, output.allowed.tensor, worst.off, output.allowed.element, got[worst.at],
                  output.want[worst.at], place(call, output.name, static_cast<std::int64_t>(worst.at)))};
}

std::vector<float> copy_of(const Guarded& tensor) { return {tensor.data().begin(), tensor.data().end()}; }

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() and (a.empty() or std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// Runs once; says what went wrong besides the tensors.
using RunOnce = std::function<std::optional<Fault>(const Words&, const Extents&)>;

std::optional<Fault> check(const RunOnce& run, Trial& trial, int workers, Target::Kind kind, Verdict& verdict) {
  Call& call = trial.call;
  const Words words = call.words();
  const Extents extents = extents_of(call.what.problem, call.what.shape, workers);
  const Tolerance allowed = tolerance(call.what, kind);
  const std::pair<std::string_view, const Guarded*> inputs[] = {
      {"q", &call.q}, {"k", &call.k}, {"v", &call.v}, {"g", &call.g}, {"state_in", &call.state_in}};
  const Output outputs[] = {{"o", call.o, trial.expected.o, allowed.o},
                            {"state_out", call.state_out, trial.expected.state, allowed.state}};
  std::uint64_t before[std::size(inputs)];
  for (std::size_t i = 0; i < std::size(inputs); ++i) before[i] = inputs[i].second->checksum();

  std::vector<float> first_run[2];
  for (const int round : {0, 1}) {
    call.poison_outputs();
    if (auto fault = run(words, extents)) return fault;
    call.read_outputs();

    for (const Output& output : outputs)
      if (not output.got.guards_intact())
        return Fault{Drop::out_of_bounds, fmt::format("memory just outside {} was written", output.name)};
    for (std::size_t i = 0; i < std::size(inputs); ++i) {
      if (not inputs[i].second->guards_intact())
        return Fault{Drop::out_of_bounds, fmt::format("memory just outside {} was written", inputs[i].first)};
      if (inputs[i].second->checksum() != before[i])
        return Fault{Drop::out_of_bounds, fmt::format("the input {} was written", inputs[i].first)};
    }
    const Look looks[] = {look_at(outputs[0]), look_at(outputs[1])};
    for (std::size_t i = 0; i < std::size(outputs); ++i)
      if (auto fault = check_untouched(call, outputs[i], looks[i])) return fault;
    for (std::size_t i = 0; i < std::size(outputs); ++i)
      if (auto fault = check_numbers(call, outputs[i], looks[i])) return fault;
    for (std::size_t i = 0; i < std::size(outputs); ++i) {
      double& worst = i == 0 ? verdict.error_o : verdict.error_state;
      worst = std::max(worst, relative_error(looks[i].difference, looks[i].norm));
      if (auto fault = check_error(call, outputs[i], looks[i])) return fault;
      if (round == 0)
        first_run[i] = copy_of(outputs[i].got);
      else if (not same_bits(first_run[i], outputs[i].got.data()))
        return Fault{Drop::nondeterministic, fmt::format("two runs gave different bits in {}", outputs[i].name)};
    }
  }
  return {};
}

Verdict verify_all(const RunOnce& run, std::string_view variant, std::span<Trial> trials, int workers,
                   Target::Kind kind) {
  Verdict verdict;
  for (Trial& trial : trials) {
    const auto fault = check(run, trial, workers, kind, verdict);
    if (not fault) continue;
    verdict.drop = fault->drop;
    verdict.message =
        fmt::format("{} (gates {}, {})\n  {}", fault->message, to_string(trial.gates), to_string(trial.call.passing),
                    reproducer(trial.call.what, variant, trial.gates, trial.seed));
    break;
  }
  return verdict;
}

}  // namespace

Tolerance tolerance(const Case& what, Target::Kind kind) {
  const Problem& problem = what.problem;
  // Everything is computed in fp32 from what memory holds exactly: 16 bits round once, on the way out.
  const auto of = [](DType type) -> Tolerance::Of {
    switch (type) {
      case DType::f32:
        return {5e-6, 1e-3};
      case DType::bf16:
        return {3e-3, 5e-2};
      case DType::f16:
        return {4e-4, 5e-3};
    }
    return {0, 0};
  };
  Tolerance allowed = {of(problem.io), of(problem.state)};
  if (kind == Target::Kind::cuda and problem.op == Op::forward) {
    // Errors of few elements do not average out: one rounding to bf16 is off by up to 2e-3.
    const auto elements = static_cast<double>(problem.k.count() * problem.v.count());
    const double few = 1 + 2 / std::sqrt(elements);
    // So it is with scores: o of the first token is one score times v, and where that is rounded to bf16 four draws of
    // six such tokens in a hundred are off by more than 3.1e-3.
    const auto scores = static_cast<double>(what.shape.total().count() * problem.heads.count());
    const double few_scores = few + 1 / std::sqrt(std::max(scores, 1.0));
    const auto at_least = [](Tolerance::Of& at, double tensor, double element) {
      at = {std::max(at.tensor, tensor), std::max(at.element, element)};
    };
    if (problem.io == DType::bf16)
      at_least(allowed.o, 3e-3 * few_scores, 5e-2), at_least(allowed.state, 2e-3 * few, 3e-2);
    else if (problem.io == DType::f16)
      at_least(allowed.o, 5e-4 * few_scores, 1e-2), at_least(allowed.state, 3e-4 * few, 5e-3);
    else
      at_least(allowed.o, 1e-4, 2e-3), at_least(allowed.state, 1e-4, 2e-3);
  }
  if (problem.op == Op::step and problem.state != DType::f32) {
    const double roundings = std::sqrt(std::max<double>(1, static_cast<double>(what.shape.longest().count())));
    allowed.state = {allowed.state.tensor * roundings, allowed.state.element * roundings};
  }
  // A step's tokens see states that were in memory in between.
  if (problem.op == Op::step and allowed.o.tensor < allowed.state.tensor) allowed.o = allowed.state;
  return allowed;
}

Passing passing_of(std::uint64_t seed) { return static_cast<Passing>(seed % 4); }

Trial::Trial(const Case& what, Gates gates_, std::uint64_t seed_)
    : gates(gates_), seed(seed_), call(what, gates, seed, passing_of(seed)), expected(oracle(call)) {}

Verdict verify(const Runner& run, std::string_view variant, std::span<Trial> trials, int workers, Target::Kind kind) {
  const RunOnce once = [&](const Words& words, const Extents& extents) {
    run(words, extents);
    return std::optional<Fault>();
  };
  return verify_all(once, variant, trials, workers, kind);
}

Verdict verify(const CpuKernel& kernel, std::span<Trial> trials, WorkerPool& pool) {
  // The workspace is poisoned before each run: a kernel may not expect zeros, or leave what the next run needs.
  const RunOnce once = [&](const Words& words, const Extents& extents) -> std::optional<Fault> {
    const std::int64_t bytes = workspace_bytes(kernel.plan(), extents);
    Guarded workspace((bytes + 3) / 4);
    kernel.run(words, extents, workspace.memory(), pool);
    if (not workspace.guards_intact())
      return Fault{Drop::out_of_bounds,
                   fmt::format("memory just outside the workspace of {} bytes was written", bytes)};
    return {};
  };
  return verify_all(once, kernel.plan().variant, trials, pool.workers(), Target::Kind::cpu);
}

std::optional<std::string> overrun(const Call& call, const Guarded& workspace) {
  const std::pair<std::string_view, const Guarded*> tensors[] = {{"q", &call.q},
                                                                 {"k", &call.k},
                                                                 {"v", &call.v},
                                                                 {"g", &call.g},
                                                                 {"o", &call.o},
                                                                 {"state_in", &call.state_in},
                                                                 {"state_out", &call.state_out},
                                                                 {"the workspace", &workspace}};
  for (const auto& [name, tensor] : tensors)
    if (not tensor->guards_intact()) return fmt::format("memory just outside {} was written", name);
  return {};
}

std::vector<Case> verification_cases(const Case& what) {
  const std::int64_t ratio = what.problem.heads.count() / what.problem.kv_heads.count();
  std::vector<Case> cases;
  const auto add = [&](std::int64_t most_kv_heads, Shape shape) {
    Case small = what;
    small.problem.kv_heads = KvHeads(std::min(most_kv_heads, what.problem.kv_heads.count()));
    small.problem.heads = Heads(small.problem.kv_heads.count() * ratio);
    small.shape = std::move(shape);
    cases.push_back(std::move(small));
  };
  const auto lengths = [](std::initializer_list<int> tokens) {
    std::vector<Tokens> out;
    for (const int t : tokens) out.emplace_back(t);
    return Shape::ragged(std::move(out));
  };
  const auto uniform = [](int sequences, int tokens) { return Shape::uniform(Sequences(sequences), Tokens(tokens)); };

  add(3, uniform(2, 1));
  if (what.problem.op == Op::step) {
    add(3, uniform(3, 2));
    add(2, uniform(5, 5));
    add(1, uniform(2, 8));
    if (not what.shape.is_uniform()) add(2, lengths({1, 0, 8, 3}));
    return cases;
  }
  add(3, uniform(3, 33));
  add(2, uniform(1, 77));
  if (not what.shape.is_uniform()) add(2, lengths({5, 0, 64, 1, 19}));
  add(1, uniform(1, 300));
  return cases;
}

std::string reproducer(const Case& what, std::string_view variant, Gates gates, std::uint64_t seed) {
  return fmt::format("glaive verify '{}' --variant '{}' --gates {} --seed {}", to_string(what), variant,
                     to_string(gates), seed);
}

}  // namespace glaive
