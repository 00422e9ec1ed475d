#include "autotune/journal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "autotune/cache.hpp"
#include "autotune/evidence.hpp"

namespace glaive {
namespace {

// Each brings a journal from the schema of its index to the next; a new journal takes them all. Rows are never dropped.
constexpr const char* steps[] = {
    R"sql(
CREATE TABLE run(id INTEGER PRIMARY KEY, started TEXT NOT NULL, command TEXT NOT NULL);
CREATE TABLE code(
  content TEXT PRIMARY KEY, run INTEGER NOT NULL, result INTEGER NOT NULL, message TEXT NOT NULL, seconds REAL NOT NULL,
  format INTEGER NOT NULL, target TEXT NOT NULL, text_bytes INTEGER NOT NULL, stack_bytes INTEGER NOT NULL,
  bytes BLOB NOT NULL);
CREATE TABLE verdict(
  device TEXT, problem TEXT, variant TEXT, content TEXT, rules TEXT,
  run INTEGER NOT NULL, result INTEGER NOT NULL, reason TEXT NOT NULL, error_o REAL, error_state REAL,
  message TEXT NOT NULL,
  PRIMARY KEY(device, problem, variant, content, rules));
CREATE TABLE trial(
  device TEXT, problem TEXT, shape TEXT, policy TEXT, space INTEGER, schema INTEGER,
  variant TEXT, content TEXT, round INTEGER,
  run INTEGER NOT NULL, result INTEGER NOT NULL, reason TEXT NOT NULL, median REAL, low REAL, high REAL,
  samples BLOB NOT NULL, reference TEXT NOT NULL, reference_median REAL,
  PRIMARY KEY(device, problem, shape, policy, space, schema, variant, content, round));
CREATE TABLE winner(
  device TEXT, problem TEXT, shape TEXT, policy TEXT, space INTEGER, schema INTEGER,
  run INTEGER NOT NULL, variant TEXT NOT NULL, content TEXT NOT NULL, evidence TEXT NOT NULL,
  PRIMARY KEY(device, problem, shape, policy, space, schema));
)sql",
    R"sql(
ALTER TABLE run ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN git_commit TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN compiler TEXT NOT NULL DEFAULT '';
ALTER TABLE trial ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE trial ADD COLUMN at TEXT NOT NULL DEFAULT '';
CREATE TABLE attempt(
  device TEXT, problem TEXT, shape TEXT, policy TEXT, space INTEGER, schema INTEGER,
  variant TEXT, number INTEGER NOT NULL, content TEXT NOT NULL, prior REAL, is_default INTEGER NOT NULL,
  result INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
  compile_seconds REAL NOT NULL, verify_seconds REAL NOT NULL, run INTEGER NOT NULL, at TEXT NOT NULL,
  PRIMARY KEY(device, problem, shape, policy, space, schema, variant));
)sql",
    R"sql(
ALTER TABLE trial ADD COLUMN reference_samples BLOB NOT NULL DEFAULT x'';
)sql"};
static_assert(std::size(steps) == Journal::schema);

constexpr std::string_view where_case =
    "device=?1 AND problem=?2 AND shape=?3 AND policy=?4 AND space=?5 AND schema=?6";

}  // namespace

struct Journal::Impl {
  std::filesystem::path file;
  sqlite3* db = nullptr;
  std::int64_t run = 0;
  std::mutex mutex;

  ~Impl() { sqlite3_close(db); }

  /// The limit on file sizes, once a file of the journal has come so close that it cannot grow. SQLite does not say.
  std::optional<rlim_t> limit_reached() const {
    constexpr rlim_t growth = 32768;  // of the largest step, that of the shared memory file
    rlimit limit{};
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 or limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
    for (const char* suffix : {"", "-wal", "-shm"}) {
      std::error_code error;
      const auto size = std::filesystem::file_size(file.string() + suffix, error);
      if (not error and size + growth > limit.rlim_cur) return limit.rlim_cur;
    }
    return std::nullopt;
  }

