// What is emitted builds with a C compiler, and computes what it should: as files, as a CMake package, by pkg-config.
#include <nlohmann/json.hpp>

#include "autotune/emit/selection.hpp"
#include "tests/emit/support.hpp"

using namespace glaive;
using namespace glaive::testing;
using nlohmann::json;

namespace {

json manifest_of(const Folder& folder) {
  const auto bytes = read_bytes(folder / "out/manifest.json");
  return json::parse(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

/// Of a kernel that writes its own number into o.
PackEntry numbered_entry(const char* kernel) {
  PackEntry entry = kernel_entry();
  entry.plan.stages[0].entry = "which";
  entry.plan.stages[0].tasks = {1, {}};
  entry.plan.stages[0].args = {Arg::o};
  entry.code = {kernel_object(kernel)};
  return entry;
}

std::string folder_of(const Folder& folder) { return (folder / "out").string(); }

/// The command that compiles which.c.
std::string compile_which(const Folder& with, const std::string& set, const std::string& function) {
  return strict_c + ("-DSET=" + set) + " -DFUNCTION=" + function + " -DHEADER='<" + set + ".h>' -I" + folder_of(with) +
         "/include " CONSUMER_FOLDER "/which.c ";
}

void good(const std::string& command) {
  const Output output = run_command(command);
  INFO(command << ":\n" << output.text);
  REQUIRE(output.exit == 0);
}

/// A program that prints what these functions return.
void write_main(const fs::path& path, const std::vector<std::string>& functions) {
  std::string text = "#include <stdint.h>\n#include <stdio.h>\n", body;
  for (const auto& function : functions) {
    text += "int64_t " + function + "(void);\n";
    body += "  printf(\"%d\\n\", (int)" + function + "());\n";
  }
  text += "int main(void) {\n" + body + "}\n";
  write_bytes(path, std::as_bytes(std::span(text)));
}

}  // namespace

TEST_CASE("a C program that links what was emitted computes o and the states, on one worker and on several") {
  const Folder folder;
  emit_entries(folder, {kernel_entry()});
  const std::string program = build_consumer(folder);
  runs_right(program + " cpu '" + kernel_problem + "' 3 5");
  runs_right(program + " cpu '" + kernel_problem + "' 4 1 3");
  const Output needs =
      run_command("readelf -d " + program + " | grep NEEDED | grep -v -e libc.so -e libm.so -e ld-linux");
  INFO(needs.text);
  CHECK(needs.text.empty());
}

TEST_CASE("the emitted CMake package is found and linked by a project in C") {
  const Folder folder;
  emit_entries(folder, {kernel_entry()});
  const auto build = (folder / "build").string();
  const Output output = run_command(CMAKE " -S " CONSUMER_FOLDER "/project -B " + build +
                                    " -G '" GENERATOR "' -DCMAKE_C_COMPILER=" C_COMPILER " -DCONSUMER=" CONSUMER_FOLDER
                                    "/consumer.c -DCMAKE_PREFIX_PATH=" +
                                    (folder / "out").string() + " && " CMAKE " --build " + build);
  INFO(output.text);
  REQUIRE(output.exit == 0);
  runs_right(build + "/consumer cpu '" + kernel_problem + "' 3 5");
}

TEST_CASE("pkg-config has the flags of the library that the folder's script builds") {
  if (run_command("pkg-config --version").exit != 0) {
    WARN("left out: there is no pkg-config");
    return;
  }
  const Folder folder;
  emit_entries(folder, {kernel_entry()});
  const auto out = (folder / "out").string(), program = (folder / "consumer").string();
  const Output output =
      run_command("CC=" C_COMPILER " " + out + "/build && export PKG_CONFIG_PATH=" + out + "/lib/pkgconfig && " +
                  strict_c + CONSUMER_FOLDER "/consumer.c -o " + program + " $(pkg-config --cflags --libs gla)");
  INFO(output.text);
  REQUIRE(output.exit == 0);
  runs_right(program + " cpu '" + kernel_problem + "' 3 5");
}

TEST_CASE("two emitted sets of different names run in one program, each its own kernels") {
  const Folder first, second;
  emit_entries(first, {numbered_entry(TEST_KERNEL_1)});
  emit_entries(second, {numbered_entry(TEST_KERNEL_2)}, "--name other_set");
  write_main(first / "main.c", {"a", "b"});
  const auto built = [&](const char* name) { return (first / name).string(); };
  good(compile_which(first, "gla", "a") + "-c -o " + built("a.o"));
  good(compile_which(second, "other_set", "b") + "-c -o " + built("b.o"));
  good(strict_c + built("main.c") + " " + built("a.o") + " " + built("b.o") + " " + folder_of(first) + "/src/gla.c " +
       folder_of(second) + "/src/other_set.c -lpthread -ldl -lm -o " + built("both"));
  CHECK(run_command(built("both")).text == "1\n2\n");
}

TEST_CASE("plugins that keep a set of the same name to themselves run its kernels, whatever else is in the process") {
  const Folder first, second;
  emit_entries(first, {numbered_entry(TEST_KERNEL_1)});
  emit_entries(second, {numbered_entry(TEST_KERNEL_2)});
  const auto built = [&](const char* name) { return (first / name).string(); };
  // One that shows all of its set, before the others in the order of look-up.
  good(compile_which(first, "gla", "bare") + folder_of(first) + "/src/gla.c -shared -fPIC -lpthread -ldl -lm -o " +
       built("libbare.so"));
  good("CC=" C_COMPILER " " + folder_of(second) + "/build");
  good(compile_which(second, "gla", "scripted") + "-shared -fPIC -L" + folder_of(second) +
       "/lib -lgla -lpthread -ldl -lm -o " + built("libscripted.so"));
  good(CMAKE " -S " CONSUMER_FOLDER "/project -B " + built("build") +
       " -G '" GENERATOR "' -DCMAKE_C_COMPILER=" C_COMPILER " -DPLUGIN=" CONSUMER_FOLDER
       "/which.c -DCMAKE_PREFIX_PATH=" +
       folder_of(second) + " && " CMAKE " --build " + built("build"));
  write_main(first / "main.c", {"bare", "scripted", "packaged"});
  good(strict_c + built("main.c") + " -L" + first.path().string() + " -L" + built("build") +
       " -Wl,--no-as-needed -lbare -lscripted -lpackaged -Wl,-rpath," + first.path().string() + ":" + built("build") +
       " -o " + built("host"));
  CHECK(run_command(built("host")).text == "1\n2\n2\n");
}

TEST_CASE("a CMake project that finds two sets of the same name is told so") {
  const Folder first, second;
  emit_entries(first, {kernel_entry()});
  emit_entries(second, {kernel_entry()});
  const Output output =
      run_command(CMAKE " -S " CONSUMER_FOLDER "/project -B " + (first / "build").string() +
                  " -G '" GENERATOR "' -DCMAKE_C_COMPILER=" C_COMPILER " -DCMAKE_PREFIX_PATH=" + folder_of(first) +
                  " -DOTHER=" + folder_of(second));
  INFO(output.text);
  CHECK(output.exit != 0);
  CHECK(contains(output.text, "gla::gla is already"));
  CHECK(contains(output.text, "--name"));
}

TEST_CASE("the header for engines that launch by themselves names code, geometry and the order of arguments") {
  const Folder folder;
  emit_entries(folder, {kernel_entry()}, "--header-only");
  const auto out = (folder / "out").string(), program = (folder / "by_hand").string();
  CHECK_FALSE(fs::exists(folder / "out/src"));
  CHECK_FALSE(fs::exists(folder / "out/lib"));
  const Output compiled =
      run_command(strict_c + ("-I" + out) + "/include " CONSUMER_FOLDER "/by_hand.c -o " + program + " -ldl -lm");
  INFO(compiled.text);
  REQUIRE(compiled.exit == 0);
  const Output ran = run_command(program + " " + out);
  INFO(ran.text);
  CHECK(ran.exit == 0);
}

TEST_CASE("the manifest has problems, plans, code, evidence, and a checksum of every file") {
  const Folder folder;
  auto entries = std::vector{kernel_entry(), kernel_entry()};
  entries[1].key.bucket = {4, 1};
  entries[1].evidence = "no JSON";
  emit_entries(folder, entries);
  const json all = manifest_of(folder);
  CHECK(all["kind"] == "glaive emit");
  CHECK(all["problems"] == json::array({kernel_problem}));
  REQUIRE(all["plans"].size() == 1);  // both entries have the same
  REQUIRE(all["code"].size() == 1);
  CHECK(all["code"][0]["target"] == "cpu:x86-64-v2");
  CHECK(read_bytes(folder / "out" / all["code"][0]["file"].get<std::string>()) == kernel_object().bytes);
  REQUIRE(all["entries"].size() == 2);
  CHECK(all["entries"][0]["bucket"] == "work 4..7, tokens 2..15");
  CHECK(all["entries"][0]["evidence"]["times"] == json::array({1.5}));
  CHECK(all["entries"][1]["evidence"] == "no JSON");
  CHECK(all["plans"][0]["stages"][0]["arguments"][0] == "q");
  std::size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "out")) files += entry.is_regular_file();
  CHECK(all["files"].size() + 1 == files);                                                 // all but itself
  CHECK(emission::checksum_of(std::string_view()) == "99aa06d3014798d86001c324468d497f");  // as XXH3 defines it
  for (const auto& file : all["files"]) {
    const auto bytes = read_bytes(folder / "out" / file["path"].get<std::string>());
    CHECK(bytes.size() == file["bytes"].get<std::size_t>());
    CHECK(emission::checksum_of(bytes) == file["xxh3_128"].get<std::string>());
  }
}

