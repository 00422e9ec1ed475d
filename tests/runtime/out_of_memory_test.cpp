// Each allocation of a call fails in turn: the call says so, and nothing is lost.
#include "tests/runtime/allocations.hpp"
#include "tests/runtime/server.hpp"

using namespace glaive;
using namespace glaive::testing;

#if not GLAIVE_SANITIZED
namespace {

/// `call` returns a status, and undoes what it did if that is GLAIVE_OK; `check` looks at what must not have changed.
template <class Call, class Check>
void fail_each_allocation(Call&& call, Check&& check) {
  constexpr int most = 10'000;
  int refusals = 0;
  for (int nth = 1; nth < most; ++nth) {
    fail_allocation(nth);
    const glaive_status status = call();
    const bool failed = fail_allocation(0);
    INFO("allocation " << nth << ": " << glaive_last_error());
    REQUIRE((status == GLAIVE_OK or (failed and status == GLAIVE_OUT_OF_MEMORY)));
    refusals += status != GLAIVE_OK;
    check();
    if (not failed) break;
  }
  CHECK(refusals > 0);
}

/// A pool with a sequence that has a state; a snapshot of it takes `plane` bytes and more.
struct Saved : Server {
  api::Sequence sequence;
  std::vector<std::byte> bytes;
  std::string path = (folder / "s").string();
  std::int64_t planes[1];

  explicit Saved(std::int64_t plane) : Server(4), planes{plane} {
    api::PoolConfig with_plane = config(4);
    with_plane.plane_bytes = planes;
    pool.emplace(*device, with_plane);
    sequence = pool->acquire();
    api::Batch batch(*pool, api::Sequences(1), api::Tokens(1));
    batch.begin({{sequence, api::Tokens(1)}});
    batch.replay();
    batch.commit();
    bytes = sequence.save_snapshot();
    sequence.write_snapshot(path);
  }
  void check() const {
    const glaive_statistics s = pool->statistics();
    CHECK(s.used == 1);
    CHECK(s.shared == 0);
    CHECK(s.sequences == 1);
  }
  glaive_status undo(glaive_status status, glaive_sequence made) const {
    return status == GLAIVE_OK ? glaive_sequence_release(pool->get(), made) : status;
  }
};

}  // namespace

TEST_CASE("out of memory: a snapshot that is restored or read takes no slot") {
  for (const std::int64_t plane : {std::int64_t{40}, std::int64_t{10} << 20}) {  // one block, and two threads
    const Saved saved(plane);
    glaive_sequence made = 0;
    fail_each_allocation(
        [&] {
          const auto status = glaive_snapshot_restore(saved.pool->get(), saved.bytes.data(), saved.bytes.size(), &made);
          return saved.undo(status, made);
        },
        [&] { saved.check(); });
    fail_each_allocation(
        [&] {
          const auto status = glaive_snapshot_read(saved.pool->get(), saved.path.c_str(), &made);
          return saved.undo(status, made);
        },
        [&] { saved.check(); });
    // An altered one, whose error is made of text.
    std::vector<std::byte> altered = saved.bytes;
    altered.back() ^= std::byte{1};
    for (int nth = 1; nth < 100; ++nth) {
      fail_allocation(nth);
      const auto status = glaive_snapshot_restore(saved.pool->get(), altered.data(), altered.size(), &made);
      fail_allocation(0);
      CHECK((status == GLAIVE_OUT_OF_MEMORY or status == GLAIVE_BAD_SNAPSHOT));
      saved.check();
    }
  }
}

TEST_CASE("out of memory: a snapshot that is saved or written holds no slot, and leaves no file") {
  Saved saved(40);
  std::size_t written = 0;
  fail_each_allocation(
      [&] {
        return glaive_snapshot_save(saved.pool->get(), saved.sequence.id(), saved.bytes.data(), saved.bytes.size(),
                                    &written);
      },
      [&] { saved.check(); });
  const auto names = saved.folder.names();
  fail_each_allocation(
      [&] { return glaive_snapshot_write(saved.pool->get(), saved.sequence.id(), saved.path.c_str()); },
      [&] {
        saved.check();
        CHECK(saved.folder.names() == names);
      });
  CHECK(read_bytes(saved.path) == saved.bytes);
}

TEST_CASE("out of memory: a pool, a batch, a plan, an operator and a launch that are not made") {
  Server server(4);
  const api::PoolConfig config = server.config(4);
  const auto nothing = [] {};
  glaive_pool* pool = nullptr;
  fail_each_allocation(
      [&] {
        const auto status = glaive_pool_create(server.device->get(), &config, nullptr, 0, &pool);
        glaive_pool_close(std::exchange(pool, nullptr));
        return status;
      },
      nothing);
  glaive_batch_config most = {sizeof most, 4, 64, 0};
  glaive_batch* batch = nullptr;
  fail_each_allocation(
      [&] {
        const auto status = glaive_batch_create(server.pool->get(), &most, &batch);
        glaive_batch_close(std::exchange(batch, nullptr));
        return status;
      },
      nothing);
  const glaive_pack* const pack = server.pack->get();
  glaive_operator* op = nullptr;
  fail_each_allocation(
      [&] {
        const auto status = glaive_operator_create(server.device->get(), &pack, 1, &server.problem, &op);
        glaive_operator_close(std::exchange(op, nullptr));
        return status;
      },
      nothing);
  const api::Shape shape(api::Sequences(1), api::Tokens(3));
  glaive_plan* plan = nullptr;
  fail_each_allocation(
      [&] {
        const auto status = glaive_plan_find(server.device->get(), pack, &server.problem, &shape, &plan);
        glaive_plan_close(std::exchange(plan, nullptr));
        return status;
      },
      nothing);
  std::mt19937 random(1);
  Step step(3, random);
  const api::Args args = step.args();
  const api::Workspace workspace(*server.device, 4096);
  glaive_launch* launch = nullptr;
  fail_each_allocation(
      [&] {
        const auto status =
            glaive_launch_prepare(server.plan->get(), &shape, &args, workspace.data(), workspace.size(), &launch);
        glaive_launch_close(std::exchange(launch, nullptr));
        return status;
      },
      nothing);
  CHECK(server.pool->statistics().used == 0);
}

TEST_CASE("out of memory: the message of a refused begin") {
  Server server(1);
  const api::Sequence a = server.pool->acquire();
  const api::Sequence b = a.fork();
  api::Batch batch = server.batch(4);
  const glaive_entry entries[] = {{a.id(), 1}, {b.id(), 1}};
  for (int nth = 1; nth < 20; ++nth) {
    fail_allocation(nth);
    const auto status = glaive_batch_begin(batch.get(), entries, 2, 0);
    fail_allocation(0);
    CHECK((status == GLAIVE_OUT_OF_MEMORY or status == GLAIVE_OUT_OF_SLOTS));
  }
  batch.begin({{a, api::Tokens(0)}, {b, api::Tokens(0)}});  // no mark was left
}
#endif