  /// A journal in WAL mode is read together with two files beside it, which SQLite may have to make. Where it cannot,
  /// the file alone is read: all but the last steps of a run that was killed there.
  int open_to_read() {
    std::string uri = "file:";
    for (const unsigned char c : std::filesystem::absolute(file).string())
      uri += std::isalnum(c) != 0 or c == '/' ? std::string(1, static_cast<char>(c)) : fmt::format("%{:02X}", c);
    int code = SQLITE_OK;
    for (const char* mode : {"?mode=ro", "?immutable=1"}) {
      sqlite3_close(std::exchange(db, nullptr));
      code = sqlite3_open_v2((uri + mode).c_str(), &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_URI,
                             nullptr);
      if (code != SQLITE_OK) continue;
      sqlite3_busy_timeout(db, 10000);
      code = sqlite3_exec(db, "SELECT count(*) FROM sqlite_master", nullptr, nullptr, nullptr);
      if (const int kind = code & 0xff; kind != SQLITE_CANTOPEN and kind != SQLITE_READONLY) return code;
    }
    return code;
  }

  std::unexpected<Error> refused(int code) const {
    const auto because = [&]() -> std::string {
      const int kind = code & 0xff;
      if (kind == SQLITE_FULL or kind == SQLITE_IOERR)
        if (const auto limit = limit_reached())
          return fmt::format("the limit on file sizes (ulimit -f, {} bytes) is reached; steps finished so far are kept",
                             *limit);
      switch (kind) {
        case SQLITE_FULL:
          return "the disk is full; steps finished so far are kept";
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
          return "another process holds it locked; try again when that one is done";
        case SQLITE_NOTADB:
          return "it is not a journal; move it away and tune again (packs are not affected)";
        case SQLITE_CORRUPT:
          return "it is damaged; move it away and tune again (packs are not affected)";
        case SQLITE_READONLY:
        case SQLITE_PERM:
          return "it cannot be written";
        case SQLITE_CANTOPEN:
          return "it cannot be opened or created";
        case SQLITE_IOERR: {
          const int system = db == nullptr ? 0 : sqlite3_system_errno(db);
          return fmt::format("reading or writing failed ({}); steps finished so far are kept",
                             system != 0 ? std::strerror(system) : sqlite3_errstr(code));
        }
        default:
          return db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
      }
    }();
    return fail(Status::io_error, fmt::format("journal {}: {}", file.string(), because));
  }

  /// The schema of the file; a newer one than ours is an error.
  Result<int> version() const;

  Result<void> execute(const char* sql) {
    const int code = sqlite3_exec(db, sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return refused(code);
    return {};
  }

  /// All of what `work` writes, or nothing.
  Result<void> in_transaction(const auto& work) {
    if (auto begun = execute("BEGIN IMMEDIATE"); not begun) return begun;
    auto done = work();
    if (done) done = execute("COMMIT");
    if (not done) sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
    return done;
  }
};

namespace {

/// A prepared statement whose first error sticks: bind and step freely, ask once.
class Statement {
 public:
  Statement(sqlite3* db, std::string_view sql) {
    code_ = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr);
  }
  Statement(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Statement& bind(std::string_view text) {
    return note(sqlite3_bind_text(statement_, ++next_, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT));
  }
  Statement& bind(std::int64_t number) { return note(sqlite3_bind_int64(statement_, ++next_, number)); }
  Statement& bind(double number) { return note(sqlite3_bind_double(statement_, ++next_, number)); }
  Statement& bind(std::span<const std::byte> bytes) {
    // A null pointer would bind NULL instead of an empty blob.
    const void* data = bytes.empty() ? static_cast<const void*>("") : bytes.data();
    return note(sqlite3_bind_blob64(statement_, ++next_, data, bytes.size(), SQLITE_TRANSIENT));
  }
  Statement& bind(const CaseKey& key) {
    bind(key.device).bind(key.problem).bind(key.shape).bind(key.policy);
    return bind(static_cast<std::int64_t>(key.space)).bind(static_cast<std::int64_t>(key.schema));
  }

  bool row() {
    if (code_ != SQLITE_OK) return false;
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) code_ = code;
    return false;
  }
  /// SQLITE_OK, or the first error.
  int finish() {
    row();
    return code_;
  }
  int code() const { return code_; }

  std::string text(int column) const {
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return data == nullptr ? std::string() : std::string(data, sqlite3_column_bytes(statement_, column));
  }
  std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double real(int column) const { return sqlite3_column_double(statement_, column); }
  std::span<const std::byte> blob(int column) const {
    const auto* data = static_cast<const std::byte*>(sqlite3_column_blob(statement_, column));
    return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
  }
  std::vector<double> numbers(int column) const {
    const auto bytes = blob(column);
    std::vector<double> numbers(bytes.size() / sizeof(double));
    if (not numbers.empty()) std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(double));
    return numbers;
  }

