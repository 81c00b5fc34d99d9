#include "batch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "pool.h"
#include "registry.h"

namespace avistan {
namespace {

// Work that makes one helper worth waking.
constexpr double kSecondsPerHelper = 15e-6;
// Rows are claimed in runs of about this duration, so that claiming costs nothing.
constexpr double kSecondsPerClaim = 5e-6;
constexpr double kSmoothing = 0.2;

// The rows of one call, claimed by whichever thread is free.
struct Section {
  const Batch& batch;
  const Lease* leases;
  std::size_t rows;
  std::size_t claim;
  std::atomic<std::size_t> next{0};

  // One thread's share; returns the number of rows it did.
  std::size_t run() {
    Slot* slot = nullptr;
    std::size_t handle = 0;
    std::size_t done = 0;
    for (;;) {
      const std::size_t begin = next.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= rows) break;
      const std::size_t end = std::min(begin + claim, rows);
      for (std::size_t row = begin; row < end; ++row) {
        Slot* wanted = leases[row / batch.rows_per_slot].get();
        if (wanted != slot) {
          if (slot != nullptr) slot->return_handle(handle);
          slot = wanted;
          handle = slot->take_handle();
        }
        batch.status[row] = slot->evaluate(handle, batch.theta + row * batch.dim, batch.lp + row,
                                           batch.grad + row * batch.dim);
      }
      done += end - begin;
    }
    if (slot != nullptr) slot->return_handle(handle);
    return done;
  }

  // The same, and remembers what a row cost.
  void run_timed() {
    const auto start = std::chrono::steady_clock::now();
    const std::size_t done = run();
    if (done == 0) return;
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    const double latest = spent.count() / static_cast<double>(done);
    std::atomic<double>& seconds = leases[0]->seconds_per_row;
    const double before = seconds.load(std::memory_order_relaxed);
    seconds.store(before == 0.0 ? latest : before + kSmoothing * (latest - before), std::memory_order_relaxed);
  }
};

// How many other threads are worth asking for `rows` rows.
std::size_t helpers_for(const Slot& slot, std::size_t rows) {
  const double seconds = slot.seconds_per_row.load(std::memory_order_relaxed);
  const double worth = seconds * static_cast<double>(rows) / kSecondsPerHelper;
  const std::size_t most = std::min(rows, slot.threads) - 1;
  return worth < static_cast<double>(most) ? static_cast<std::size_t>(worth) : most;
}

Result check(const Batch& batch, const Lease& lease, std::int64_t index) {
  if (!lease) return {Outcome::closed_slot, index, 0};
  if (lease->dim != batch.dim) return {Outcome::wrong_dim, index, lease->dim};
  return {Outcome::done, index, 0};
}

void run_rows(const Batch& batch, const Lease* leases) {
  const std::size_t rows = batch.num_slots * batch.rows_per_slot;
  Section section{batch, leases, rows, rows};
  if (rows == 1) {
    section.run();
    return;
  }
  const std::size_t helpers = helpers_for(*leases[0].get(), rows);
  if (helpers == 0) {
    section.run_timed();
    return;
  }
  const double seconds = leases[0]->seconds_per_row.load(std::memory_order_relaxed);
  const double claim = std::min(kSecondsPerClaim / seconds, static_cast<double>(rows / (helpers + 1)));
  section.claim = std::max<std::size_t>(1, static_cast<std::size_t>(claim));
  run_with_helpers(helpers, [](void* context) { static_cast<Section*>(context)->run_timed(); }, &section);
}

}  // namespace

Result evaluate(const Batch& batch) {
  if (batch.num_slots * batch.rows_per_slot == 0) return {Outcome::done, 0, 0};
  if (batch.num_slots == 1) {
    const Lease lease = lease_slot(batch.slots[0]);
    const Result checked = check(batch, lease, batch.slots[0]);
    if (checked.outcome == Outcome::done) run_rows(batch, &lease);
    return checked;
  }
  std::vector<Lease> leases;
  leases.reserve(batch.num_slots);
  for (std::size_t i = 0; i < batch.num_slots; ++i) {
    leases.push_back(lease_slot(batch.slots[i]));
    const Result checked = check(batch, leases.back(), batch.slots[i]);
    if (checked.outcome != Outcome::done) return checked;
  }
  run_rows(batch, leases.data());
  return {Outcome::done, 0, 0};
}

}  // namespace avistan
