#include <nlohmann/json.hpp>

#include "autotune/cache.hpp"
#include "tests/autotune/tune_support.hpp"
#include "tests/catch.hpp"
#include "tests/small_disk.hpp"

using namespace glaive;
using namespace glaive::test;
using nlohmann::json;

TEST_CASE("glaive: --version and --help succeed, nothing or nonsense is bad usage", "[tune][cli]") {
  const Folder folder;
  const auto version = run(folder, {"--version"});
  CHECK(version.exit == 0);
  CHECK_THAT(version.out, Catch::StartsWith("glaive "));
  CHECK(run(folder, {"--help"}).exit == 0);
  CHECK(run(folder, {"tune", "--help"}).exit == 0);
  CHECK(run(folder, {}).exit == 2);
  const auto command = run(folder, {"tuen", "--set", "smoke"});
  CHECK(command.exit == 2);
  CHECK_THAT(command.err, Catch::StartsWith("glaive: no command `tuen`; there are tune, prepare, bench, ") and
                              Catch::EndsWith("\nUsage: glaive --help\n") and not Catch::Contains("worker"));
  for (const auto& words : {std::vector<std::string>{"tune", "--frobnicate"}, {"verify", "--frobnicate"}}) {
    const auto option = run(folder, words);
    CHECK(option.exit == 2);
    CHECK_THAT(option.err, Catch::StartsWith(fmt::format("glaive: `glaive {}` has no option `--frobnicate`; it has --",
                                                         words.front())) and
                               Catch::EndsWith(fmt::format("\nUsage: glaive {} --help\n", words.front())));
  }
  CHECK_THAT(run(folder, {"pack", "a", "b"}).err, Catch::Contains("`glaive pack` does not know what to do with `b`"));
  CHECK(run(folder, {"tune", "--threads", "many"}).exit == 2);
}

TEST_CASE("glaive: an unknown word is pointed at", "[tune][cli]") {
  const Folder folder;
  const auto ended = run(folder, {"tune", "forward H4 K128 W128 @ B1 T8"});
  CHECK(ended.exit == 2);
  CHECK_THAT(ended.err,
             Catch::Contains("forward H4 K128 W128 @ B1 T8\n") and Catch::Contains("^") and Catch::Contains("W128"));
  const auto set = run(folder, {"tune", "smoke"});
  CHECK(set.exit == 2);
  CHECK_THAT(set.err, Catch::Contains("--set smoke"));
}

TEST_CASE("glaive: an option takes one value, and what follows is what it would be anywhere", "[tune][cli]") {
  const Folder folder;
  CHECK_THAT(run(folder, {"tune", "--set", "smoke", "no line"}).err, Catch::Contains("this is not a problem line"));
  CHECK_THAT(run(folder, {"bench", "--variant", "chunk", "no line"}).err,
             Catch::Contains("this is not a problem line"));
  CHECK_THAT(run(folder, {"tune", "--set", "smoke", "--set", "nosuch"}).err, Catch::Contains("`nosuch`"));
  const auto table = std::string(GLAIVE_TABLES) + "/step-f32.csv";
  const auto both = run(folder, {"replay", "--seeds", "2", "--strategy", "default,random", table});
  CHECK(both.exit == 0);
  CHECK_THAT(both.out, Catch::Contains("default") and Catch::Contains("random"));
  const auto one = run(folder, {"replay", "--seeds", "2", "--strategy", "random", table, "--json", "-"});
  REQUIRE(one.exit == 0);
  CHECK(json::parse(one.out).is_object());  // and nothing else
}

TEST_CASE("glaive: a problem file's error names file, line and column", "[tune][cli]") {
  const Folder folder;
  write_text(folder / "mine.txt", "forward H1 K8 V8 @ B1 T8\n# fine\nforward H1 K0 V8 @ B1 T8\n");
  const auto ended = run(folder, {"tune", "--set", (folder / "mine.txt").string()});
  CHECK(ended.exit == 2);
  CHECK_THAT(ended.err, Catch::Contains("mine.txt:3:"));
}