 private:
  Statement& note(int code) {
    if (code_ == SQLITE_OK) code_ = code;
    return *this;
  }
  sqlite3_stmt* statement_ = nullptr;
  int next_ = 0;
  int code_ = SQLITE_OK;
};

}  // namespace

Result<int> Journal::Impl::version() const {
  Statement ask(db, "PRAGMA user_version");
  const auto version = ask.row() ? static_cast<int>(ask.integer(0)) : 0;
  if (ask.code() != SQLITE_OK) return refused(ask.code());
  if (version > schema or version < 0)
    return fail(
        Status::io_error,
        fmt::format("journal {}: written by a newer glaive (schema {}, this one knows {}); update glaive or set "
                    "GLAIVE_CACHE to another folder",
                    file.string(), version, schema));
  return version;
}

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::Journal(Journal&&) noexcept = default;
Journal::~Journal() = default;
std::int64_t Journal::run() const { return impl_->run; }

Result<Journal> Journal::open(const std::filesystem::path& file, std::string_view command, std::string_view compiler) {
  auto impl = std::make_unique<Impl>();
  impl->file = file;
  // SQLite creates files with the umask's mode; the journal holds native code, so only its owner may write it.
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return fail(Status::io_error, fmt::format("journal {}: {}", file.string(), std::strerror(errno)));
  close(descriptor);
  if (auto trusted = check_trusted(file); not trusted) return std::unexpected(trusted.error());

  int code = sqlite3_open_v2(file.c_str(), &impl->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, nullptr);
  if (code != SQLITE_OK) return impl->refused(code);
  sqlite3_extended_result_codes(impl->db, 1);
  sqlite3_busy_timeout(impl->db, 10000);
  // To make a new journal one with a write-ahead log takes it alone, for which SQLite does not wait by itself.
  Result<void> begun;
  for (int tries = 0; tries < 200; ++tries, std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
    begun = impl->execute("PRAGMA journal_mode=WAL");
    if (begun or (sqlite3_errcode(impl->db) & 0xff) != SQLITE_BUSY) break;
  }
  if (begun) begun = impl->execute("PRAGMA synchronous=NORMAL; BEGIN IMMEDIATE");
  if (not begun) return std::unexpected(begun.error());

  const auto version = impl->version();
  if (not version) return std::unexpected(version.error());
  for (int step = *version; step < schema; ++step)
    if (auto made = impl->execute(steps[step]); not made) return std::unexpected(made.error());
  if (*version < schema)
    if (auto set = impl->execute(fmt::format("PRAGMA user_version={}", schema).c_str()); not set)
      return std::unexpected(set.error());
  {
    Statement insert(
        impl->db, "INSERT INTO run(started, command, version, git_commit, compiler) VALUES(datetime('now'),?,?,?,?)");
    insert.bind(command).bind(glaive_version()).bind(glaive_commit()).bind(compiler);
    if (code = insert.finish(); code != SQLITE_OK) return impl->refused(code);
  }
  impl->run = sqlite3_last_insert_rowid(impl->db);
  if (auto done = impl->execute("COMMIT"); not done) return std::unexpected(done.error());
  return Journal(std::move(impl));
}

Result<Journal> Journal::open_to_read(const std::filesystem::path& file) {
  const int readable = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (readable < 0) {
    if (errno == ENOENT)
      return fail(Status::not_found, fmt::format("journal {}: there is none; `glaive tune` makes it", file.string()));
    return fail(Status::io_error, fmt::format("journal {}: {}", file.string(), std::strerror(errno)));
  }
  close(readable);
  auto impl = std::make_unique<Impl>();
  impl->file = file;
  if (const int code = impl->open_to_read(); code != SQLITE_OK) return impl->refused(code);
  const auto version = impl->version();
  if (not version) return std::unexpected(version.error());
  if (*version < schema)
    return fail(Status::io_error,
                fmt::format("journal {}: written by an older glaive (schema {}, this one reads {}); the next `glaive "
                            "tune` brings it up to date, and loses nothing",
                            file.string(), *version, schema));
  return Journal(std::move(impl));
}

