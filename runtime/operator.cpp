#include "runtime/operator.hpp"

#include <cmath>

namespace glaive::c_abi {
namespace {

std::uint64_t args_taken(const Plan& plan) {
  static_assert(arg_count <= 64);
  std::uint64_t taken = 0;
  for (const Stage& stage : plan.stages)
    for (const Arg arg : stage.args) taken |= std::uint64_t{1} << static_cast<unsigned>(arg);
  return taken;
}

}  // namespace

PlanMaker::PlanMaker(std::shared_ptr<Device> device, std::vector<const Pack*> packs, const Problem& problem)
    : device_(std::move(device)), packs_(std::move(packs)), problem_(problem), candidates_(packs_, *device_, problem) {}

const PlanMaker::Loaded& PlanMaker::load(const Candidate& candidate) {
  const std::pair place(candidate.pack, candidate.index);
  if (const auto known = loaded_.find(place); known != loaded_.end()) return known->second;
  const auto entry = packs_[candidate.pack]->load(candidate.index);
  if (entry) measured_.emplace(place, read_measured(*entry));
  Loaded loaded = entry ? Loaded(device_->load(entry->plan, entry->code)) : Loaded(std::unexpected(entry.error()));
  return loaded_.emplace(place, std::move(loaded)).first->second;
}

std::optional<double> PlanMaker::regret_per_step(const WinnerKey& of) {
  const auto group_of = [](const WinnerKey& key) { return Group{key.device, key.target, threads_of(key.policy)}; };
  const auto [place, is_new] = regrets_.emplace(group_of(of), std::nullopt);
  if (not is_new) return place->second;
  std::vector<Measured> tuned;
  for (std::size_t pack = packs_.size(); pack-- > 0;)  // of entries as good, the earlier pack's serves: it comes last
    for (std::size_t i = 0; i < packs_[pack]->size(); ++i) {
      const WinnerKey& key = packs_[pack]->key(i);
      if (key.problem != of.problem or group_of(key) != place->first) continue;
      if (auto entry = packs_[pack]->load_without_code(i)) tuned.push_back(read_measured(*entry));
    }
  return place->second = glaive::regret_per_step(tuned);
}

Result<std::unique_ptr<glaive_plan>> PlanMaker::make(Bucket bucket) {
  std::string skipped;
  const Error* first = nullptr;
  for (const Candidate& candidate : candidates_.for_bucket(bucket)) {
    const Loaded& kernel = load(candidate);
    if (not kernel) {
      skipped += "\n  skipped: " + kernel.error().message;
      if (first == nullptr) first = &kernel.error();
      continue;
    }
    auto plan = std::make_unique<glaive_plan>(device_, *kernel, problem_);
    plan->match = skipped.empty() ? candidate.match : std::max(candidate.match, Match::nearest);
    const WinnerKey& key = packs_[candidate.pack]->key(candidate.index);
    plan->description = to_string(problem_) + ": match=" + std::string(to_string(plan->match)) + "\n  tuned for " +
                        to_string(key.bucket) + " on " + key.device + ", " + key.policy + skipped + "\n  " +
                        to_string((*kernel)->plan());
    plan->measured = measured_.at({candidate.pack, candidate.index});
    plan->foreign_device = candidate.match == Match::other_device;
    plan->foreign_threads = candidate.foreign_threads;
    plan->demoted = not skipped.empty();
    if (not plan->foreign_device) plan->regret_per_step = regret_per_step(key);
    plan->takes = args_taken((*kernel)->plan());
    if (__builtin_mul_overflow(scratch_bytes_per_worker((*kernel)->plan()), device_->workers(), &plan->scratch_bytes))
      plan->scratch_bytes = INT64_MAX;
    plan->default_scale = 1.0f / std::sqrt(static_cast<float>(problem_.k.count()));
    return plan;
  }
  if (first != nullptr) return std::unexpected(*first);
  return fail(Status::unsupported, std::string(packs_.size() == 1 ? "the pack has" : "the packs have") +
                                       " no kernel for `" + to_string(problem_) + "` that runs on " +
                                       device_->target() + "; tune it with: glaive tune " +
                                       (device_->is_host() ? "'" : "--device gpu '") + to_string(problem_) +
                                       (problem_.op == Op::step ? " @ B1 T1'" : " @ B1 T2048'"));
}

}  // namespace glaive::c_abi

std::int64_t glaive_operator::workspace_bytes(const glaive::c_abi::CallShape& largest) const {
  using namespace glaive;
  const Extents extents = largest.extents(problem, plans.front()->device->workers());
  // Every plan that a smaller shape may find, at the largest: workspace never shrinks as extents grow.
  const Bucket last = bucket_of(extents);
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < bucket_count; ++i)
    if (const Bucket bucket = bucket_at(i); bucket.work <= last.work and bucket.tokens <= last.tokens)
      bytes = std::max(bytes, by_bucket[i]->workspace_bytes(extents));
  return bytes;
}

glaive::Result<std::unique_ptr<glaive_operator>> glaive_operator::create(glaive::c_abi::PlanMaker maker,
                                                                         const glaive::Problem& problem) {
  auto made = std::make_unique<glaive_operator>();
  made->problem = problem;
  for (std::size_t i = 0; i < glaive::bucket_count; ++i) {
    auto plan = maker.make(glaive::bucket_at(i));
    if (not plan) return std::unexpected(std::move(plan).error());
    const auto is_same = [&](const auto& other) {
      return other->kernel == (*plan)->kernel and other->description == (*plan)->description;
    };
    auto place = std::ranges::find_if(made->plans, is_same);
    if (place == made->plans.end()) place = made->plans.insert(place, std::move(*plan));
    made->by_bucket[i] = place->get();
  }
  return made;
}