TEST_CASE("glaive: bad values are one sentence and exit 2", "[tune][cli]") {
  const Folder folder;
  const auto effort = run(folder, {"tune", "--effort", "fast"});
  CHECK(effort.exit == 2);
  CHECK_THAT(effort.err, Catch::Contains("unknown effort `fast`: it is quick, normal or full"));
  CHECK(std::ranges::count(effort.err, '\n') == 1);
  CHECK(run(folder, {"tune", "--threads", "-3"}).exit == 2);
  CHECK(run(folder, {"tune", "--threads", "100000"}).exit == 2);
  CHECK(run(folder, {"tune", "--set", "nosuch"}).exit == 2);
  CHECK(run(folder, {"bench"}).exit == 2);
  const auto gates = run(folder, {"bench", "forward H1 K8 V8 @ B1 T8", "--gates", "strong"});
  CHECK(gates.exit == 2);
  CHECK_THAT(gates.err, Catch::Contains("no gates called `strong`; there are weak, logsigmoid"));
  CHECK(std::ranges::count(gates.err, '\n') == 1);
  CHECK(run(folder, {"verify", "forward H1 K8 V8 @ B1 T8"}).exit == 2);
  CHECK_FALSE(std::filesystem::exists(folder / "cache/journal.sqlite"));
}

TEST_CASE("glaive: numbers out of range are refused with what is allowed", "[tune][cli]") {
  const Folder folder;
  for (const char* threads : {"-3", "1025", "many", "99999999999999999999", "1.5", ""}) {
    const auto ended = run(folder, {"tune", "--threads", threads});
    CHECK(ended.exit == 2);
    CHECK(ended.err == fmt::format("glaive: --threads {}: it is 0 (all) or 1 to 1024\n", threads));
  }
  for (const char* seed : {"-1", "99999999999999999999", "x", "1 "}) {
    const auto ended = run(folder, {"verify", "forward H1 K8 V8 @ B1 T8", "--variant", "chunk", "--seed", seed});
    CHECK(ended.exit == 2);
    CHECK(ended.err == fmt::format("glaive: --seed {}: it is 0 to 18446744073709551615\n", seed));
  }
}

TEST_CASE("glaive: --lock says how long to wait, and whoever gives up says for whom", "[tune][cli]") {
  const Folder folder;
  for (const char* asked : {"never", "-1", "nan", "", "5s"}) {
    const auto ended = run(folder, {"verify", "forward H1 K8 V8 @ B1 T8", "--variant", "chunk", "--lock", asked});
    CHECK(ended.exit == 2);
    CHECK(ended.err == fmt::format("glaive: --lock {}: it is wait, fail or a number of seconds\n", asked));
  }
}

TEST_CASE("glaive: output that is lost is no success", "[tune][cli]") {
  const Folder folder;
  std::string told;
  for (const char* words : {"--help > /dev/full", "--version > /dev/full", "doctor > /dev/full"}) {
    INFO(words);
    const auto command =
        fmt::format("GLAIVE_CACHE={0}/cache {1} {2} 2> {0}/err", folder.path().string(), GLAIVE_BINARY, words);
    const int state = std::system(command.c_str());
    CHECK(WEXITSTATUS(state) == 1);
    told = read_text(folder / "err");
    CHECK_THAT(told, Catch::StartsWith("glaive: the output cannot be written"));
  }
  CHECK(told == "glaive: the output cannot be written: No space left on device\n");
}

TEST_CASE("glaive tune: a pack that cannot be written is told before any work", "[tune][cli]") {
  const Folder folder;
  const auto ended = run(folder, {"tune", "--pack", "/proc/nope/x.pack"});
  CHECK(ended.exit == 1);
  CHECK_THAT(ended.err, Catch::StartsWith("glaive: --pack /proc/nope/x.pack: ") and Catch::Contains("No such file"));
  CHECK(std::ranges::count(ended.err, '\n') == 1);
  CHECK_FALSE(std::filesystem::exists(folder / "cache/journal.sqlite"));
}

