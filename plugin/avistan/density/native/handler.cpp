// What the shared library exports: the XLA FFI handlers and a plain C ABI for Python's ctypes.
//
// Handlers. By rows: (slot: int64[B...], theta: float64[B..., R..., D]) -> (lp: float64[B..., R...],
// grad: float64[B..., R..., D], status: int32[B..., R...]). A row that Stan rejects is data (status 1); a closed slot
// or a wrong dimension is an error of the call. The handler takes no Python lock and may run on any thread.
//
// By blocks: (slot: int64, theta: float64[S, G], z: float64[S, d, N]) -> (lp: float64[S], gradients like theta and z,
// status: int32[S]); the slot's layout says where the numbers belong.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "batch.h"
#include "registry.h"
#include "xla/ffi/api/ffi.h"

#if defined(_WIN32)
#define AVISTAN_EXPORT extern "C" __declspec(dllexport)
#else
#define AVISTAN_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace ffi = xla::ffi;

namespace avistan {
namespace {

ffi::Error as_error(const std::string& wrong) {
  return wrong.empty() ? ffi::Error::Success() : ffi::Error::InvalidArgument(wrong);
}

ffi::Error log_density(ffi::Buffer<ffi::S64> slots, ffi::Buffer<ffi::F64> theta, ffi::ResultBuffer<ffi::F64> lp,
                       ffi::ResultBuffer<ffi::F64> grad, ffi::ResultBuffer<ffi::S32> status) {
  const auto shape = theta.dimensions();
  if (shape.size() == 0) return ffi::Error::InvalidArgument("avistan: theta must have a last axis of coordinates");
  Batch batch{};
  batch.slots = slots.typed_data();
  batch.num_slots = slots.element_count();
  batch.dim = static_cast<std::size_t>(shape.back());
  batch.theta = theta.typed_data();
  batch.lp = lp->typed_data();
  batch.grad = grad->typed_data();
  batch.status = status->typed_data();
  const std::size_t rows = lp->element_count();
  if (batch.num_slots == 0 || rows == 0) return ffi::Error::Success();
  if (rows % batch.num_slots != 0) {
    return ffi::Error::InvalidArgument("avistan: the batch axes of the slots must lead those of theta");
  }
  batch.rows_per_slot = rows / batch.num_slots;
  return as_error(evaluate(batch));
}

ffi::Error block_log_density(ffi::Buffer<ffi::S64> slot, ffi::Buffer<ffi::F64> theta, ffi::Buffer<ffi::F64> z,
                             ffi::ResultBuffer<ffi::F64> lp, ffi::ResultBuffer<ffi::F64> theta_gradient,
                             ffi::ResultBuffer<ffi::F64> z_gradient, ffi::ResultBuffer<ffi::S32> status) {
  const auto globals = theta.dimensions(), locals = z.dimensions();
  if (slot.element_count() != 1 || globals.size() != 2 || locals.size() != 3 || globals[0] != locals[0]) {
    return ffi::Error::InvalidArgument("avistan: a block density takes one slot, theta (S, G) and z (S, d, N)");
  }
  const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
  const BlockBatch batch{slot.typed_data()[0],  size(globals[0]),          size(globals[1]),       size(locals[1]),
                         size(locals[2]),       theta.typed_data(),        z.typed_data(),         lp->typed_data(),
                         theta_gradient->typed_data(), z_gradient->typed_data(), status->typed_data()};
  return as_error(evaluate(batch));
}

}  // namespace
}  // namespace avistan

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
XLA_FFI_DEFINE_HANDLER_SYMBOL(avistan_log_density, avistan::log_density,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::S64>>()
                                  .Arg<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(avistan_block_log_density, avistan::block_log_density,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::S64>>()
                                  .Arg<ffi::Buffer<ffi::F64>>()
                                  .Arg<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

// Changes with the signatures below; the Python side refuses a library of another version.
AVISTAN_EXPORT int avistan_abi_version() { return 8; }

// Registers a model under `index` by the addresses of its functions and of `count` handles, which must stay valid until
// avistan_release has returned 1 for that index. One call uses at most `threads` threads; with thread_safe == 0 no two
// calls of such libraries overlap. Returns 1, or 0 when an address is missing or the index is taken.
AVISTAN_EXPORT int avistan_register(std::int64_t index, std::uintptr_t gradient, std::uintptr_t free_error,
                                    const std::uintptr_t* handles, std::int64_t count, std::int64_t dim,
                                    std::int64_t threads, int thread_safe) {
  if (gradient == 0 || free_error == 0 || count < 1 || dim < 0 || threads < 1) return 0;
  std::vector<const void*> copied;
  for (std::int64_t i = 0; i < count; ++i) {
    if (handles[i] == 0) return 0;
    copied.push_back(reinterpret_cast<const void*>(handles[i]));
  }
  auto slot = std::make_unique<avistan::Slot>(reinterpret_cast<avistan::Gradient>(gradient),
                                              reinterpret_cast<avistan::FreeError>(free_error), std::move(copied),
                                              static_cast<std::size_t>(dim), static_cast<std::size_t>(threads),
                                              thread_safe != 0);
  return avistan::add_slot(index, std::move(slot)) ? 1 : 0;
}

// For code that calls a library without thread safety by itself: no slot of such a library is evaluated in between. Both
// from one thread, without nesting.
AVISTAN_EXPORT void avistan_acquire_exclusive() { avistan::exclusive_mutex().lock(); }
AVISTAN_EXPORT void avistan_release_exclusive() { avistan::exclusive_mutex().unlock(); }

// Says where globals (G,) and locals (d, M) lie in the vector of a slot; `rest` (dim,) or null holds the values of the
// coordinates that are never set. Once for a slot, before it is evaluated by blocks. Returns 1, or 0 when the slot is closed or
// has a layout.
AVISTAN_EXPORT int avistan_set_layout(std::int64_t index, std::int64_t globals, std::int64_t block, std::int64_t units,
                                      const std::int64_t* global_at, const std::int64_t* local_at, const double* rest) {
  const avistan::Lease lease = avistan::lease_slot(index);
  if (!lease || lease->layout != nullptr) return 0;
  auto layout = std::make_unique<avistan::Layout>();
  layout->globals = static_cast<std::size_t>(globals);
  layout->block = static_cast<std::size_t>(block);
  layout->units = static_cast<std::size_t>(units);
  layout->global_at.assign(global_at, global_at + globals);
  layout->local_at.assign(local_at, local_at + block * units);
  if (rest != nullptr) layout->rest.assign(rest, rest + lease->dim);
  layout->find_runs();
  lease->layout = std::move(layout);
  return 1;
}

// Closes a slot to new calls. Returns 1 when no running call uses it any more, else 0; with wait != 0 it returns 1.
AVISTAN_EXPORT int avistan_release(std::int64_t index, int wait) {
  return avistan::release_slot(index, wait != 0) ? 1 : 0;
}
