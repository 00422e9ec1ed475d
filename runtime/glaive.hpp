#pragma once
// The C++17 face of glaive.h: handles that close themselves, and errors as exceptions. Everything is inline.
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "glaive.h"

namespace glaive::api {

/// What a failed call says: one sentence, and the status to act on.
class Error : public std::runtime_error {
 public:
  Error(glaive_status status, const char* message) : std::runtime_error(message), status_(status) {}
  glaive_status status() const { return status_; }

 private:
  glaive_status status_;
};

inline void check(glaive_status status) {
  if (status != GLAIVE_OK) throw Error(status, glaive_last_error());
}

/// A count of one kind of thing: a number of heads does not pass for a number of tokens.
template <class Kind>
class Extent {
 public:
  template <class Integer, class = std::enable_if_t<std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>>>
  explicit constexpr Extent(Integer count) : count_(static_cast<std::int64_t>(count)) {}
  constexpr std::int64_t count() const { return count_; }

 private:
  std::int64_t count_;
};
using Sequences = Extent<struct SequencesKind>;
using Tokens = Extent<struct TokensKind>;

/// `forward H16 Hkv4 K128 V128 bf16 gate=f32`; see glaive.h for the fields.
class Problem : public glaive_problem {
 public:
  explicit Problem(const char* text) : glaive_problem() {
    size = sizeof(glaive_problem);
    check(glaive_problem_parse(text, this));
  }
  explicit Problem(const std::string& text) : Problem(text.c_str()) {}
};

class Shape : public glaive_shape {
 public:
  /// `sequences` of `each` tokens.
  Shape(Sequences sequences_of_it, Tokens each) : glaive_shape() {
    size = sizeof(glaive_shape);
    sequences = sequences_of_it.count();
    tokens = each.count();
  }
  /// Sequences one after the other on the token axis: cu_seqlens has sequences + 1 numbers and must outlive the shape.
  static Shape ragged(Sequences sequences, Tokens total, Tokens longest, const std::int32_t* cu_seqlens) {
    Shape shape(sequences, total);
    shape.longest = longest.count();
    shape.cu_seqlens = cu_seqlens;
    return shape;
  }
};

/// The tensors of a call: set q, k, v, g, o, and what else the call has; see glaive.h.
class Args : public glaive_args {
 public:
  Args() : glaive_args() { size = sizeof(glaive_args); }
};

class Device {
 public:
  explicit Device(const char* name = "cpu", int threads = 0) {
    glaive_device* device = nullptr;
    check(glaive_device_open(name, threads, &device));
    handle_.reset(device);
  }
  int threads() const { return glaive_device_threads(handle_.get()); }
  std::string target() const { return glaive_device_target(handle_.get()); }
  glaive_device* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(glaive_device* device) const { glaive_device_close(device); }
  };
  std::unique_ptr<glaive_device, Close> handle_;
};

class Pack {
 public:
  explicit Pack(const char* path) {
    glaive_pack* pack = nullptr;
    check(glaive_pack_open(path, &pack));
    handle_.reset(pack);
  }
  explicit Pack(const std::string& path) : Pack(path.c_str()) {}
  std::size_t size() const { return glaive_pack_size(handle_.get()); }
  const glaive_pack* get() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(glaive_pack* pack) const { glaive_pack_close(pack); }
  };
  std::unique_ptr<glaive_pack, Close> handle_;
};

/// Memory aligned as glaive_forward wants it.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes = 0) : bytes_(bytes) {
    if (bytes > 0) memory_.reset(::operator new(bytes, std::align_val_t(64)));
  }
  void* data() const { return memory_.get(); }
  std::size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t bytes_;
};

class Plan {
 public:
  Plan(const Device& device, const Pack& pack, const Problem& problem, const Shape& shape) {
    glaive_plan* plan = nullptr;
    check(glaive_plan_find(device.get(), pack.get(), &problem, &shape, &plan));
    handle_.reset(plan);
  }
  glaive_match match() const {
    glaive_match match = GLAIVE_MATCH_EXACT;
    check(glaive_plan_match(handle_.get(), &match));
    return match;
  }
  std::string variant() const { return glaive_plan_variant(handle_.get()); }
  std::string description() const { return glaive_plan_description(handle_.get()); }
  std::size_t workspace_bytes(const Shape& shape) const {
    std::size_t bytes = 0;
    check(glaive_plan_workspace(handle_.get(), &shape, &bytes));
    return bytes;
  }
  /// Runs the kernel. `workspace` may be kept from call to call; it must not be used by two calls at once.
  void operator()(const Shape& shape, const Args& args, const Workspace& workspace) const {
    check(glaive_forward(handle_.get(), &shape, &args, workspace.data(), workspace.size()));
  }

 private:
  struct Close {
    void operator()(glaive_plan* plan) const { glaive_plan_close(plan); }
  };
  std::unique_ptr<glaive_plan, Close> handle_;
};

}  // namespace glaive::api
