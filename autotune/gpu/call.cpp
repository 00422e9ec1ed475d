#include "autotune/gpu/call.hpp"

#include <algorithm>

namespace glaive {
namespace {

constexpr std::size_t at_o = 4, at_state_out = 6, at_workspace = 7;  // among the tensors, in the order of GpuCall::make

}  // namespace

Result<Mirror> Mirror::make(Device& device, std::span<std::byte> host) {
  Mirror mirror;
  mirror.device_ = &device;
  mirror.host_ = host;
  auto image = device.allocate(host.size());
  if (not image) return std::unexpected(std::move(image).error());
  mirror.image_ = std::move(*image);
  return mirror;
}

Result<void> Mirror::download_ends(std::size_t bytes) const {
  bytes = std::min(bytes, host_.size() / 2);
  if (auto front = device_->copy_from_device(host_.first(bytes), image_.get()); not front) return front;
  return device_->copy_from_device(host_.last(bytes), image_.get() + host_.size() - bytes);
}

void* Mirror::image_of(std::uint64_t host) const {
  const auto first = reinterpret_cast<std::uintptr_t>(host_.data());
  return host < first or host >= first + host_.size() ? nullptr : image_.get() + (host - first);
}

Result<GpuCall> GpuCall::make(Device& device, Call& call, Guarded& workspace) {
  GpuCall made;
  const auto add = [&](std::vector<Mirror>& mirrors, std::span<std::byte> host) -> Result<void> {
    auto mirror = Mirror::make(device, host);
    if (not mirror) return std::unexpected(std::move(mirror).error());
    mirrors.push_back(std::move(*mirror));
    made.bytes_ += static_cast<std::int64_t>(host.size());
    return {};
  };
  for (Guarded* tensor : {&call.q, &call.k, &call.v, &call.g, &call.o, &call.state_in, &call.state_out, &workspace})
    if (auto added = add(made.tensors_, tensor->with_guards()); not added) return std::unexpected(added.error());
  for (std::vector<std::int32_t>* numbers : {&call.cu_seqlens, &call.read_slots, &call.write_slots})
    if (auto added = add(made.numbers_, std::as_writable_bytes(std::span(*numbers))); not added)
      return std::unexpected(added.error());

  Words& words = made.launch_.words = call.words();
  words.set_pointer(Arg::workspace, workspace.memory());
  for (const Arg arg : {Arg::q, Arg::k, Arg::v, Arg::g, Arg::o, Arg::state_in, Arg::state_out, Arg::read_slots,
                        Arg::write_slots, Arg::cu_seqlens, Arg::workspace}) {
    const std::uint64_t host = words[arg];
    if (host == 0) continue;
    for (const auto* mirrors : {&made.tensors_, &made.numbers_})
      for (const Mirror& mirror : *mirrors)
        if (void* const image = mirror.image_of(host)) {
          words.set_pointer(arg, image);
          if (arg == Arg::workspace) made.launch_.workspace = image;
        }
  }
  made.launch_.extents = extents_of(call.what.problem, call.what.shape, 1);
  return made;
}

Result<void> GpuCall::upload() const {
  for (const auto* mirrors : {&tensors_, &numbers_})
    for (const Mirror& mirror : *mirrors)
      if (auto done = mirror.upload(); not done) return done;
  return {};
}

Result<void> GpuCall::download() const {
  for (const Mirror& mirror : tensors_)
    if (auto done = mirror.download(); not done) return done;
  return {};
}

Result<void> GpuCall::upload_outputs() const {
  for (const std::size_t at : {at_o, at_state_out, at_workspace})
    if (auto done = tensors_[at].upload(); not done) return done;
  return {};
}

Result<void> GpuCall::download_outputs() const {
  if (auto done = download_guards(); not done) return done;
  for (const std::size_t at : {at_o, at_state_out})
    if (auto done = tensors_[at].download(); not done) return done;
  return {};
}

Result<void> GpuCall::download_guards() const {
  for (const Mirror& mirror : tensors_)
    if (auto done = mirror.download_ends(4 * Guarded::guard_elements); not done) return done;
  return {};
}

}  // namespace glaive
