#include <nlohmann/json.hpp>

#include "autotune/worker/wire.hpp"
#include "autotune/worker/worker.hpp"
#include "tests/autotune/faults_family.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"

using namespace glaive;
using namespace glaive::test;
using nlohmann::json;

namespace {

const Case small = parse_case("forward H2 Hkv1 K8 V8 f32 vk @ lens=3,0,5").value();

Built built_variant() {
  const CpuFaultFamily family;
  Built built{family.plan({small.problem, host_cpu_target()}, {0}), {}};
  built.code = {.target = host_cpu_target(), .bytes = std::vector<std::byte>(1000, std::byte{7}), .text_bytes = 5};
  return built;
}

/// What `get` reads of what was put; nothing when the bytes make no sense, or too many or too few.
template <class Get>
auto read(std::span<const std::byte> bytes, Get get) {
  ByteReader in(bytes);
  auto value = get(in);
  return in.at_end() ? std::optional(std::move(value)) : std::nullopt;
}

/// Every message comes out as it went in, and no shorter one comes out at all.
template <class Get>
auto survive(ByteWriter out, Get get) {
  const auto bytes = out.take();
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK_FALSE(read(std::span(bytes).first(size), get));
  auto value = read(bytes, get);
  REQUIRE(value);
  return *std::move(value);
}

/// Processes of this user with `word` on their command line, this one excepted.
std::vector<std::filesystem::path> processes_with(const std::string& word) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc"))
    if (std::atoi(entry.path().filename().c_str()) > 0 and read_text(entry.path() / "cmdline").contains(word))
      found.push_back(entry.path());
  return found;
}

/// A variant that cannot be timed, from its `nth` race on.
struct Fatal : ToyEvaluator {
  std::string victim;
  int nth = 1, times = 0;
  Evaluated<std::vector<Timing>> race(const Case& what, std::span<const Contender> contenders,
                                      const MeasurePolicy& policy, std::span<const std::size_t> keep) override {
    for (std::size_t i = 0; i < contenders.size(); ++i)
      if (contenders[i].built != nullptr and contenders[i].built->plan.variant == victim and ++times >= nth)
        return std::unexpected(Failure({Status::failed, "crashed with SIGSEGV"}, Drop::crash, i));
    return ToyEvaluator::race(what, contenders, policy, keep);
  }
};

constexpr const char* fastest = "toy(size=4,mode=2)";
constexpr const char* preset = "toy(size=2,mode=1)";

}  // namespace

TEST_CASE("wire: what is put is what is got, and half of it is nothing", "[tune][worker]") {
  ByteWriter out;
  wire::put(out, small);
  CHECK(survive(std::move(out), wire::get_case) == small);

  const auto built = built_variant();
  out = {};
  wire::put(out, built);
  const auto got = survive(std::move(out), wire::get_built);
  CHECK(got.plan == built.plan);
  CHECK(got.code.bytes == built.code.bytes);
  CHECK(got.code.target == built.code.target);
  CHECK(got.code.text_bytes == 5);

  out = {};
  wire::put(out, Verdict{Drop::hang, 1e-7, 2e-7, "why"});
  const auto verdict = survive(std::move(out), wire::get_verdict);
  CHECK(verdict.drop == Drop::hang);
  CHECK(verdict.error_state == 2e-7);
  CHECK(verdict.message == "why");

  const Contender contenders[] = {{Contender::Kind::rows, nullptr}, {Contender::Kind::kernel, &built}};
  const std::size_t keep[] = {1};
  out = {};
  wire::put(out, small, contenders, MeasurePolicy{.max_samples = 17, .hopeless = 2.5, .gates = Gates::resets}, keep);
  const auto race = survive(std::move(out), wire::get_race);
  CHECK(race.policy.max_samples == 17);
  CHECK(race.policy.hopeless == 2.5);
  CHECK(race.policy.gates == Gates::resets);
  CHECK(race.keep == std::vector<std::size_t>{1});
  CHECK(race.contenders().front().kind == Contender::Kind::rows);
  CHECK(race.contenders().back().built->plan == built.plan);

  const std::vector<Timing> timings{{.samples = {1e-3, 2e-3}, .dropped = true}, {}};
  out = {};
  wire::put(out, timings);
  const auto times = survive(std::move(out), wire::get_timings);
  REQUIRE(times.size() == 2);
  CHECK(times[0].samples == timings[0].samples);
  CHECK(times[0].dropped);

  out = {};
  wire::put(out, Failure({Status::device_lost, "no"}, Drop::device_error, 3));  // the last of each
  const auto failure = survive(std::move(out), wire::get_failure);
  CHECK(failure.status == Status::device_lost);
  CHECK(failure.drop == Drop::device_error);
  CHECK(failure.contender == 3);

  const CpuFaultFamily family;
  const Family* families[] = {&family};
  out = {};
  wire::put(out, {small.problem, host_cpu_target()}, {&family, {5}}, Optimise::full);
  const auto get = [&](ByteReader& in) { return wire::get_variant(in, families); };
  const auto variant = survive(std::move(out), get);
  CHECK(variant.variant == Variant{&family, {5}});
  CHECK(variant.optimise == Optimise::full);
}