TEST_CASE("glaive bench: an earlier --json file stays until there is a new one", "[tune][cli]") {
  const Folder folder;
  const auto file = (folder / "out.json").string();
  write_text(file, "earlier");
  CHECK(run(folder, {"bench", "forward H1 K8 V8 f32 @ B1 T8", "--variant", "nosuch", "--json", file}).exit != 0);
  CHECK(read_text(file) == "earlier");
  const auto nowhere = run(folder, {"bench", "forward H1 K8 V8 f32 @ B1 T8", "--json", "/proc/nope/out.json"});
  CHECK(nowhere.exit == 1);
  CHECK_THAT(nowhere.err,
             Catch::StartsWith("glaive: cannot write /proc/nope/out.json: ") and Catch::Contains("No such file"));
  const auto in_folder = run(folder, {"bench", "forward H1 K8 V8 f32 @ B1 T8", "--json", folder.path().string()});
  CHECK(in_folder.exit == 1);
  CHECK_THAT(in_folder.err, Catch::Contains("Is a directory"));
}

TEST_CASE("glaive: a cache folder that is a file is one sentence and exit 1", "[tune][cli]") {
  const Folder folder;
  write_text(folder / "file", "");
  const auto ended = Program(folder, folder / "file", {"tune"}).wait();
  CHECK(ended.exit == 1);
  CHECK_THAT(ended.err, Catch::Contains("cache folder") and Catch::Contains("GLAIVE_CACHE"));
}

TEST_CASE("glaive doctor: says what there is, and creates nothing", "[tune][cli]") {
  const Folder folder;
  const auto ended = run(folder, {"doctor"});
  CHECK(ended.exit == 0);
  for (const char* word : {"processor", "target    cpu:x86-64", "caches", "MLIR", "CUDA", "NVRTC", "families",
                           "not created yet", "smoke", "fla-bench"})
    CHECK_THAT(ended.out, Catch::Contains(word));
  CHECK_FALSE(std::filesystem::exists(folder / "cache"));
}

TEST_CASE("glaive pack: a missing or foreign file is an error", "[tune][cli]") {
  const Folder folder;
  CHECK(run(folder, {"pack", (folder / "absent").string()}).exit == 1);
  write_text(folder / "text", "not a pack");
  const auto ended = run(folder, {"pack", (folder / "text").string()});
  CHECK(ended.exit == 1);
  CHECK(std::ranges::count(ended.err, '\n') == 1);
}

TEST_CASE("glaive pack: damaged entries are told, and the others are listed", "[tune][cli]") {
  const Folder folder;
  ToyRun toy(folder);
  ToyEvaluator evaluator;
  for (const char* tokens : {"16", "64", "256"})
    REQUIRE(toy.tune(evaluator, fmt::format("forward H4 K64 V64 f32 @ B1 T{}", tokens)));
  const auto file = toy.options.pack.string();
  const auto whole = read_text(file);
  auto bytes = whole;
  const auto second = bytes.rfind("B1 T64\"");
  REQUIRE(second != bytes.npos);
  bytes[second] = 'X';
  write_text(file, bytes);
  const auto ended = run(folder, {"pack", file});
  CHECK(ended.exit == 1);
  CHECK_THAT(ended.out, Catch::Contains(": 3 entries\n"));
  CHECK_THAT(ended.err, Catch::Contains("entry 1: its checksum does not match"));
  std::size_t winners = 0;
  for (auto at = ended.out.find("winner toy("); at != ended.out.npos; at = ended.out.find("winner toy(", at + 1))
    ++winners;
  CHECK(winners == 2);
  for (const auto& cut : {whole.substr(0, whole.size() / 2), std::string()}) {
    write_text(file, cut);
    for (const auto& words : {std::vector<std::string>{"pack", file},
                              {"tune", "--pack", file, "forward H1 K8 V8 f32 @ B1 T8"},
                              {"bench", "--pack", file, "forward H1 K8 V8 f32 @ B1 T8"}}) {
      const auto told = run(folder, words);
      CHECK(told.exit == 1);
      CHECK_THAT(told.err, Catch::Contains("move it away: tuning again takes the code from the journal\n"));
    }
  }
}

