#include "density.h"

#include <algorithm>
#include <cstring>
#include <limits>

// The loop compiled several times, for the vector units of several generations of x86-64; the fitting one is chosen when
// the library is loaded. Elsewhere one version is enough.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define AVISTAN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define AVISTAN_CLONES
#endif

namespace avistan {

AVISTAN_CLONES
bool any_nonfinite(const double* values, std::size_t count) {
  // The exponent of an infinity or a NaN is all ones; adding one to it carries into the sign bit. Integer operations
  // only, so that the loop vectorizes without relaxed floating point.
  constexpr std::uint64_t magnitude = 0x7fffffffffffffffULL;
  constexpr std::uint64_t exponent_unit = 0x0010000000000000ULL;
  std::uint64_t carried = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    carried |= (bits & magnitude) + exponent_unit;
  }
  return (carried >> 63) != 0;
}

std::int32_t evaluate_row(Gradient gradient, const void* model, const double* theta, double* lp, double* grad,
                          std::size_t dim, char** message) {
  *message = nullptr;
  const int code = gradient(model, /*propto=*/true, /*jacobian=*/true, theta, lp, grad, message);
  if (code == 0 && !any_nonfinite(lp, 1) && !any_nonfinite(grad, dim)) return 0;
  *lp = -std::numeric_limits<double>::infinity();
  std::fill_n(grad, dim, 0.0);
  return 1;
}

}  // namespace avistan