Result<std::optional<CompileRecord>> Journal::find_code(std::string_view content) {
  const std::lock_guard lock(impl_->mutex);
  Statement find(
      impl_->db,
      "SELECT result, message, seconds, format, target, text_bytes, stack_bytes, bytes FROM code WHERE content=?");
  if (not find.bind(content).row()) {
    if (find.code() != SQLITE_OK) return impl_->refused(find.code());
    return std::nullopt;
  }
  CompileRecord record;
  record.drop = static_cast<Drop>(find.integer(0));
  record.message = find.text(1);
  record.seconds = find.real(2);
  record.code.format = static_cast<CodeObject::Format>(find.integer(3));
  record.code.text_bytes = find.integer(5);
  record.code.stack_bytes = find.integer(6);
  const auto bytes = find.blob(7);
  record.code.bytes.assign(bytes.begin(), bytes.end());
  if (not bytes.empty()) {
    auto target = parse_target(find.text(4));
    if (not target) return std::nullopt;  // a row that cannot be read is compiled again
    record.code.target = std::move(*target);
  }
  return record;
}

Result<void> Journal::put_code(std::string_view content, const CompileRecord& record) {
  const std::lock_guard lock(impl_->mutex);
  Statement put(impl_->db, "INSERT OR REPLACE INTO code VALUES(?,?,?,?,?,?,?,?,?,?)");
  put.bind(content).bind(impl_->run).bind(static_cast<std::int64_t>(record.drop)).bind(record.message);
  put.bind(record.seconds).bind(static_cast<std::int64_t>(record.code.format));
  put.bind(record.code.bytes.empty() ? std::string() : to_string(record.code.target));
  put.bind(record.code.text_bytes).bind(record.code.stack_bytes).bind(std::span(record.code.bytes));
  if (const int code = put.finish(); code != SQLITE_OK) return impl_->refused(code);
  return {};
}

Result<std::optional<Verdict>> Journal::find_verdict(std::string_view device, std::string_view problem,
                                                     std::string_view variant, std::string_view content,
                                                     std::string_view rules) {
  const std::lock_guard lock(impl_->mutex);
  Statement find(
      impl_->db,
      "SELECT result, error_o, error_state, message FROM verdict WHERE device=? AND problem=? AND variant=? AND "
      "content=? AND rules=?");
  if (not find.bind(device).bind(problem).bind(variant).bind(content).bind(rules).row()) {
    if (find.code() != SQLITE_OK) return impl_->refused(find.code());
    return std::nullopt;
  }
  return Verdict{static_cast<Drop>(find.integer(0)), find.real(1), find.real(2), find.text(3)};
}

Result<void> Journal::put_verdict(std::string_view device, std::string_view problem, std::string_view variant,
                                  std::string_view content, std::string_view rules, const Verdict& verdict) {
  const std::lock_guard lock(impl_->mutex);
  Statement put(impl_->db, "INSERT OR REPLACE INTO verdict VALUES(?,?,?,?,?,?,?,?,?,?,?)");
  put.bind(device).bind(problem).bind(variant).bind(content).bind(rules).bind(impl_->run);
  put.bind(static_cast<std::int64_t>(verdict.drop)).bind(to_string(verdict.drop));
  put.bind(verdict.error_o).bind(verdict.error_state).bind(verdict.message);
  if (const int code = put.finish(); code != SQLITE_OK) return impl_->refused(code);
  return {};
}

Result<std::vector<TimingRecord>> Journal::find_timings(const CaseKey& key, Round round) {
  const std::lock_guard lock(impl_->mutex);
  Statement find(
      impl_->db,
      fmt::format("SELECT variant, content, samples, reference, reference_median, result, seconds, reference_samples "
                  "FROM trial WHERE {} AND round=?7 ORDER BY rowid",
                  where_case));
  find.bind(key).bind(static_cast<std::int64_t>(round));
  std::vector<TimingRecord> records;
  while (find.row()) {
    TimingRecord record;
    record.variant = find.text(0);
    record.content = find.text(1);
    record.timing.samples = find.numbers(2);
    record.reference = find.text(3);
    record.reference_median = find.real(4);
    record.drop = static_cast<Drop>(find.integer(5));
    record.seconds = find.real(6);
    record.reference_samples = find.numbers(7);
    records.push_back(std::move(record));
  }
  if (find.code() != SQLITE_OK) return impl_->refused(find.code());
  return records;
}