TEST_CASE("glaive bench: a pack that is named must be there", "[tune][cli]") {
  const Folder folder;
  const auto none = (folder / "none.pack").string();
  const auto ended = run(folder, {"bench", "--pack", none, "forward H1 K8 V8 f32 @ B1 T8"});
  CHECK(ended.exit == 1);
  CHECK(ended.err == run(folder, {"pack", none}).err);
  CHECK_FALSE(std::filesystem::exists(folder / "cache"));
}

TEST_CASE("glaive report: data and page do not go to one place, and - is the output", "[tune][cli]") {
  const Folder folder;
  ToyRun toy(folder);
  ToyEvaluator evaluator;
  REQUIRE(toy.tune(evaluator));
  const auto report = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"report", "--journal", toy.file.string()});
    return run(folder, words);
  };
  const auto file = (folder / "x").string();
  for (const auto& other : {file, folder.path().string() + "/./x"}) {
    const auto ended = report({"--json", file, "--html", other});
    CHECK(ended.exit == 2);
    CHECK_THAT(ended.err, Catch::Contains("are one file"));
  }
  CHECK(report({"--json", "-", "--html", "-"}).exit == 2);
  CHECK_FALSE(std::filesystem::exists(file));
  const auto data = report({"--json", "-", "--html", file});
  REQUIRE(data.exit == 0);
  CHECK(json::parse(data.out).at("cases").size() == 1);
  CHECK(read_text(file).starts_with("<!doctype html>"));
  CHECK(report({"--html", "-"}).out == read_text(file));
}

TEST_CASE("glaive inspect: parameters of any family, whatever device is here", "[tune][cli]") {
  const Folder folder;
  const auto stream = run(folder, {"inspect", "stream", "--params"});
  CHECK(stream.exit == 0);
  CHECK_THAT(stream.out, Catch::StartsWith("stream (gpu): ") and Catch::Contains("on cuda:sm_90a"));
  const auto step = run(folder, {"inspect", "step", "--params"});
  CHECK(step.exit == 0);
  CHECK_THAT(step.out, Catch::Contains("for `step H16 K128 V128 f32`"));
  const auto gpu = run(folder, {"inspect", "step", "--params", "--target", "cuda:sm_80"});
  CHECK(gpu.exit == 0);
  CHECK_THAT(gpu.out, Catch::StartsWith("step (gpu): ") and Catch::Contains("on cuda:sm_80"));
  CHECK(run(folder, {"inspect", "stream", "--params", "--target", "moon"}).exit == 2);
  CHECK_THAT(run(folder, {"inspect", "nosuch"}).err, Catch::Contains("step (gpu)"));
  CHECK(run(folder, {"inspect", "stream"}).exit == 1);
}

#ifndef GLAIVE_HAVE_MLIR

TEST_CASE("glaive: without MLIR, tune and bench say what is missing", "[tune][cli]") {
  const Folder folder;
  for (const char* command : {"tune", "bench"}) {
    const auto ended = run(folder, {command, "forward H1 K8 V8 @ B1 T8"});
    CHECK(ended.exit == 1);
  }
  CHECK_THAT(run(folder, {"bench", "--peak"}).err, Catch::Contains("without MLIR"));
}

#else

namespace {

constexpr const char* line = "forward H1 K16 V16 f32 @ B1 T64";

std::vector<std::string> code_rows(const Folder& folder) {
  return query(folder / "cache/journal.sqlite", "SELECT content, run FROM code ORDER BY 1");
}

}  // namespace

TEST_CASE("glaive list: counts variants by family", "[tune][cli]") {
  const Folder folder;
  const auto ended = run(folder, {"list", line});
  CHECK(ended.exit == 0);
  CHECK_THAT(ended.out, Catch::Contains("legal variants") and Catch::Contains("chunk "));
  const auto all = run(folder, {"list", "--all", line});
  CHECK_THAT(all.out, Catch::Contains("chunk(") and Catch::Contains(" default (prior"));
}

