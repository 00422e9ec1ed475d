// Thousands of random steps of a pool, against a float64 recurrence of each sequence alone.
#include <atomic>
#include <map>
#include <thread>

#include "tests/runtime/server.hpp"

using namespace glaive;
using namespace glaive::testing;

namespace {

struct Live {
  api::Sequence sequence;
  Model model;
  bool lost = false;
};

/// A scheduler that does anything that is allowed, in any order.
class Scheduler {
 public:
  Scheduler(unsigned seed, std::int64_t slots)
      : random_(seed), server_(slots), batch_(server_.batch(std::min<std::int64_t>(8, 2 * slots))) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      INFO("step " << i);
      one_step();
      check();
    }
    live_.clear();
    const glaive_statistics s = server_.pool->statistics();
    CHECK(s.used == 0);
    CHECK(s.shared == 0);
    CHECK(s.sequences == 0);
  }
  std::map<std::string, int> count;

 private:
  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  Live& any() { return live_[static_cast<std::size_t>(pick(0, std::ssize(live_) - 1))]; }

  void one_step() {
    const std::int64_t what = live_.empty() ? 0 : pick(0, 99);
    if (what < 8) return acquire();
    if (what < 16) return release();
    if (what < 26) return fork();
    if (what < 34) return reorder();
    if (what < 42) return rollback();
    if (what < 48) return snapshot();
    step();
  }
  /// Runs what may find the pool full, and says whether it did not.
  template <class Body>
  bool unless_full(Body&& body) {
    try {
      body();
      return true;
    } catch (const api::Error& error) {
      REQUIRE(error.status() == GLAIVE_OUT_OF_SLOTS);
      ++count["full"];
      return false;
    }
  }

  void acquire() {
    Live live;
    if (unless_full([&] { live.sequence = server_.pool->acquire(); })) live_.push_back(std::move(live));
  }
  void release() {
    std::swap(any(), live_.back());
    live_.pop_back();
  }
  void fork() {
    Live& parent = any();
    Live child;
    child.model = parent.model;
    if (parent.lost) {
      CHECK_THROWS(parent.sequence.fork());
      return;
    }
    if (unless_full([&] { child.sequence = parent.sequence.fork(); })) live_.push_back(std::move(child));
    ++count["fork"];
  }
  void reorder() {
    std::vector<api::Sequence> sequences;
    for (Live& live : live_) sequences.push_back(std::move(live.sequence));
    std::vector<std::size_t> parents;
    for (std::size_t i = 0; i < live_.size(); ++i)
      parents.push_back(static_cast<std::size_t>(pick(0, std::ssize(live_) - 1)));
    const bool lost = std::ranges::any_of(parents, [&](std::size_t p) { return live_[p].lost; });
    std::vector<Model> models;
    for (const std::size_t p : parents) models.push_back(live_[p].model);
    if (lost)
      CHECK_THROWS(server_.pool->reorder(sequences, parents));
    else
      server_.pool->reorder(sequences, parents);
    for (std::size_t i = 0; i < live_.size(); ++i) {
      live_[i].sequence = std::move(sequences[i]);
      if (not lost) live_[i].model = models[i], live_[i].lost = false;
    }
    ++count["reorder"];
  }
  void rollback() {
    Live &to = any(), &checkpoint = any();
    if (checkpoint.lost) return;
    to.sequence.rollback(checkpoint.sequence);
    to.model = Model(checkpoint.model);
    to.lost = false;
    ++count["rollback"];
  }
  void snapshot() {
    Live& from = any();
    if (from.lost) return;
    Live restored;
    restored.model = from.model;
    const bool file = pick(0, 1) == 0;
    const std::string path = (server_.folder / "snapshot").string();
    std::vector<std::byte> bytes;
    if (file)
      from.sequence.write_snapshot(path);
    else
      bytes = from.sequence.save_snapshot();
    if (pick(0, 1) == 0) from.sequence = api::Sequence(), from.lost = true;  // preempted: only the snapshot is left
    const bool gone = from.sequence.id() == 0;
    const bool fits = unless_full([&] {
      restored.sequence =
          file ? server_.pool->read_snapshot(path) : server_.pool->restore_snapshot(bytes.data(), bytes.size());
    });
    if (gone) std::swap(from, live_.back()), live_.pop_back();
    if (fits) live_.push_back(std::move(restored));
    ++count["snapshot"];
  }

  void step() {
    // Prefill, chunks of a prefill, decode and empty rows side by side.
    std::vector<std::size_t> order(live_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::shuffle(order, random_);
    order.resize(std::min<std::size_t>(order.size(), static_cast<std::size_t>(pick(1, 6))));
    std::vector<api::Entry> entries;
    std::vector<std::int64_t> lengths;
    std::vector<Model> before;
    std::vector<Model*> models;
    bool lost = false;
    for (const std::size_t i : order) {
      const std::int64_t kind = pick(0, 9);
      const std::int64_t length = kind == 0 ? 0 : kind < 7 ? 1 : pick(2, 8);
      lengths.push_back(length);
      entries.emplace_back(live_[i].sequence, api::Tokens(length));
      before.push_back(live_[i].model);
      models.push_back(&live_[i].model);
      lost = lost or live_[i].lost;
    }
    const bool keep = pick(0, 3) == 0;
    if (lost) {
      CHECK_THROWS_AS(batch_.begin(entries), api::Error);
      return;
    }
    if (not unless_full([&] { batch_.begin(entries, keep ? GLAIVE_BATCH_KEEP : 0); })) return;
    // An abort before, amid or after the launches; or a commit.
    std::vector<std::int32_t> read, write;
    const std::int32_t *r = nullptr, *w = nullptr;
    api::check(glaive_batch_rows(batch_.get(), nullptr, &r, &w, nullptr));
    read.assign(r, r + order.size()), write.assign(w, w + order.size());
    const std::int64_t end = pick(0, 9);
    if (end == 0) {
      batch_.abort();
      ++count["abort before"];
      return;
    }
    REQUIRE(launch_all(server_, batch_, models, lengths, random_));
    if (end > 2) {
      batch_.commit();
      ++count["commit"];
      return;
    }
    batch_.abort();
    ++count["abort"];
    for (std::size_t i = 0; i < order.size(); ++i) {
      *models[i] = before[i];
      live_[order[i]].lost = write[i] >= 0 and read[i] == write[i];
      if (keep) CHECK_FALSE(live_[order[i]].lost);
      count["lost"] += live_[order[i]].lost;
    }
  }

  /// Every sequence is what it would be alone, and slots are held by those that hold them.
  void check() {
    std::map<std::int32_t, int> holders;
    int zero = 0;
    for (const Live& live : live_) {
      if (live.lost) {
        CHECK(live.sequence.position().count() == live.model.position);
        continue;
      }
      CHECK(server_.holds(live.sequence, live.model));
      std::int32_t slot = -1;
      api::check(glaive_sequence_slot(server_.pool->get(), live.sequence.id(), &slot));
      if (slot < 0)
        ++zero;
      else
        ++holders[slot];
    }
    const glaive_statistics s = server_.pool->statistics();
    REQUIRE(s.sequences == std::ssize(live_));
    const auto lost = std::ranges::count_if(live_, [](const Live& live) { return live.lost; });
    CHECK(s.used >= std::ssize(holders) + lost);
    CHECK(s.used <= std::ssize(holders) + lost + zero);
    if (zero == 0) CHECK(s.shared == std::ranges::count_if(holders, [](const auto& held) { return held.second > 1; }));
  }

  std::mt19937 random_;
  Server server_;
  api::Batch batch_;
  std::vector<Live> live_;
};

}  // namespace