Result<void> Journal::put_timings(const CaseKey& key, Round round, std::span<const TimingRecord> records) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->in_transaction([&]() -> Result<void> {
    for (const auto& record : records) {
      Statement put(impl_->db,
                    "INSERT OR REPLACE INTO trial VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,datetime('now'),?)");
      put.bind(key).bind(record.variant).bind(record.content).bind(static_cast<std::int64_t>(round)).bind(impl_->run);
      put.bind(static_cast<std::int64_t>(record.drop)).bind(to_string(record.drop));
      put.bind(record.timing.median()).bind(record.timing.low()).bind(record.timing.high());
      put.bind(std::as_bytes(std::span(record.timing.samples))).bind(record.reference).bind(record.reference_median);
      put.bind(record.seconds).bind(std::as_bytes(std::span(record.reference_samples)));
      if (const int code = put.finish(); code != SQLITE_OK) return impl_->refused(code);
    }
    return {};
  });
}

Result<void> Journal::put_attempts(const CaseKey& key, std::span<const AttemptRecord> records) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->in_transaction([&]() -> Result<void> {
    for (const auto& record : records) {
      Statement put(impl_->db,
                    "INSERT OR REPLACE INTO attempt VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,datetime('now'))");
      put.bind(key).bind(record.variant).bind(record.number).bind(record.content).bind(record.prior);
      put.bind(std::int64_t{record.is_default})
          .bind(static_cast<std::int64_t>(record.drop))
          .bind(to_string(record.drop));
      put.bind(record.message).bind(record.compile_seconds).bind(record.verify_seconds).bind(impl_->run);
      if (const int code = put.finish(); code != SQLITE_OK) return impl_->refused(code);
    }
    return {};
  });
}

Result<std::vector<AttemptRecord>> Journal::find_attempts(const CaseKey& key) {
  const std::lock_guard lock(impl_->mutex);
  Statement find(impl_->db,
                 fmt::format("SELECT number, variant, content, prior, is_default, result, message, compile_seconds, "
                             "verify_seconds, at, run FROM attempt WHERE {} ORDER BY number",
                             where_case));
  find.bind(key);
  std::vector<AttemptRecord> records;
  while (find.row())
    records.push_back({find.integer(0), find.text(1), find.text(2), find.real(3), find.integer(4) != 0,
                       static_cast<Drop>(find.integer(5)), find.text(6), find.real(7), find.real(8), find.text(9),
                       find.integer(10)});
  if (find.code() != SQLITE_OK) return impl_->refused(find.code());
  return records;
}

Result<std::vector<CaseKey>> Journal::find_cases() {
  const std::lock_guard lock(impl_->mutex);
  Statement find(impl_->db,
                 "SELECT device, problem, shape, policy, space, schema FROM attempt "
                 "GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY min(rowid)");
  std::vector<CaseKey> cases;
  while (find.row())
    cases.push_back({find.text(0), find.text(1), find.text(2), find.text(3),
                     static_cast<std::uint64_t>(find.integer(4)), static_cast<std::uint32_t>(find.integer(5))});
  if (find.code() != SQLITE_OK) return impl_->refused(find.code());
  return cases;
}

Result<std::optional<WinnerRecord>> Journal::find_winner(const CaseKey& key) {
  const std::lock_guard lock(impl_->mutex);
  Statement find(impl_->db, fmt::format("SELECT variant, content, evidence FROM winner WHERE {}", where_case));
  if (not find.bind(key).row()) {
    if (find.code() != SQLITE_OK) return impl_->refused(find.code());
    return std::nullopt;
  }
  return WinnerRecord{find.text(0), find.text(1), find.text(2)};
}

Result<void> Journal::put_winner(const CaseKey& key, const WinnerRecord& record) {
  const std::lock_guard lock(impl_->mutex);
  Statement put(impl_->db, "INSERT OR REPLACE INTO winner VALUES(?,?,?,?,?,?,?,?,?,?)");
  put.bind(key).bind(impl_->run).bind(record.variant).bind(record.content).bind(record.evidence);
  if (const int code = put.finish(); code != SQLITE_OK) return impl_->refused(code);
  return {};
}

Result<void> Journal::forget(const CaseKey& key) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->in_transaction([&]() -> Result<void> {
    for (const std::string_view table : {"attempt", "trial"}) {
      Statement drop(impl_->db, fmt::format("DELETE FROM {} WHERE {}", table, where_case));
      if (const int code = drop.bind(key).finish(); code != SQLITE_OK) return impl_->refused(code);
    }
    return {};
  });
}

}  // namespace glaive
