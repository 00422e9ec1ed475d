// One clear sentence for what is wrong, and nothing that was there is lost.
#include "tests/emit/support.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

struct Refusals {
  Folder folder;
  std::string pack = (folder / "p.pack").string(), out = (folder / "out").string();

  Refusals() {
    const PackEntry entry = kernel_entry();
    REQUIRE(add_to_pack(pack, {&entry, 1}).has_value());
  }
  /// The command fails with one sentence that holds these parts, and leaves no trace.
  void refused(const std::string& words, int exit, std::initializer_list<std::string_view> parts) const {
    const auto before = folder.names();
    const Output output = emit_command(words);
    INFO(words << ": " << output.text);
    CHECK(output.exit == exit);
    CHECK(output.text.starts_with("glaive: "));
    CHECK(std::count(output.text.begin(), output.text.end(), '\n') == 1);
    for (const auto part : parts) CHECK(contains(output.text, part));
    CHECK(folder.names() == before);
  }
};

}  // namespace

TEST_CASE("a missing, foreign, cut or empty pack is refused by name") {
  const Refusals r;
  r.refused("--pack " + r.pack + ".none --out " + r.out, 1, {"p.pack.none", "No such file"});
  const std::string text = "no pack at all, but long enough for the header of one, which has 64 bytes of its own";
  write_bytes(r.folder / "text", std::as_bytes(std::span(text)));
  r.refused("--pack " + (r.folder / "text").string() + " --out " + r.out, 1, {"this is no glaive pack"});
  auto bytes = read_bytes(r.pack);
  bytes.resize(bytes.size() / 2);
  write_bytes(r.folder / "cut", bytes);
  r.refused("--pack " + (r.folder / "cut").string() + " --out " + r.out, 1, {"the pack should have", "bytes and has"});
  bytes = read_bytes(r.pack);
  bytes[bytes.size() - 200] ^= std::byte{1};
  write_bytes(r.folder / "damaged", bytes);
  r.refused("--pack " + (r.folder / "damaged").string() + " --out " + r.out, 1, {"entry 0", "damaged"});
  write_bytes(r.folder / "empty", encode_pack({}));
  r.refused("--pack " + (r.folder / "empty").string() + " --out " + r.out, 1, {"holds no winner"});
}

TEST_CASE("an unknown target, problem or name is refused with those that there are") {
  const Refusals r;
  const std::string emit = "--pack " + r.pack + " --out " + r.out;
  r.refused(emit + " --targets cuda:sm_90a", 2,
            {"--targets cuda:sm_90a: the pack has no code for that; it has code for ", to_string(host_cpu_target())});
  r.refused(emit + " --problems 'step H4 Hkv2 K8 V8'", 2,
            {"--problems 'step H4 Hkv2 K8 V8': the pack has no winner for it", "'forward H4 Hkv2 K8 V8 f32'"});
  r.refused(emit + " --name 9lives", 2, {"--name 9lives: it is a letter"});
  r.refused(emit + " --ptx maybe", 2, {"--ptx maybe: it is auto, on or off"});
  const Output unread = emit_command(emit + " --problems 'forward H4 K8 W8'");
  CHECK(unread.exit == 2);
  CHECK(contains(unread.text, "--problems: this is not a problem:\nforward H4 K8 W8\n              ^"));
}

TEST_CASE("a folder that cannot be written, is a file, or holds other things stays as it is") {
  const Refusals r;
  const std::string emit = "--pack " + r.pack + " --out ";
  r.refused(emit + r.pack, 1, {"is a file; --out is a folder"});
  r.refused(emit + "/proc/none", 1, {"cannot make the folder /proc/none", "No such file"});
  fs::create_directory(r.out);
  CHECK(emit_command(emit + r.out).exit == 0);  // an empty one is taken
  r.refused(emit + r.out, 1, {"is not empty; --replace puts the new files"});
  write_bytes(r.folder / "out/notes.txt", {});
  r.refused(emit + r.out + " --replace", 1, {"holds notes.txt, which emit did not write"});
  CHECK(fs::exists(r.folder / "out/notes.txt"));
  fs::remove(r.folder / "out/notes.txt");
  CHECK(emit_command(emit + r.out + "/ --replace --header-only").exit == 0);
  CHECK_FALSE(fs::exists(r.folder / "out/src"));
  fs::create_symlink("out", r.folder / "link");
  CHECK(emit_command(emit + (r.folder / "link").string() + " --replace").exit == 0);
  CHECK(fs::is_symlink(r.folder / "link"));
  CHECK(fs::exists(r.folder / "out/src/gla.c"));
  fs::remove(r.folder / "link");
  fs::create_directory(r.folder / "mine");
  write_bytes(r.folder / "mine/letter.txt", {});
  r.refused(emit + (r.folder / "mine").string() + " --replace", 1, {"is no folder that emit wrote: it stays as it is"});
  CHECK(r.folder.names() == std::vector<std::string>{"mine", "out", "p.pack", "p.pack.lock"});
}

TEST_CASE("a disk without space leaves what was there") {
  const Refusals r;
  const std::string emit = "--pack " + r.pack + " --out " + r.out;
  REQUIRE(emit_command(emit).exit == 0);
  const auto before = read_bytes(r.folder / "out/manifest.json");
  const Output output = run_command("ulimit -f 8; " GLAIVE_BINARY " emit --replace " + emit);  // 8 KiB or 4
  INFO(output.text);
  CHECK(output.exit == 1);
  CHECK(contains(output.text, "cannot write"));
  CHECK(read_bytes(r.folder / "out/manifest.json") == before);
  CHECK(r.folder.names() == std::vector<std::string>{"out", "p.pack", "p.pack.lock"});
}
