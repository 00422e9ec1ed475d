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

TEST_CASE("two emitted sets of different names live in one program") {
  const Folder folder;
  emit_entries(folder, {kernel_entry()});
  const auto pack = (folder / "p.pack").string(), other = (folder / "other").string();
  REQUIRE(emit_command("--pack " + pack + " --name other_set --out " + other).exit == 0);
  write_bytes(folder / "main.c",
              std::as_bytes(std::span(std::string_view(
                  "#include <gla.h>\n#include <other_set.h>\n"
                  "int main(void) {\n  gla_device* a; other_set_device* b;\n"
                  "  gla_operator* p; other_set_operator* r;\n"
                  "  return gla_device_open(\"cpu\", 1, &a) || other_set_device_open(\"cpu\", 1, &b) ||\n"
                  "    gla_operator_create(a, GLA_FORWARD_H4_HKV2_K8_V8_F32, &p) ||\n"
                  "    other_set_operator_create(b, OTHER_SET_FORWARD_H4_HKV2_K8_V8_F32, &r);\n}\n"))));
  const auto out = (folder / "out").string(), program = (folder / "both").string();
  const Output compiled =
      run_command(strict_c + ("-I" + out) + "/include -I" + other + "/include " + (folder / "main.c").string() + " " +
                  out + "/src/gla.c " + other + "/src/other_set.c -o " + program + " -lpthread -ldl -lm");
  INFO(compiled.text);
  REQUIRE(compiled.exit == 0);
  CHECK(run_command(program).exit == 0);
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