TEST_CASE("wire: altered bytes are refused or read, never followed", "[tune][worker]") {
  const auto built = built_variant();
  const Contender contenders[] = {{Contender::Kind::kernel, &built}};
  ByteWriter out;
  wire::put(out, small, contenders, {}, {});
  const auto bytes = out.take();
  std::minstd_rand random(1);
  for (int i = 0; i < 5000; ++i) {
    auto altered = bytes;
    for (int n = 0; n < 3; ++n) altered[random() % altered.size()] = static_cast<std::byte>(random());
    read(altered, wire::get_race);
    read(altered, wire::get_timings);
  }
  std::byte header[wire::header_bytes] = {};
  CHECK_FALSE(wire::payload_bytes(header));
  const auto frame = wire::frame(bytes);
  std::copy_n(frame.begin(), wire::header_bytes, header);
  CHECK(wire::payload_bytes(header) == bytes.size());
  std::fill_n(header + 4, 4, std::byte{255});
  CHECK_FALSE(wire::payload_bytes(header));
}

TEST_CASE("worker: a program that is none, or absent, is an error that ends the run", "[tune][worker]") {
  for (const char* program : {"/bin/true", "/nowhere/at/all"}) {
    INFO(program);
    const auto evaluator = make_worker_evaluator({.program = program});
    REQUIRE_FALSE(evaluator);
    CHECK(evaluator.error().status == Status::io_error);
    CHECK_THAT(evaluator.error().message, Catch::StartsWith("the worker process cannot be started: "));
  }
}

TEST_CASE("worker: inherits nothing, and is gone with its evaluator", "[tune][worker]") {
  const Folder folder;
  const int inherited = open("/dev/null", O_RDONLY);  // NOLINT: without O_CLOEXEC on purpose
  {
    const auto evaluator =
        make_worker_evaluator({.program = FAULTS_WORKER, .arguments = {folder.path().string()}}).value();
    CHECK(evaluator->device().name == host_cpu_device().name);
    CHECK(evaluator->compiler() == "faulty compiler");
    const auto workers = processes_with(folder.path().string());
    REQUIRE(workers.size() == 1);
    std::set<std::string> descriptors;
    for (const auto& entry : std::filesystem::directory_iterator(workers.front() / "fd"))
      descriptors.insert(entry.path().filename());
    CHECK(descriptors == std::set<std::string>{"0", "1", "2", "3", "4"});
  }
  close(inherited);
  CHECK(processes_with(folder.path().string()).empty());
}

TEST_CASE("glaive worker: by hand it says what it is for", "[tune][worker]") {
  const Folder folder;
  const auto ended = run(folder, {"worker"});
  CHECK(ended.exit == 2);
  CHECK(ended.err == "glaive: workers are started by glaive itself\n");
  CHECK_FALSE(run(folder, {"--help"}).out.contains("worker"));
}