TEST_CASE("glaive inspect: parameters, facts, and the text of each stage", "[tune][cli]") {
  const Folder folder;
  const auto parameters = run(folder, {"inspect", "chunk", "--params"});
  CHECK(parameters.exit == 0);
  CHECK_THAT(parameters.out, Catch::Contains("one of"));
  const auto facts = run(folder, {"inspect", "chunk", "--problem", line});
  CHECK(facts.exit == 0);
  CHECK_THAT(facts.out, Catch::Contains("machine code") and Catch::Contains("key ") and Catch::Contains("compiler "));
  const std::pair<const char*, const char*> stages[] = {
      {"mlir", "func"}, {"lowered", "llvm."}, {"llvm", "define"}, {"asm", "ret"}};
  for (const auto& [stage, word] : stages) {
    const auto dump = run(folder, {"inspect", "chunk", "--problem", line, "--dump", stage});
    CHECK(dump.exit == 0);
    CHECK_THAT(dump.out, Catch::Contains(word));
  }
  CHECK(run(folder, {"inspect", "chunk", "--dump", "wasm"}).exit == 2);
  CHECK(run(folder, {"inspect", "nosuch"}).exit == 2);
}

TEST_CASE("glaive verify: a correct variant passes on every gate distribution", "[tune][cli]") {
  const Folder folder;
  const auto ended = run(folder, {"verify", line, "--variant", "chunk"});
  CHECK(ended.exit == 0);
  CHECK(std::ranges::count(ended.out, '\n') == std::ssize(all_gates));
  const auto one = run(folder, {"verify", line, "--variant", "recurrent", "--gates", "mixed", "--seed", "7"});
  CHECK(one.exit == 0);
  CHECK_THAT(one.out, Catch::Contains("gates mixed, seed 7"));
  CHECK(run(folder, {"verify", line, "--variant", "chunk", "--gates", "nosuch"}).exit == 2);
}

TEST_CASE("glaive verify: --lock fail gives up on a device in use, and names who uses it", "[tune][cli]") {
  const Folder folder;
  const auto lock = DeviceLock::acquire(DeviceLock::For::timing, lock_folder, identity(host_cpu_device()));
  REQUIRE(lock);
  for (const char* asked : {"fail", "0.1"}) {
    const auto ended = run(folder, {"verify", line, "--variant", "chunk", "--threads", "1", "--lock", asked});
    CHECK(ended.exit == 1);
    CHECK_THAT(ended.err, Catch::Contains(fmt::format("glaive: the device is in use by process {} (`", getpid())));
    CHECK_THAT(ended.err, Catch::StartsWith("waiting for process") or Catch::EndsWith("gave up at once\n"));
  }
}

TEST_CASE("glaive prepare and winners: for GPUs, and say so", "[tune][cli]") {
  const Folder folder;
  const auto winners = run(folder, {"winners", "--device", "cpu"});
  CHECK(winners.exit == 2);
  CHECK(winners.err == "glaive: winners are shipped for GPUs: --device gpu\n");
  const auto prepare = run(folder, {"prepare", "--device", "cpu"});
  CHECK(prepare.exit == 2);
  CHECK_THAT(prepare.err, Catch::Contains("winners are shipped for GPUs") and Catch::Contains("glaive tune"));
  CHECK(std::ranges::count(prepare.err, '\n') == 1);
  CHECK_FALSE(std::filesystem::exists(folder / "cache/winners.pack"));
  const auto compile = run(folder, {"winners", "--compile", "/proc/none"});  // before anything is compiled
  CHECK(compile.exit == 1);
  CHECK(compile.err == "glaive: cannot make the folder /proc/none: No such file or directory\n");
  const auto which = run(folder, {"winners", "--compile", (folder / "c").string(), "--out", "table.txt"});
  CHECK(which.exit == 2);
  CHECK_THAT(which.err, Catch::Contains("no --device, --pack or --out"));
}

