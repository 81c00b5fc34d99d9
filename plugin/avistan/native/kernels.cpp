#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "clones.h"
#include "elementary.h"

namespace avistan {
namespace {

constexpr std::size_t kLanes = 16;

// The sum of a b, in lanes of type Lane.
template <bool weighted, class Lane, class A>
inline __attribute__((always_inline)) double lanewise(const A* a, const float* b, std::size_t count) {
  Lane lanes[kLanes] = {};
  std::size_t n = 0;
  for (; n + kLanes <= count; n += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      lanes[j] += static_cast<Lane>(a[n + j]) * (weighted ? static_cast<Lane>(b[n + j]) : Lane{1});
    }
  }
  for (; n < count; ++n) lanes[n % kLanes] += static_cast<Lane>(a[n]) * (weighted ? static_cast<Lane>(b[n]) : Lane{1});
  double total = 0.0;
  for (const Lane lane : lanes) total += lane;
  return total;
}

// One entry of `adam`.
template <class Real>
inline __attribute__((always_inline)) void move(const AdamScales& c, float gradient, float& first, float& second_root,
                                                Real& parameter) {
  constexpr float largest = std::numeric_limits<float>::max();
  const float root = second_root;
  float g = std::fabs(gradient) <= largest ? gradient : 0.0f;
  const float bound = root > 0.0f ? c.bound_scale * root : largest;
  g = std::min(std::max(g, -bound), bound);
  const float m = c.first_decay * first + (1.0f - c.first_decay) * g;
  const float r = std::sqrt(c.second_decay * root * root + (1.0f - c.second_decay) * g * g);
  first = m;
  second_root = r;
  const float direction = m * c.first_scale / (r * c.root_scale + 1e-8f);
  parameter += static_cast<Real>(c.rate) * static_cast<Real>(std::min(std::max(direction, -1.0f), 1.0f));
}

}  // namespace

#define AVISTAN_FOR_REAL(Real)                                                                                       \
  AVISTAN_CLONES void put_mean_and_noise(const Real* loc, const float* sd, const float* e, std::size_t count,        \
                                         double* z) {                                                                \
    for (std::size_t n = 0; n < count; ++n) z[n] = static_cast<double>(loc[n]) + static_cast<double>(sd[n] * e[n]);  \
  }                                                                                                                  \
  AVISTAN_CLONES void add_products(const Real* a, const float* b, std::size_t count, double* z) {                    \
    for (std::size_t n = 0; n < count; ++n) z[n] += static_cast<double>(a[n]) * static_cast<double>(b[n]);           \
  }                                                                                                                  \
  AVISTAN_CLONES void add_multiple(const Real* a, double x, std::size_t count, double* z) {                          \
    for (std::size_t n = 0; n < count; ++n) z[n] += static_cast<double>(a[n]) * x;                                   \
  }                                                                                                                  \
  AVISTAN_CLONES void subtract_products(const Real* a, const float* b, std::size_t count, float* p) {                \
    for (std::size_t n = 0; n < count; ++n) p[n] -= static_cast<float>(a[n]) * b[n];                                 \
  }                                                                                                                  \
  AVISTAN_CLONES double sum_of_products(const Real* a, const float* b, std::size_t count) {                          \
    return lanewise<true, Real>(a, b, count);                                                                              \
  }                                                                                                                  \
  AVISTAN_CLONES double sum(const Real* a, std::size_t count) {                                                      \
    return lanewise<false, double>(a, nullptr, count);                                           \
  }

AVISTAN_FOR_REAL(double)
AVISTAN_FOR_REAL(float)
#undef AVISTAN_FOR_REAL

AVISTAN_CLONES
void place(const double* z, const double* center, const double* scale, bool own, std::size_t count, double* out,
           std::ptrdiff_t stride) {
  if (!own) {
    const double c = center[0], s = scale[0];
    if (stride == 1) {
      for (std::size_t n = 0; n < count; ++n) out[n] = c + s * z[n];
    } else {
      for (std::size_t n = 0; n < count; ++n) out[static_cast<std::ptrdiff_t>(n) * stride] = c + s * z[n];
    }
  } else if (stride == 1) {
    for (std::size_t n = 0; n < count; ++n) out[n] = center[n] + scale[n] * z[n];
  } else {
    for (std::size_t n = 0; n < count; ++n) out[static_cast<std::ptrdiff_t>(n) * stride] = center[n] + scale[n] * z[n];
  }
}

AVISTAN_CLONES
void take(const double* in, std::ptrdiff_t stride, double weight, const double* scale, bool own, std::size_t count,
          float* out) {
  if (!own) {
    const double s = weight * scale[0];
    if (stride == 1) {
      for (std::size_t n = 0; n < count; ++n) out[n] = static_cast<float>(s * in[n]);
    } else {
      for (std::size_t n = 0; n < count; ++n) out[n] = static_cast<float>(s * in[static_cast<std::ptrdiff_t>(n) * stride]);
    }
  } else if (stride == 1) {
    for (std::size_t n = 0; n < count; ++n) out[n] = static_cast<float>(weight * scale[n] * in[n]);
  } else {
    for (std::size_t n = 0; n < count; ++n) {
      out[n] = static_cast<float>(weight * scale[n] * in[static_cast<std::ptrdiff_t>(n) * stride]);
    }
  }
}

