#include "batch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>
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

// The rows of one call, claimed by whichever thread is free. `Work` has
//     void begin(std::size_t worker)    before the first row that a thread does
//     void row(std::size_t worker, Slot&, std::size_t handle, std::size_t row)
template <class Work>
struct Section {
  Work& work;
  const Lease* leases;
  std::size_t rows_per_slot;
  std::size_t rows;
  std::size_t claim;
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> workers{0};

  // One thread's share; returns the number of rows it did.
  std::size_t run() {
    Slot* slot = nullptr;
    std::size_t handle = 0, done = 0, worker = 0;
    for (;;) {
      const std::size_t begin = next.fetch_add(claim, std::memory_order_relaxed);
      if (begin >= rows) break;
      if (done == 0) {
        worker = workers.fetch_add(1, std::memory_order_relaxed);
        work.begin(worker);
      }
      const std::size_t end = std::min(begin + claim, rows);
      for (std::size_t row = begin; row < end; ++row) {
        Slot* wanted = leases[row / rows_per_slot].get();
        if (wanted != slot) {
          if (slot != nullptr) slot->return_handle(handle);
          slot = wanted;
          handle = slot->take_handle();
        }
        work.row(worker, *slot, handle, row);
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

// Does all rows, on this thread and on up to `helpers` others.
template <class Work>
void run_rows(Work& work, const Lease* leases, std::size_t rows_per_slot, std::size_t rows, std::size_t helpers) {
  Section<Work> section{work, leases, rows_per_slot, rows, rows};
  if (rows == 1) {
    section.run();
    return;
  }
  if (helpers == 0) {
    section.run_timed();
    return;
  }
  const double seconds = leases[0]->seconds_per_row.load(std::memory_order_relaxed);
  const double claim = std::min(kSecondsPerClaim / seconds, static_cast<double>(rows / (helpers + 1)));
  section.claim = std::max<std::size_t>(1, static_cast<std::size_t>(claim));
  run_with_helpers(helpers, [](void* context) { static_cast<Section<Work>*>(context)->run_timed(); }, &section);
}

// --- rows in the model's own order ----------------------------------------------------------------------------

struct PlainRows {
  const Batch& batch;

  void begin(std::size_t) {}
  void row(std::size_t, Slot& slot, std::size_t handle, std::size_t row) {
    batch.status[row] =
        slot.evaluate(handle, batch.theta + row * batch.dim, batch.lp + row, batch.grad + row * batch.dim);
  }
};

std::string name_of(std::int64_t slot) { return "avistan: slot " + std::to_string(slot); }

std::string closed(std::int64_t slot) {
  return name_of(slot) + " is closed: its bound model was released before this computation ran. Keep the Slot open until "
                         "the last result is ready.";
}

std::string check(const Batch& batch, const Lease& lease, std::int64_t slot) {
  if (!lease) return closed(slot);
  if (lease->dim == batch.dim) return "";
  return name_of(slot) + " takes " + std::to_string(lease->dim) + " unconstrained coordinates, theta has " +
         std::to_string(batch.dim) + " in its last axis.";
}

// --- globals and blocks of units ------------------------------------------------------------------------------

constexpr std::size_t kStretch = 256;  // units whose latents are copied together: both sides stay in cache

// The positions of `count` entries of a row from its entry `first` on.
struct Places {
  Layout::Run run;
  const std::int64_t* at;
  std::size_t first, count;

  // Calls visit(position, entry); positions lie side by side where the compiler can see it.
  template <class Visit>
  void each(Visit visit) const {
    const std::int64_t start = run.start + static_cast<std::int64_t>(first) * run.stride;
    if (run.stride == 1) {
      for (std::size_t n = 0; n < count; ++n) visit(static_cast<std::size_t>(start) + n, n);
    } else if (run.stride != 0) {
      for (std::size_t n = 0; n < count; ++n) visit(static_cast<std::size_t>(start + static_cast<std::int64_t>(n) * run.stride), n);
    } else {
      for (std::size_t n = 0; n < count; ++n) visit(static_cast<std::size_t>(at[first + n]), n);
    }
  }
  void put(const double* __restrict row, double* __restrict vector) const {
    each([row, vector](std::size_t position, std::size_t n) { vector[position] = row[n]; });
  }
  void take(const double* __restrict vector, double* __restrict row) const {
    each([row, vector](std::size_t position, std::size_t n) { row[n] = vector[position]; });
  }
};

struct BlockRows {
  const BlockBatch& batch;
  const Layout& layout;
  std::size_t dim;
  double* vectors;  // (workers, 2, dim)

  bool without_units() const { return !layout.rest.empty() || layout.units == 0; }

  void begin(std::size_t worker) {
    if (!layout.rest.empty()) std::copy(layout.rest.begin(), layout.rest.end(), vectors + worker * 2 * dim);
  }

  // Calls copy(places, offset of the row's entries in `z`) for all latents of all units.
  template <class Copy>
  void each_local(Copy copy) const {
    for (std::size_t first = 0; first < layout.units; first += kStretch) {
      const std::size_t count = std::min(kStretch, layout.units - first);
      for (std::size_t i = 0; i < layout.block; ++i) {
        copy(Places{layout.runs[i], layout.local_at.data() + i * layout.units, first, count}, i * batch.columns + first);
      }
    }
  }

  void row(std::size_t worker, Slot& slot, std::size_t handle, std::size_t row) {
    double *const point = vectors + worker * 2 * dim, *const gradient = point + dim;
    const std::size_t size = batch.block * batch.columns;
    const Places globals{layout.global_run, layout.global_at.data(), 0, layout.globals};
    globals.put(batch.theta + row * layout.globals, point);
    if (!without_units()) {
      const double* const z = batch.z + row * size;
      each_local([&](const Places& places, std::size_t offset) { places.put(z + offset, point); });
    }
    batch.status[row] = slot.evaluate(handle, point, batch.lp + row, gradient);
    globals.take(gradient, batch.theta_gradient + row * layout.globals);
    double* const z_gradient = batch.z_gradient + row * size;
    if (without_units()) {
      std::fill_n(z_gradient, size, 0.0);
      return;
    }
    each_local([&](const Places& places, std::size_t offset) { places.take(gradient, z_gradient + offset); });
    for (std::size_t i = 0; i < layout.block; ++i) {
      std::fill(z_gradient + i * batch.columns + layout.units, z_gradient + (i + 1) * batch.columns, 0.0);
    }
  }
};

std::string shape(std::initializer_list<std::size_t> sizes) {
  std::string text;
  for (const std::size_t size : sizes) text += (text.empty() ? "(" : ", ") + std::to_string(size);
  return text + ")";
}

std::string check(const BlockBatch& batch, const Lease& lease) {
  if (!lease) return closed(batch.slot);
  const std::string slot = name_of(batch.slot);
  const Layout* layout = lease->layout.get();
  if (layout == nullptr) return slot + " has no layout: call set_layout before it is evaluated by blocks.";
  const bool units = layout->rest.empty() && layout->units > 0;
  if (layout->globals == batch.globals && (!units || (layout->block == batch.block && layout->units <= batch.columns))) {
    return "";
  }
  std::string takes = slot + " takes theta of shape " + shape({batch.draws, layout->globals});
  if (units) {
    takes += " and z of shape " + shape({batch.draws, layout->block, layout->units}) + " or with more columns";
  }
  return takes + "; given are " + shape({batch.draws, batch.globals}) + " and " +
         shape({batch.draws, batch.block, batch.columns}) + ".";
}

}  // namespace

std::string evaluate(const Batch& batch) {
  if (batch.num_slots * batch.rows_per_slot == 0) return "";
  std::vector<Lease> leases;
  leases.reserve(batch.num_slots);
  for (std::size_t i = 0; i < batch.num_slots; ++i) {
    leases.push_back(lease_slot(batch.slots[i]));
    std::string wrong = check(batch, leases.back(), batch.slots[i]);
    if (!wrong.empty()) return wrong;
  }
  const std::size_t rows = batch.num_slots * batch.rows_per_slot;
  PlainRows work{batch};
  run_rows(work, leases.data(), batch.rows_per_slot, rows, helpers_for(*leases[0].get(), rows));
  return "";
}

std::string evaluate(const BlockBatch& batch) {
  const Lease lease = lease_slot(batch.slot);
  std::string wrong = check(batch, lease);
  if (!wrong.empty() || batch.draws == 0) return wrong;
  const std::size_t dim = lease->dim, helpers = helpers_for(*lease.get(), batch.draws);
  // Memory of the threads that come is used, no other.
  const std::unique_ptr<double[]> vectors(new (std::nothrow) double[2 * dim * (helpers + 1)]);
  if (vectors == nullptr) return "avistan: no memory for " + std::to_string(helpers + 1) + " vectors of the model.";
  BlockRows work{batch, *lease->layout, dim, vectors.get()};
  run_rows(work, &lease, batch.draws, batch.draws, helpers);
  return "";
}

}  // namespace avistan
