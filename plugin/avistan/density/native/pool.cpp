#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace avistan {
namespace {

constexpr auto kSpin = std::chrono::microseconds(20);

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until `ready()` or until the spinning time is over; returns ready().
template <typename Ready>
bool spin_until(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
    if (std::chrono::steady_clock::now() >= end) return ready();
  }
}

class Pool {
 public:
  void run(std::size_t helpers, void (*work)(void*), void* context) {
    std::unique_lock<std::mutex> section(section_, std::try_to_lock);
    if (!section.owns_lock() || helpers == 0) {
      work(context);
      return;
    }
    start_threads(helpers);
    bool wake;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = work;
      context_ = context;
      places_.store(helpers, std::memory_order_relaxed);
      wake = sleeping_ > 0;
    }
    if (wake) wake_.notify_all();
    work(context);
    // Helpers that have not come yet are not waited for.
    std::unique_lock<std::mutex> lock(mutex_);
    places_.store(0, std::memory_order_relaxed);
    if (running_.load(std::memory_order_acquire) == 0) return;
    lock.unlock();
    if (spin_until([this] { return running_.load(std::memory_order_acquire) == 0; })) {
      lock.lock();  // the last helper may still hold it
      return;
    }
    lock.lock();
    finished_.wait(lock, [this] { return running_.load(std::memory_order_acquire) == 0; });
  }

 private:
  void start_threads(std::size_t wanted) {
    while (threads_ < wanted) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // the operating system gives no more: the callers do the work
      }
      ++threads_;
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    for (;;) {
      spin_until([this] { return places_.load(std::memory_order_relaxed) > 0; });
      lock.lock();
      if (places_.load(std::memory_order_relaxed) == 0) {
        ++sleeping_;
        wake_.wait(lock, [this] { return places_.load(std::memory_order_relaxed) > 0; });
        --sleeping_;
      }
      places_.fetch_sub(1, std::memory_order_relaxed);
      running_.fetch_add(1, std::memory_order_relaxed);
      void (*work)(void*) = work_;
      void* context = context_;
      lock.unlock();
      work(context);
      lock.lock();
      if (running_.fetch_sub(1, std::memory_order_release) == 1) finished_.notify_one();
      lock.unlock();
    }
  }

  std::mutex section_;          // held by the caller whose section runs
  std::size_t threads_ = 0;     // guarded by section_
  std::mutex mutex_;            // guards what follows; the atomics are read outside it by spinners only
  std::condition_variable wake_, finished_;
  std::size_t sleeping_ = 0;
  void (*work_)(void*) = nullptr;
  void* context_ = nullptr;
  std::atomic<std::size_t> places_{0};
  std::atomic<std::size_t> running_{0};
};

}  // namespace

void run_with_helpers(std::size_t helpers, void (*work)(void*), void* context) {
  static Pool* pool = new Pool;  // never destroyed: its threads outlive static destruction
  pool->run(helpers, work, context);
}

}  // namespace avistan
