// The registry of bound models: small integers ("slots") instead of pointers in compiled programs, so that a program
// that outlives its model meets an error, never freed memory.
//
// Thread safety: everything here may be called from any thread. A `Lease` keeps a slot's addresses valid; a slot is
// destroyed only when no lease is left. The caller chooses the indices and never uses one twice.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "density.h"
#include "layout.h"

namespace avistan {

// Held by every call into a library without thread safety: those may share state, so there is one for all of them.
std::mutex& exclusive_mutex();

struct Slot {
  Slot(Gradient gradient, FreeError free_error, std::vector<const void*> handles, std::size_t dim, std::size_t threads,
       bool thread_safe);

  const Gradient gradient;
  const FreeError free_error;
  const std::vector<const void*> handles;
  const std::size_t dim;
  const std::size_t threads;  // most threads that one call may use
  std::unique_ptr<const Layout> layout;  // set once, before it is first evaluated by blocks

  // One row on a handle from `take_handle`; Stan's text is freed.
  std::int32_t evaluate(std::size_t handle, const double* theta, double* lp, double* grad);

  // A free handle where there is one, else one that other threads use too. Libraries without thread safety let one
  // thread at a time pass, over all of their slots.
  std::size_t take_handle();
  void return_handle(std::size_t handle);

  // Recent cost of one gradient in seconds, 0 when unknown. It steers scheduling only, never results.
  std::atomic<double> seconds_per_row{0.0};
  std::atomic<std::int64_t> leases{0};

 private:
  std::mutex* const exclusive_;  // null for a thread-safe library
  std::unique_ptr<std::atomic<int>[]> users_;
  std::atomic<std::size_t> turn_{0};
};

// Shared access to a slot; empty when the slot is unknown or closed.
class Lease {
 public:
  Lease() = default;
  explicit Lease(Slot* slot) : slot_(slot) {}
  Lease(Lease&& other) noexcept : slot_(other.slot_) { other.slot_ = nullptr; }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Lease& operator=(Lease&&) = delete;
  ~Lease() {
    if (slot_ != nullptr) slot_->leases.fetch_sub(1, std::memory_order_release);
  }
  explicit operator bool() const { return slot_ != nullptr; }
  Slot* get() const { return slot_; }
  Slot* operator->() const { return slot_; }

 private:
  Slot* slot_ = nullptr;
};

// False when the index is taken.
bool add_slot(std::int64_t index, std::unique_ptr<Slot> slot);
Lease lease_slot(std::int64_t index);

// Closes the slot to new calls. Returns true once no call uses it, and then forgets it; with `wait` it returns only
// then. Unknown indices are already released: true.
bool release_slot(std::int64_t index, bool wait);

}  // namespace avistan