TEST_CASE("glaive bench: several variants race each other", "[tune][cli]") {
  const Folder folder;
  const auto out = folder / "out.json";
  const auto ended = run(folder, {"bench", line, "--variant", "chunk", "--variant", "recurrent", "--seconds", "0.02",
                                  "--threads", "1", "--gates", "minus5", "--json", out.string()});
  REQUIRE(ended.exit == 0);
  const auto records = json::parse(read_text(out)).at("records");
  REQUIRE(records.size() == 2);
  CHECK(records[0].at("variant").get<std::string>().starts_with("chunk"));
  CHECK(records[1].at("variant").get<std::string>().starts_with("recurrent"));
  CHECK(records[0].at("baselines") == records[1].at("baselines"));
  CHECK(records[0].at("gates") == "minus5");
  const double one = records[0].at("to_fastest").at("ratio"), other = records[1].at("to_fastest").at("ratio");
  CHECK(std::min(one, other) <= 1);
  CHECK(records[0].at("to_fastest").at("pairs") >= 7);
  CHECK(run(folder, {"bench", line, "--seconds", "0"}).err == "glaive: --seconds 0: it is above 0, and at most 3600\n");
}

TEST_CASE("glaive: an unsupported problem is exit 1 for every command, with what was given", "[tune][cli]") {
  const Folder folder;
  const std::vector<std::string> commands[] = {{"tune", "forward H1 K16 V16 state=f16 @ B1 T1"},
                                               {"list", "forward H1 K16 V16 state=f16 @ B1 T1"},
                                               {"bench", "forward H1 K16 V16 state=f16 @ B1 T1", "--variant", "chunk"},
                                               {"verify", "forward H1 K16 V16 state=f16 @ B1 T1", "--variant", "chunk"},
                                               {"inspect", "chunk", "--problem", "forward H1 K16 V16 state=f16"}};
  for (const auto& words : commands) {
    INFO(words.front());
    const auto ended = run(folder, words);
    CHECK(ended.exit == 1);
    CHECK_THAT(ended.out + ended.err,
               Catch::Contains("forward H1 K16 V16 f32 state=f16") and Catch::Contains("f32 or bf16 only"));
  }
}

TEST_CASE("glaive verify: a case that does not fit in memory says what it needs", "[tune][cli]") {
  const Folder folder;
  const auto ended = run(folder, {"verify", "forward H1024 K256 V256 f32 @ B1 T100000000", "--variant", "chunk"});
  CHECK(ended.exit == 1);
  CHECK_THAT(ended.err, Catch::StartsWith("glaive: `forward H1024 ") and Catch::Contains("` needs ") and
                            Catch::Contains(" GB are available"));
}

TEST_CASE("glaive tune: a lack of descriptors is told, and forgotten once it is over", "[tune][cli]") {
  const Folder folder;
  const std::vector<std::string> words{"tune", line, "--effort", "quick", "--threads", "1", "--quiet"};
  rlim_t descriptors = 4;  // standard ones, and one to load the program with
  for (;; ++descriptors) {
    INFO(descriptors);
    REQUIRE(descriptors < 32);
    const auto ended = Program(folder, folder / "cache", words, 0, descriptors).wait();
    if (ended.exit == 0) break;
    CHECK(ended.exit == 1);
    CHECK(std::ranges::count(ended.err, '\n') == 1);
    CHECK(query(folder / "cache/journal.sqlite", "SELECT content FROM code WHERE result<>0").empty());
    CHECK(query(folder / "cache/journal.sqlite", "SELECT content FROM verdict WHERE result<>0").empty());
  }
  CHECK(descriptors > 8);  // the journal's, and those that a compilation takes
}

TEST_CASE("glaive tune: a full cache folder is one sentence and exit 1", "[tune][cli]") {
  const Folder folder;
  const testing::SmallDisk disk(folder / "cache", 256);
  if (not disk.mounted()) return;
  const auto ended = run(folder, {"tune", line, "--effort", "quick", "--threads", "1", "--quiet"});
  CHECK(ended.exit == 1);
  CHECK(std::ranges::count(ended.err, '\n') == 1);
  CHECK_THAT(ended.err, Catch::Contains("disk is full"));
}