TEST_CASE("code that is the same for two targets is one file") {
  const Folder folder;
  auto entries = std::vector{kernel_entry(), kernel_entry()};
  entries[1].key.target = "cpu:x86-64-v4";
  entries[1].plan.target = entries[1].code[0].target = *parse_target("cpu:x86-64-v4");
  emit_entries(folder, entries);
  const json all = manifest_of(folder);
  REQUIRE(all["code"].size() == 2);
  CHECK(all["code"][0]["target"] != all["code"][1]["target"]);
  CHECK(all["code"][0]["file"] == all["code"][1]["file"]);
  const auto in_code = [](const json& file) { return file["path"].get<std::string>().starts_with("code/"); };
  CHECK(std::count_if(all["files"].begin(), all["files"].end(), in_code) == 1);
}

TEST_CASE("options for targets and problems take what they name and nothing else") {
  const Folder folder;
  auto entries = std::vector{kernel_entry(), kernel_entry(), kernel_entry()};
  entries[1].key.problem = "step H4 Hkv2 K8 V8 f32";
  entries[2].key.target = "cpu:x86-64-v2";
  emit_entries(folder, entries, "--targets cpu:x86-64-v2,cpu --problems 'forward Hkv2 H4 V8 K8 @ B1 T2'");
  CHECK(manifest_of(folder)["entries"].size() == 2);
  const auto again = "--replace --pack " + (folder / "p.pack").string() + " --out " + (folder / "out").string() + " ";
  CHECK(emit_command(again + "--targets cpu:x86-64-v2").exit == 0);
  CHECK(manifest_of(folder)["entries"].size() == 1);
}
