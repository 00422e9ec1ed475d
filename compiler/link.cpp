#include <elf.h>
#include <fcntl.h>
#include <lld/Common/Driver.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>

#include "compiler/backend.hpp"
#include "runtime/files.hpp"

LLD_HAS_DRIVER(elf)

namespace glaive::backend {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

bool write_all(int fd, std::span<const std::byte> bytes) {
  while (not bytes.empty()) {
    const auto written = write(fd, bytes.data(), bytes.size());
    if (written < 0 and errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

bool read_all(int fd, std::vector<std::byte>& bytes) {
  constexpr std::size_t step = 1 << 16;
  for (;;) {
    const auto size = bytes.size();
    bytes.resize(size + step);
    const auto got = read(fd, bytes.data() + size, step);
    bytes.resize(size + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 and errno == EINTR) continue;
    if (got <= 0) return got == 0;
  }
}

std::string trimmed(std::string text) {
  while (not text.empty() and text.back() == '\n') text.pop_back();
  return text;
}

template <class T>
bool read_at(std::span<const std::byte> bytes, std::uint64_t offset, T& value) {
  if (offset > bytes.size() or bytes.size() - offset < sizeof(T)) return false;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return true;
}

}  // namespace

Result<ObjectFacts> object_facts(std::span<const std::byte> object) {
  const auto bad = [] { return fail(Status::failed, "codegen: LLVM gave a malformed object"); };
  ObjectFacts facts;
  Elf64_Ehdr header;
  if (not read_at(object, 0, header) or std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return bad();
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    if (not read_at(object, header.e_shoff + i * sizeof section, section)) return bad();
    if (section.sh_flags & SHF_EXECINSTR) facts.text_bytes += static_cast<std::int64_t>(section.sh_size);
    if (section.sh_type != SHT_SYMTAB) continue;
    Elf64_Shdr names;
    if (not read_at(object, header.e_shoff + section.sh_link * sizeof names, names)) return bad();
    if (names.sh_offset > object.size() or names.sh_size > object.size() - names.sh_offset or names.sh_size == 0)
      return bad();
    const std::string_view text(reinterpret_cast<const char*>(object.data()) + names.sh_offset, names.sh_size);
    for (std::uint64_t at = sizeof(Elf64_Sym); at < section.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      if (not read_at(object, section.sh_offset + at, symbol) or symbol.st_name >= text.size()) return bad();
      if (symbol.st_shndx != SHN_UNDEF) continue;
      const auto name = text.substr(symbol.st_name);
      facts.undefined.emplace_back(name.substr(0, name.find('\0')));
    }
  }
  return facts;
}

Result<std::vector<std::byte>> link_shared(std::span<const std::byte> object) {
  static std::mutex one_at_a_time;  // lld keeps its state in globals
  static bool usable = true;
  const std::lock_guard lock(one_at_a_time);
  if (not usable) return fail(Status::io_error, "link: an earlier crash of lld left it unusable in this process");

  // No file on any disk. The output is a pipe, because lld replaces a regular file by a new one that it makes beside
  // it, which /proc does not allow; into a pipe it writes.
  Descriptor input(memfd_create("glaive-object", MFD_CLOEXEC)), from_lld, to_reader;
  int ends[2];
  if (input.get() < 0 or pipe2(ends, O_CLOEXEC) != 0)
    return fail(Status::io_error, std::string("link: no memory file or pipe: ") + std::strerror(errno));
  from_lld.reset(ends[0]);
  to_reader.reset(ends[1]);
  if (not write_all(input.get(), object))
    return fail(Status::io_error, std::string("link: cannot write the object: ") + std::strerror(errno));

  std::vector<std::byte> bytes;
  bool complete = false;
  std::thread reader;
  try {
    reader = std::thread([&] { complete = read_all(from_lld.get(), bytes); });
  } catch (const std::system_error& error) {
    return fail(Status::io_error, std::string("link: no thread can be started: ") + error.what());
  }

  const auto input_path = input.path(), output_path = to_reader.path();
  const char* arguments[] = {"ld.lld", "-shared",     "--threads=1", "--build-id=none",   "--hash-style=gnu", "-z",
                             "now",    "--strip-all", "-o",          output_path.c_str(), input_path.c_str()};
  std::string out, err;
  llvm::raw_string_ostream out_stream(out), err_stream(err);
  const auto result = lld::lldMain(arguments, out_stream, err_stream, {{lld::Gnu, &lld::elf::link}});
  usable = result.canRunAgain;
  to_reader.reset();
  reader.join();
  if (result.retCode != 0) {
    const auto said = trimmed(err_stream.str());
    return fail(names_shortage(said) ? Status::io_error : Status::failed, "link: " + said);
  }
  if (not complete or bytes.empty()) return fail(Status::io_error, "link: lld wrote no output");
  return bytes;
}

}  // namespace glaive::backend