TEST_CASE("glaive tune: from nothing to a pack; the second run finds everything tuned", "[tune][cli]") {
  const Folder folder;
  const auto first = run(folder, {"tune", line, "--effort", "quick", "--threads", "1"});
  CHECK(first.exit == 0);
  CHECK_THAT(first.out, Catch::Contains("1 new winner") and Catch::Contains("vs default"));
  const auto code = code_rows(folder);
  CHECK_FALSE(code.empty());
  const auto trials = query(folder / "cache/journal.sqlite", "SELECT variant, round, run FROM trial");

  const auto pack = Pack::open(folder / "cache/winners.pack").value();
  REQUIRE(pack.size() == 1);
  const auto evidence = json::parse(pack.load(0).value().evidence);
  for (const auto& entry : evidence.at("defaults"))
    CHECK(evidence.at("interval_ms").at(0) <= entry.at("interval_ms").at(1));
  CHECK(evidence.at("errors").at("o") < 5e-6);

  const auto second = run(folder, {"tune", line, "--effort", "quick", "--threads", "1"});
  CHECK(second.exit == 0);
  CHECK_THAT(second.out, Catch::Contains("everything is tuned"));
  CHECK(code_rows(folder) == code);
  CHECK(query(folder / "cache/journal.sqlite", "SELECT variant, round, run FROM trial") == trials);
  CHECK(query(folder / "cache/journal.sqlite", "SELECT count(*) FROM run") == std::vector<std::string>{"1"});

  const auto listed = run(folder, {"pack", (folder / "cache/winners.pack").string()});
  CHECK(listed.exit == 0);
  CHECK_THAT(listed.out, Catch::Contains("forward H1 K16 V16 f32") and Catch::Contains("winner "));

  const auto measured = run(folder, {"bench", line, "--threads", "1", "--json", (folder / "bench.json").string()});
  CHECK(measured.exit == 0);
  CHECK_THAT(measured.out, Catch::Contains("pack, exact"));
  const auto records = json::parse(read_text(folder / "bench.json"));
  CHECK(records.at("command").get<std::string>().starts_with("glaive bench 'forward H1 K16 V16 f32 @ B1 T64'"));
  CHECK(records.contains("host"));
  CHECK(records.contains("commit"));
  const auto& record = records.at("records").at(0);
  for (const char* field : {"problem", "device", "variant", "median_ms", "interval", "runs", "gflops", "roof_ms",
                            "roof_share", "baseline", "baseline_ms", "speedup", "error"}) {
    INFO(field);
    CHECK(record.contains(field));
  }
  CHECK(record.at("problem") == line);

  write_text(folder / "real.json", "earlier");
  std::filesystem::create_symlink("real.json", folder / "link.json");
  CHECK(run(folder, {"bench", line, "--threads", "1", "--json", (folder / "link.json").string()}).exit == 0);
  CHECK(std::filesystem::is_symlink(folder / "link.json"));
  CHECK(json::parse(read_text(folder / "real.json")).contains("records"));
  const auto mixed = run(folder, {"bench", line, "--threads", "1", "--json", "/dev/stdout"});
  CHECK(mixed.exit == 0);
  CHECK_THAT(mixed.out, Catch::StartsWith("problem ") and Catch::Contains("\"records\""));
  CHECK(record.at("interval").at(0) <= record.at("median_ms"));
  CHECK(record.at("error") < 5e-6);
}

TEST_CASE("glaive bench: without a winner it measures the default, or the variant asked for", "[tune][cli]") {
  const Folder folder;
  const auto preset = run(folder, {"bench", line, "--threads", "1"});
  CHECK(preset.exit == 0);
  CHECK_THAT(preset.out, Catch::Contains(" default "));
  const auto asked = run(folder, {"bench", line, "--threads", "1", "--variant", "recurrent", "--peak"});
  CHECK(asked.exit == 0);
  CHECK_THAT(asked.out, Catch::Contains("recurrent(") and Catch::Contains("GFLOP/s of f32 FMA"));
  CHECK(run(folder, {"bench", line, "--variant", "nosuch"}).exit == 2);
}