AVISTAN_CLONES
void put_noise(const float* sd, const float* e, std::size_t count, double* z) {
  for (std::size_t n = 0; n < count; ++n) z[n] = static_cast<double>(sd[n] * e[n]);
}

AVISTAN_CLONES
double grow(const double* __restrict__ raw, double range, std::size_t count, float* __restrict__ scale,
            float* __restrict__ bend, double* __restrict__ z, float* __restrict__ moved) {
  const float limit = static_cast<float>(range);
  for (std::size_t n = 0; n < count; ++n) {
    const float flat = hyperbolic_tangent(static_cast<float>(raw[n]) / limit);
    moved[n] = limit * flat;
    scale[n] = exponential(limit * flat);
    bend[n] = 1.0f - flat * flat;
  }
  const double total = sum(moved, count);
  for (std::size_t n = 0; n < count; ++n) {
    z[n] *= static_cast<double>(scale[n]);
    moved[n] = static_cast<float>(z[n]);
  }
  return total;
}

AVISTAN_CLONES
void pull_through_scale(const float* scale, const float* bend, const float* moved, std::size_t count,
                        float* __restrict__ p, float* __restrict__ of_raw) {
  for (std::size_t n = 0; n < count; ++n) {
    p[n] /= scale[n];
    of_raw[n] = bend[n] * (moved[n] * p[n] - 1.0f);
  }
}

AVISTAN_CLONES
void through_scale(const float* v, const float* scale, const float* bend, const float* moved, std::size_t count,
                   float* __restrict__ of_noise, float* __restrict__ of_raw) {
  for (std::size_t n = 0; n < count; ++n) {
    of_noise[n] = v[n] * scale[n];
    of_raw[n] = v[n] * bend[n] * moved[n];
  }
}

AVISTAN_CLONES
void add_pull(const float* p, float weight, std::size_t count, float* __restrict__ v, float* __restrict__ of_loc) {
  for (std::size_t n = 0; n < count; ++n) {
    v[n] += weight * p[n];
    of_loc[n] += v[n];
  }
}

AVISTAN_CLONES
void add_triple_products(const float* a, const float* b, const float* c, std::size_t count, float* __restrict__ sum) {
  for (std::size_t n = 0; n < count; ++n) sum[n] += a[n] * b[n] * c[n];
}

AVISTAN_CLONES
void divide(const float* sd, std::size_t count, float* p) {
  for (std::size_t n = 0; n < count; ++n) p[n] /= sd[n];
}

AVISTAN_CLONES
void add_to_gradient(const float* p, const float* sd, const float* e, float weight, std::size_t count,
                     float* __restrict__ v, float* __restrict__ of_loc, float* __restrict__ of_log_sd) {
  for (std::size_t n = 0; n < count; ++n) {
    v[n] += weight * p[n];
    of_loc[n] += v[n];
    of_log_sd[n] += v[n] * (sd[n] * e[n]);
  }
}

AVISTAN_CLONES
void add_float_products(const float* a, const float* b, std::size_t count, float* sum) {
  for (std::size_t n = 0; n < count; ++n) sum[n] += a[n] * b[n];
}

AVISTAN_CLONES
void add_float_multiple(const float* a, float x, std::size_t count, float* sum) {
  for (std::size_t n = 0; n < count; ++n) sum[n] += a[n] * x;
}

AVISTAN_CLONES
void multiply(float x, std::size_t count, float* a) {
  for (std::size_t n = 0; n < count; ++n) a[n] *= x;
}

AVISTAN_CLONES
void adam(const AdamScales& scales, const float* gradient, std::size_t count, float* __restrict__ first,
          float* __restrict__ second_root, double* __restrict__ parameters) {
  const AdamScales c = scales;
  for (std::size_t n = 0; n < count; ++n) move(c, gradient[n], first[n], second_root[n], parameters[n]);
}

AVISTAN_CLONES
void adam(const AdamScales& scales, const float* gradient, std::size_t count, float* __restrict__ first,
          float* __restrict__ second_root, float* __restrict__ parameters) {
  const AdamScales c = scales;
  for (std::size_t n = 0; n < count; ++n) move(c, gradient[n], first[n], second_root[n], parameters[n]);
}

AVISTAN_CLONES
void diagonal_adam(const AdamScales& scales, const double* gradient, const double* scale, bool own, const float* sd,
                   const float* e, std::size_t count, float* __restrict__ loc_first, float* __restrict__ loc_root,
                   double* __restrict__ loc, float* __restrict__ log_sd_first, float* __restrict__ log_sd_root,
                   double* __restrict__ log_sd) {
  const AdamScales c = scales;
  constexpr std::size_t piece = 256;
  float v[piece];
  for (std::size_t start = 0; start < count; start += piece) {
    const std::size_t m = std::min(piece, count - start);
    take(gradient + start, 1, 1.0, own ? scale + start : scale, own, m, v);
    for (std::size_t n = 0; n < m; ++n) v[n] += e[start + n] / sd[start + n];
    for (std::size_t n = 0; n < m; ++n) move(c, v[n], loc_first[start + n], loc_root[start + n], loc[start + n]);
    for (std::size_t n = 0; n < m; ++n) v[n] *= sd[start + n] * e[start + n];
    for (std::size_t n = 0; n < m; ++n) {
      move(c, v[n], log_sd_first[start + n], log_sd_root[start + n], log_sd[start + n]);
    }
  }
}

}  // namespace avistan