TEST_CASE("states: any mix of steps gives each sequence the state that it would have alone") {
  std::map<std::string, int> count;
  for (const auto& [seed, slots] : {std::pair(1u, 24), {2u, 8}, {3u, 3}}) {
    INFO("seed " << seed);
    Scheduler scheduler(seed, slots);
    scheduler.run(1500);
    for (const auto& [name, n] : scheduler.count) count[name] += n;
  }
  for (const char* name :
       {"fork", "reorder", "rollback", "snapshot", "commit", "abort", "abort before", "lost", "full"}) {
    INFO(name << " happened " << count[name] << " times");
    CHECK(count[name] > 20);
  }
}

TEST_CASE("states: several threads in one pool") {
  constexpr int threads = 4, steps = 60;
  Server server(64);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      try {
        std::mt19937 random(static_cast<unsigned>(t));
        api::Batch batch = server.batch();
        Model model, copy;
        api::Sequence sequence = server.pool->acquire();
        for (int i = 0; i < steps; ++i) {
          api::Sequence child = sequence.fork();
          copy = model;
          batch.begin({{sequence, api::Tokens(2)}, {child, api::Tokens(1)}});
          if (not launch_all(server, batch, {&model, &copy}, {2, 1}, random)) ++wrong;
          batch.commit();
          if (not server.holds(sequence, model) or not server.holds(child, copy)) ++wrong;
          if (i % 8 == 0) {
            const auto bytes = child.save_snapshot();
            const api::Sequence again = server.pool->restore_snapshot(bytes.data(), bytes.size());
            if (not server.holds(again, copy)) ++wrong;
          }
          if (i % 2 == 0) sequence.rollback(child), model = copy;
          (void)server.pool->statistics();
        }
      } catch (const std::exception&) {
        ++wrong;
      }
    });
  for (std::thread& thread : all) thread.join();
  CHECK(wrong == 0);
  CHECK(server.pool->statistics().used == 0);
}
