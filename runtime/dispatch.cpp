#include "runtime/dispatch.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

namespace glaive {
namespace {

bool fits_threads(std::string_view policy, int threads) {
  const int measured = threads_of(policy);
  return measured == 0 or measured == threads;
}

}  // namespace

int threads_of(std::string_view policy) {
  constexpr std::string_view word = "threads=";
  const std::size_t at = policy.find(word);
  if (at == std::string_view::npos) return 0;
  const std::string_view rest = policy.substr(at + word.size()), number = rest.substr(0, rest.find(' '));
  int threads = 0;
  const auto read = std::from_chars(number.data(), number.data() + number.size(), threads);
  return read.ec == std::errc() and read.ptr == number.data() + number.size() ? threads : -1;  // -1 fits none
}

std::string_view to_string(Match match) {
  switch (match) {
    case Match::exact:
      return "exact";
    case Match::nearest:
      return "nearest";
    case Match::other_device:
      return "other device";
  }
  return "?";
}

template <class Runs>
void Candidates::add(std::size_t number, const Pack& pack, const DeviceInfo& device, int threads,
                     const Problem& problem, Runs runs) {
  const std::string device_text = identity(device), target_text = to_string(device.target);
  const std::string problem_text = to_string(problem);
  std::map<std::string, bool> runnable;
  for (std::size_t i = 0; i < pack.size(); ++i) {
    const WinnerKey& key = pack.key(i);
    if (key.problem != problem_text) continue;
    auto known = runnable.find(key.target);
    if (known == runnable.end()) {
      const auto target = parse_target(key.target);
      known = runnable.emplace(key.target, target and runs(*target)).first;
    }
    if (not known->second) continue;
    entries_.push_back({number, i, pack.size() - i, key.bucket, key.device != device_text, key.target != target_text,
                        not fits_threads(key.policy, threads)});
  }
}

Candidates::Candidates(std::span<const Pack* const> packs, const Device& device, const Problem& problem) {
  const auto runs = [&](const Target& target) { return device.runs(target); };
  for (std::size_t i = 0; i < packs.size(); ++i) add(i, *packs[i], device.info(), device.workers(), problem, runs);
}

Candidates::Candidates(const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem) {
  add(0, pack, device, threads, problem, [&](const Target& target) {
    if (device.target.kind == Target::Kind::cpu) return check_runs_here(target).has_value();
    const CudaArch gpu = cuda_arch(device.target);
    return target.kind == Target::Kind::cuda and cuda_arch(target).runs_on(gpu.major, gpu.minor);
  });
}

std::vector<Candidate> Candidates::for_bucket(Bucket bucket) const {
  const auto match = [&](const Entry& e) {
    if (e.foreign_device) return Match::other_device;
    return e.bucket == bucket and not e.foreign_threads ? Match::exact : Match::nearest;
  };
  std::vector<Entry> ranked = entries_;
  std::ranges::sort(ranked, {}, [&](const Entry& e) {
    return std::tuple(match(e), e.foreign_target, e.foreign_threads, distance(e.bucket, bucket), e.pack, e.age);
  });
  std::vector<Candidate> found;
  for (const Entry& entry : ranked) found.push_back({entry.index, match(entry), entry.pack, entry.foreign_threads});
  return found;
}

std::vector<Candidate> candidates(const Pack& pack, const DeviceInfo& device, int threads, const Problem& problem,
                                  Bucket bucket) {
  return Candidates(pack, device, threads, problem).for_bucket(bucket);
}

}  // namespace glaive
