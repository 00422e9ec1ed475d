#pragma once
#include <expected>
#include <string>
#include <utility>

namespace glaive {

/// What went wrong, in classes a caller can act on. The numbers are those of the C ABI (glaive.h) and never change.
enum class Status : int {
  ok = 0,
  invalid_argument = 1,  ///< the caller gave something outside the contract
  unsupported = 2,       ///< legal, but no kernel of this build or pack covers it
  not_found = 3,         ///< no such file, pack entry, family or word
  bad_pack = 4,          ///< truncated, altered, foreign or newer file
  untrusted = 5,         ///< a file of native code that others could have written
  io_error = 6,          ///< the operating system refused a read or write
  out_of_memory = 7,
  wrong_device = 8,   ///< code made for another target than this machine
  failed = 9,         ///< a compiler, loader or kernel failed; the message says which
  out_of_slots = 10,  ///< a pool has no slot, or no sequence, left; nothing has changed
  stale = 11,         ///< a sequence that was released, or never was
  foreign = 12,       ///< a sequence of another pool, or a snapshot of another shape
  lost = 13,          ///< a sequence whose state was overwritten by a batch that was not committed
  out_of_order = 14,  ///< a call that the state of the batch or of the sequence does not allow now
  bad_snapshot = 15,  ///< truncated, altered or newer, or no snapshot at all
  device_lost = 16,   ///< a kernel broke the process's use of a GPU: nothing on it works until the process ends
};

/// One clear sentence: what was wrong, what was given, what is allowed.
struct Error {
  Status status = Status::failed;
  std::string message;
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Status status, std::string message) {
  return std::unexpected(Error{status, std::move(message)});
}

}  // namespace glaive
