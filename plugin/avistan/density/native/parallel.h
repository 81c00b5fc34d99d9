// Loops over independent pieces of work, with helper threads where these have been faster lately.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "pool.h"

namespace avistan {

constexpr std::size_t kNumbersPerHelper = 1 << 12;  // work for which a helper may be worth waking

// What a kind of work has cost lately, alone and with helpers, in seconds a number. It steers scheduling only: on a busy
// machine helpers can make work slower.
class Pace {
 public:
  bool helpers_pay() {
    const double alone = seconds_[0].load(std::memory_order_relaxed), helped = seconds_[1].load(std::memory_order_relaxed);
    const bool better = helped < alone;
    return calls_.fetch_add(1, std::memory_order_relaxed) % kRetry == 0 ? !better : better;
  }
  void remember(bool helped, double seconds) {
    std::atomic<double>& kept = seconds_[helped ? 1 : 0];
    const double before = kept.load(std::memory_order_relaxed);
    kept.store(before == 0.0 ? seconds : before + kSmoothing * (seconds - before), std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint64_t kRetry = 32;  // calls after which the slower way is tried again
  static constexpr double kSmoothing = 0.2;
  std::atomic<double> seconds_[2]{0.0, 0.0};
  std::atomic<std::uint64_t> calls_{0};
};

// Calls work(i) for i = 0 .. count - 1, on several threads where that has been faster.
template <class Work>
void for_each(Pace& pace, std::size_t count, std::size_t numbers, std::size_t threads, Work work) {
  const std::size_t helpers = std::min({threads - 1, numbers / kNumbersPerHelper, count > 0 ? count - 1 : 0});
  if (helpers == 0) {
    for (std::size_t i = 0; i < count; ++i) work(i);
    return;
  }
  struct Shared {
    Work& work;
    std::size_t count;
    std::atomic<std::size_t> next{0};
  } shared{work, count};
  const auto run = [](void* context) {
    auto& s = *static_cast<Shared*>(context);
    for (std::size_t i; (i = s.next.fetch_add(1, std::memory_order_relaxed)) < s.count;) s.work(i);
  };
  const bool helped = pace.helpers_pay();
  const auto start = std::chrono::steady_clock::now();
  if (helped) {
    run_with_helpers(helpers, run, &shared);
  } else {
    run(&shared);
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  pace.remember(helped, spent.count() / static_cast<double>(numbers));
}

}  // namespace avistan