TEST_CASE("glaive tune: an unsupported line is a sentence, and the rest goes on", "[tune][cli]") {
  const Folder folder;
  const auto ended =
      run(folder, {"tune", "forward H1 K16 V16 state=f16 @ B1 T1", line, "--effort", "quick", "--threads", "1"});
  CHECK(ended.exit == 0);
  CHECK_THAT(ended.out, Catch::Contains("forward H1 K16 V16 f32 state=f16 @ B1 T1: no kernel family") and
                            Catch::Contains("1 new winner"));
  CHECK(run(folder, {"tune", "forward H1 K16 V16 state=f16 @ B1 T1"}).exit == 1);
}

TEST_CASE("glaive tune: killed at any phase, it resumes and repeats no finished step", "[tune][cli]") {
  const Folder folder;
  const auto journal = folder / "cache/journal.sqlite";
  const std::vector<std::string> words{"tune", line, "--effort", "quick", "--threads", "2"};
  const std::pair<const char*, std::size_t> moments[] = {
      {"SELECT 1 FROM code", 3}, {"SELECT 1 FROM verdict", 3}, {"SELECT 1 FROM trial WHERE round=1", 1}};
  const char* steps[] = {"SELECT content, run FROM code", "SELECT variant, content, run FROM verdict",
                         "SELECT variant, content, round, run FROM trial"};
  std::set<std::string> finished;
  const auto note_finished = [&] {
    for (const char* step : steps)
      for (const auto& row : query(journal, step)) finished.insert(row);
  };
  for (const auto& [sql, count] : moments) {
    Program program(folder, folder / "cache", words);
    while (program.running() and query(journal, sql).size() < count) usleep(2000);
    program.kill();
    program.wait();
    note_finished();
  }
  const auto ended = run(folder, words);
  CHECK(ended.exit == 0);
  CHECK(finished.size() > 6);
  std::set<std::string> all;
  for (const char* step : steps)
    for (const auto& row : query(journal, step)) all.insert(row);
  // A step that ran twice would carry the number of the later run.
  CHECK(std::ranges::includes(all, finished));
  CHECK(Pack::open(folder / "cache/winners.pack").value().size() == 1);
}

TEST_CASE("glaive tune: Ctrl-C says that the run can be gone on with, and ends it by that signal", "[tune][cli]") {
  const Folder folder;
  Program program(folder, folder / "cache", {"tune", line, "--threads", "1", "--quiet"});
  while (program.running() and query(folder / "cache/journal.sqlite", "SELECT 1 FROM verdict").empty()) usleep(2000);
  REQUIRE(program.running());
  program.kill(SIGINT);
  const auto ended = program.wait();
  CHECK(ended.signal == SIGINT);
  CHECK(ended.err == "\nglaive: interrupted; run it again to go on\n");
}

TEST_CASE("glaive tune: a file size limit is one sentence and exit 1; without it the run goes on", "[tune][cli]") {
  const Folder folder;
  const std::vector<std::string> words{"tune", line, "--effort", "quick", "--threads", "1", "--quiet"};
  const auto ended = Program(folder, folder / "cache", words, 150'000).wait();
  CHECK(ended.exit == 1);
  CHECK_THAT(ended.err, Catch::Contains("the limit on file sizes (ulimit -f, 150000 bytes)"));
  CHECK(std::ranges::count(ended.err, '\n') == 1);
  const auto before = code_rows(folder);
  CHECK(run(folder, words).exit == 0);
  const auto after = code_rows(folder);
  CHECK(std::ranges::includes(after, before));
}

TEST_CASE("glaive tune: a pack that others can write to is refused", "[tune][cli]") {
  const Folder folder;
  REQUIRE(run(folder, {"tune", line, "--effort", "quick", "--threads", "1"}).exit == 0);
  const auto pack = folder / "cache/winners.pack";
  std::filesystem::permissions(pack, std::filesystem::perms(0666));
  const auto ended = run(folder, {"tune", line, "--effort", "quick", "--threads", "1"});
  CHECK(ended.exit == 1);
  CHECK_THAT(ended.err, Catch::Contains("winners.pack"));
}

#endif