TEST_CASE("tune: a variant that dies while it is timed is out for its reason, also for the next run",
          "[tune][worker]") {
  for (const int nth : {1, 2, 3, 4}) {  // screen, semifinal, the final's pair, the last run
    INFO(nth);
    const Folder folder;
    ToyRun run(folder);
    Fatal evaluator;
    evaluator.victim = fastest;
    evaluator.nth = nth;
    evaluator.seconds = [](const std::string& name) { return name == fastest ? 1e-4 : 1e-3; };
    const auto outcome = run.tune(evaluator).value();
    REQUIRE(outcome.state == TuneOutcome::State::tuned);
    const auto evidence = json::parse(outcome.evidence);
    CHECK(evidence.at("variant") == preset);
    CHECK(evidence.at("counts").at("drops").at("crash") == 1);
    CHECK(query(run.file, "SELECT variant, reason FROM verdict WHERE result<>0") ==
          std::vector<std::string>{std::string(fastest) + "|crash"});

    evaluator.times = 0;
    ToyRun again(folder, Effort::full, true);
    CHECK(again.tune(evaluator).value().state == TuneOutcome::State::tuned);
    CHECK(evaluator.times == (nth == 1 ? 0 : 1));  // what fell later was the optimised code
  }
}

TEST_CASE("tune: when the default dies while it is timed, the others race without it", "[tune][worker]") {
  for (const int nth : {1, 2, 3, 4}) {
    INFO(nth);
    const Folder folder;
    ToyRun run(folder);
    Fatal evaluator;
    evaluator.victim = preset;
    evaluator.nth = nth;
    evaluator.seconds = [](const std::string& name) { return name == fastest ? 5e-4 : 1e-3; };
    const auto outcome = run.tune(evaluator).value();
    REQUIRE(outcome.state == TuneOutcome::State::tuned);
    CHECK(json::parse(outcome.evidence).at("variant") == fastest);
  }
}

TEST_CASE("tune: when everything dies the case fails with the reasons", "[tune][worker]") {
  struct Doomed : ToyEvaluator {
    Evaluated<std::vector<Timing>> race(const Case&, std::span<const Contender> contenders, const MeasurePolicy&,
                                        std::span<const std::size_t>) override {
      const auto kernels = std::ranges::count(contenders, Contender::Kind::kernel, &Contender::kind);
      return std::unexpected(Failure({Status::failed, "crashed"}, Drop::crash, static_cast<std::size_t>(kernels) - 1));
    }
  } evaluator;
  const Folder folder;
  ToyRun run(folder);
  const auto outcome = run.tune(evaluator).value();
  CHECK(outcome.state == TuneOutcome::State::failed);
  CHECK_THAT(outcome.sentence, Catch::Contains("none of 11 variants is usable (crash 11)"));
}

#ifdef GLAIVE_HAVE_MLIR
TEST_CASE("glaive tune: with workers or in one process, the same code is tried", "[tune][worker]") {
  std::set<std::string> code[2];
  for (const bool in_process : {false, true}) {
    const Folder folder;
    std::vector<std::string> words{"tune", "forward H1 K16 V16 f32 @ B1 T64", "--effort", "quick", "--threads", "2"};
    if (in_process) words.emplace_back("--in-process");
    CHECK(run(folder, words).exit == 0);
    for (auto& row : query(folder / "cache/journal.sqlite", "SELECT content, text_bytes, hex(bytes) FROM code"))
      code[in_process ? 1 : 0].insert(std::move(row));
    CHECK(query(folder / "cache/journal.sqlite", "SELECT content FROM code WHERE result<>0").empty());
  }
  // What is tried after the first generation, a quarter of the budget, depends on times.
  CHECK(std::ranges::count_if(code[0], [&](const auto& row) { return code[1].contains(row); }) >=
        static_cast<int>(variant_budget(Effort::quick, toy_instance) / 4));
}
#endif
