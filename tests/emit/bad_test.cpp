// One clear sentence for what is wrong, and nothing that was there is lost.
#include <set>

#include "autotune/emit/folder.hpp"
#include "autotune/emit/launcher.hpp"
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
  for (const char* taken : {"math", "m", "all", "install", "cuda"})
    r.refused(emit + " --name " + taken, 2, {"a header, a library or a target of CMake has that name"});
  r.refused(emit + " --ptx maybe", 2, {"--ptx maybe: it is auto, on or off"});
  const Output unread = emit_command(emit + " --problems 'forward H4 K8 W8'");
  CHECK(unread.exit == 2);
  CHECK(contains(unread.text, "--problems: this is not a problem:\nforward H4 K8 W8\n              ^"));
}

TEST_CASE("no name that may be chosen makes a public name one of the launcher's own") {
  const auto words_of = [](std::string_view part) {
    std::set<std::string> words;
    std::string word;
    for (const char c : std::string(std::ranges::find(launcher_parts(), part, &LauncherPart::name)->text) + " ") {
      if (std::isalnum(static_cast<unsigned char>(c)) != 0 or c == '_')
        word += c;
      else
        words.insert(std::exchange(word, ""));
    }
    return words;
  };
  std::set<std::string> ends;  // of public names: _plan_fit
  for (const auto& word : words_of("gla"))
    if (word.starts_with("gla_")) ends.insert(word.substr(3));
  REQUIRE(ends.contains("_plan_fit"));
  const Refusals r;
  for (const char* part : {"data", "cpu", "cuda", "call", "dispatch"})
    for (const auto& word : words_of(part))
      for (const auto& end : ends) {
        if (not word.ends_with(end) or word.starts_with("gla_")) continue;
        const auto name = word.substr(0, word.size() - end.size());
        if (word == "device_status") continue;  // a field
        r.refused("--pack " + r.pack + " --out " + r.out + " --name " + name, 2, {"--name " + name});
      }
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

TEST_CASE("what was changed since emit wrote it stays, what was taken away comes back") {
  const Refusals r;
  const std::string emit = "--replace --pack " + r.pack + " --out " + r.out;
  REQUIRE(emit_command(emit).exit == 0);
  const auto source = r.folder / "out/src/gla.c";
  auto bytes = read_bytes(source);
  bytes[100] ^= std::byte{1};
  write_bytes(source, bytes);
  r.refused(emit, 1, {"out holds src/gla.c, which was changed since emit wrote it: move it away"});
  CHECK(read_bytes(source) == bytes);
  fs::remove(source);
  fs::create_symlink("gla_plans.h", source);
  r.refused(emit, 1, {"out holds src/gla.c, which emit did not write"});
  fs::remove(source);
  CHECK(emit_command(emit).exit == 0);
  CHECK(fs::is_regular_file(source));
}

TEST_CASE("what is put in the folder while emit runs stays, and so does the folder") {
  const Refusals r;
  REQUIRE(emit_command("--pack " + r.pack + " --out " + r.out).exit == 0);
  const auto before = read_bytes(r.folder / "out/manifest.json");
  for (const bool replaces : {true, false}) {
    const auto place = r.folder / (replaces ? "out" : "above/new");
    {
      auto folder = emission::NewFolder::at(place, replaces);
      REQUIRE(folder.has_value());
      CHECK(r.folder.names() == std::vector<std::string>{"out", "p.pack", "p.pack.lock"});
      REQUIRE(folder->begin());
      REQUIRE(folder->write("file", "text"));
      CHECK_FALSE(folder->write("file", "another"));
      fs::create_directory(place);
      write_bytes(place / "note", {});
      const auto placed = folder->put_in_place();
      REQUIRE_FALSE(placed);
      CHECK(contains(placed.error().message, replaces ? "holds note, which emit did not write" : "not empty"));
    }
    CHECK(fs::exists(place / "note"));
    fs::remove(place / "note");
    if (not replaces) fs::remove_all(r.folder / "above");
  }
  CHECK(read_bytes(r.folder / "out/manifest.json") == before);
  CHECK(r.folder.names() == std::vector<std::string>{"out", "p.pack", "p.pack.lock"});
}

TEST_CASE("the folder to be made may be spelled in any way") {
  const Refusals r;
  const auto in = [&](const char* folder, const std::string& words) {
    return run_command("cd " + (r.folder / folder).string() + " && " GLAIVE_BINARY " emit --pack " + r.pack + " " +
                       words);
  };
  r.refused("--pack " + r.pack + " --out ''", 2, {"--out is empty; it is the folder that emit makes"});
  fs::create_directories(r.folder / "here/sub");
  fs::create_directory_symlink("here/sub/", r.folder / "link");
  fs::create_directory_symlink("later/", r.folder / "dangling");
  CHECK(in("here/sub", "--out .").exit == 0);
  CHECK(fs::exists(r.folder / "here/sub/src/gla.c"));
  CHECK(contains(in("here/sub", "--out ..").text, ".. is not empty"));
  CHECK(in("here/sub", "--replace --header-only --out .").exit == 0);
  CHECK_FALSE(fs::exists(r.folder / "here/sub/src"));
  for (const char* link : {"link", "link/", "./link/.", "dangling"}) {
    INFO(link);
    const Output output = in(".", std::string("--replace --out ") + link);
    INFO(output.text);
    CHECK(output.exit == 0);
  }
  CHECK(fs::is_symlink(r.folder / "link"));
  CHECK(fs::exists(r.folder / "here/sub/src/gla.c"));
  CHECK(fs::exists(r.folder / "later/src/gla.c"));
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
  CHECK(run_command("ulimit -f 8; " GLAIVE_BINARY " emit --pack " + r.pack + " --out " + r.out + ".new/b/c").exit == 1);
  CHECK(r.folder.names() == std::vector<std::string>{"out", "p.pack", "p.pack.lock"});
}
