#include "runtime/c_abi.hpp"

namespace glaive::c_abi {
namespace {

// A plain array, so that a thread's end runs no code of a library that may be unloaded by then.
thread_local char last_error[1024] = "";

}  // namespace

const char* last_error_text() { return last_error; }

glaive_status report(Status status, std::string_view message) {
  const std::size_t size = std::min(message.size(), sizeof last_error - 1);
  std::memcpy(last_error, message.data(), size);
  last_error[size] = 0;
  return static_cast<glaive_status>(status);
}
glaive_status report(const Error& error) { return report(error.status, error.message); }

std::unexpected<Error> refuse(std::string message) { return fail(Status::invalid_argument, std::move(message)); }

}  // namespace glaive::c_abi
