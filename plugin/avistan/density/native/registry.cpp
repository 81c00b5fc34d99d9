#include "registry.h"

#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <unordered_map>
#include <utility>

namespace avistan {
namespace {

struct Registry {
  std::shared_mutex mutex;
  std::unordered_map<std::int64_t, std::unique_ptr<Slot>> open;
  std::unordered_map<std::int64_t, std::unique_ptr<Slot>> closing;
};

// Never destroyed: a program may still run while the process exits.
Registry& registry() {
  static Registry* instance = new Registry;
  return *instance;
}

}  // namespace

std::mutex& exclusive_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

Slot::Slot(Gradient gradient_, FreeError free_error_, std::vector<const void*> handles_, std::size_t dim_,
           std::size_t threads_, bool thread_safe)
    : gradient(gradient_),
      free_error(free_error_),
      handles(std::move(handles_)),
      dim(dim_),
      threads(thread_safe ? threads_ : 1),
      exclusive_(thread_safe ? nullptr : &exclusive_mutex()),
      users_(new std::atomic<int>[handles.size()]) {
  for (std::size_t i = 0; i < handles.size(); ++i) users_[i].store(0, std::memory_order_relaxed);
}

std::int32_t Slot::evaluate(std::size_t handle, const double* theta, double* lp, double* grad) {
  char* message = nullptr;
  const std::int32_t status = evaluate_row(gradient, handles[handle], theta, lp, grad, dim, &message);
  if (message != nullptr) free_error(message);
  return status;
}

std::size_t Slot::take_handle() {
  if (exclusive_ != nullptr) exclusive_->lock();
  if (handles.size() == 1) return 0;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    int free = 0;
    if (users_[i].compare_exchange_strong(free, 1, std::memory_order_relaxed)) return i;
  }
  const std::size_t shared = turn_.fetch_add(1, std::memory_order_relaxed) % handles.size();
  users_[shared].fetch_add(1, std::memory_order_relaxed);
  return shared;
}

void Slot::return_handle(std::size_t handle) {
  if (handles.size() > 1) users_[handle].fetch_sub(1, std::memory_order_relaxed);
  if (exclusive_ != nullptr) exclusive_->unlock();
}

bool add_slot(std::int64_t index, std::unique_ptr<Slot> slot) {
  Registry& all = registry();
  std::unique_lock<std::shared_mutex> lock(all.mutex);
  return all.closing.count(index) == 0 && all.open.emplace(index, std::move(slot)).second;
}

Lease lease_slot(std::int64_t index) {
  Registry& all = registry();
  std::shared_lock<std::shared_mutex> lock(all.mutex);
  const auto found = all.open.find(index);
  if (found == all.open.end()) return Lease();
  found->second->leases.fetch_add(1, std::memory_order_relaxed);
  return Lease(found->second.get());
}

bool release_slot(std::int64_t index, bool wait) {
  Registry& all = registry();
  for (;;) {
    {
      std::unique_lock<std::shared_mutex> lock(all.mutex);
      const auto open = all.open.find(index);
      if (open != all.open.end()) {
        all.closing.emplace(index, std::move(open->second));
        all.open.erase(open);
      }
      const auto closing = all.closing.find(index);
      if (closing == all.closing.end()) return true;
      if (closing->second->leases.load(std::memory_order_acquire) == 0) {
        all.closing.erase(closing);
        return true;
      }
    }
    if (!wait) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace avistan
