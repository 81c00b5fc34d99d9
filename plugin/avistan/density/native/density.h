// The part of the BridgeStan C ABI that the handler calls, and one row of work with it.
//
// Ownership: the library behind `Gradient` allocates error strings; whoever receives one frees it through the
// `FreeError` of the same library. Nothing here throws.
#pragma once

#include <cstddef>
#include <cstdint>

namespace avistan {

using Gradient = int (*)(const void* model, bool propto, bool jacobian, const double* theta, double* lp,
                         double* grad, char** error);
using FreeError = void (*)(char* error);

// True when any of the `count` numbers is infinite or NaN.
bool any_nonfinite(const double* values, std::size_t count);

// One gradient. Returns 0 when Stan accepted `theta` and `*lp` and all of `grad` are finite; otherwise 1, with *lp = -inf
// and grad = 0. `*message` receives Stan's string (to be freed by the caller) or null.
std::int32_t evaluate_row(Gradient gradient, const void* model, const double* theta, double* lp, double* grad,
                          std::size_t dim, char** message);

}  // namespace avistan
