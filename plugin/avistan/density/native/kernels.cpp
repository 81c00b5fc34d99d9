#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

constexpr std::size_t kPiece = 256;  // entries that go through one short loop after the other
constexpr float kMost = 1e18f;       // of a gradient, whose square must be finite

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float of_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 0 for a gradient that is not finite, or whose square is not. A mask, because compilers make jumps of two conditions.
inline float finite(float gradient) {
  return of_bits(bits_of(gradient) & -static_cast<std::uint32_t>(std::fabs(gradient) <= kMost));
}

// The most that counts of a gradient whose root mean square has been `root`; without limit before the first.
inline float bound_of(const AdamScales& c, float root) {
  return of_bits(bits_of(c.bound_scale * root) | (-static_cast<std::uint32_t>(root == 0.0f) & bits_of(kMost)));
}

// The first half of a step of `adam`: moments after one more gradient, the second one not yet as its root. Loops over
// halves are short: a processor looks only so many instructions ahead.
inline __attribute__((always_inline)) void follow(const AdamScales& c, float gradient, float root, float& first,
                                                  float& second) {
  const float g = within(bound_of(c, root), finite(gradient));
  first = c.first_decay * first + (1.0f - c.first_decay) * g;
  second = c.second_decay * root * root + (1.0f - c.second_decay) * g * g;
}

// The other half, of at most kPiece entries. Adam's epsilon of 1e-8 is here the least that a corrected root counts for.
template <class Real>
inline __attribute__((always_inline)) void advance(const AdamScales& c, const float* __restrict__ first,
                                                   std::size_t count, float* __restrict__ second_root,
                                                   Real* __restrict__ parameters) {
  const float scale = c.first_scale / c.root_scale, most = c.first_scale * 1e8f;
  const Real rate = static_cast<Real>(c.rate);
  float inverse[kPiece];
  for (std::size_t n = 0; n < count; ++n) inverse[n] = inverse_root(second_root[n] + 1e-37f);
  for (std::size_t n = 0; n < count; ++n) {
    second_root[n] *= inverse[n];
    const float scaled = inverse[n] * scale;
    parameters[n] += rate * static_cast<Real>(within(1.0f, first[n] * (most < scaled ? most : scaled)));
  }
}

template <class Real>
inline __attribute__((always_inline)) void move(const AdamScales& scales, const float* __restrict__ gradient,
                                                std::size_t count, float* __restrict__ first,
                                                float* __restrict__ second_root, Real* __restrict__ parameters) {
  const AdamScales c = scales;
  for (std::size_t start = 0; start < count; start += kPiece) {
    const std::size_t end = std::min(start + kPiece, count);
    for (std::size_t n = start; n < end; ++n) follow(c, gradient[n], second_root[n], first[n], second_root[n]);
    advance(c, first + start, end - start, second_root + start, parameters + start);
  }
}

// Of `bend`, in units of sds: its pointers are known not to overlap.
inline __attribute__((always_inline)) void bend_entries(
    const float* __restrict__ standard, const float* __restrict__ e, const float* __restrict__ skew,
    const float* __restrict__ tail, const float* __restrict__ sinh, const float* __restrict__ cosh, std::size_t count,
    float* __restrict__ value, float* __restrict__ log_slope, float* __restrict__ slope, float* __restrict__ curvature,
    float* __restrict__ by_log_sd, float* __restrict__ by_skew, float* __restrict__ by_tail) {
  for (std::size_t n = 0; n < count; ++n) {
    const float r = standard[n], root = std::sqrt(1.0f + r * r);
    const float power = tail[n] * std::copysign(logarithm(std::fabs(r) + root), r);  // delta asinh(r)
    const float up = 0.5f * exponential(power + skew[n]), down = 0.25f / up;
    const float cosh_u = up + down, sinh_u = up - down, along = cosh_u * tail[n] / root;
    value[n] = sinh_u - sinh[n];
    log_slope[n] = logarithm(along);
    slope[n] = along;
    curvature[n] = (sinh_u / cosh_u * tail[n] - r / root) / root;
    by_log_sd[n] = value[n] - along * (r - e[n]);
    by_skew[n] = cosh_u - cosh[n];
    by_tail[n] = cosh_u * power;
  }
}

// Of `diagonal_adam`.
template <bool own>
inline __attribute__((always_inline)) void follow_diagonal(
    const AdamScales& c, const double* __restrict__ gradient, const double* __restrict__ scale,
    const float* __restrict__ sd, const float* __restrict__ e, std::size_t count, float* __restrict__ loc_first,
    float* __restrict__ loc_root, float* __restrict__ log_sd_first, float* __restrict__ log_sd_root) {
  const double shared = scale[0];
  for (std::size_t n = 0; n < count; ++n) {
    const float v = static_cast<float>((own ? scale[n] : shared) * gradient[n]) + e[n] / sd[n];
    follow(c, v, loc_root[n], loc_first[n], loc_root[n]);
    follow(c, v * (sd[n] * e[n]), log_sd_root[n], log_sd_first[n], log_sd_root[n]);
  }
}

}  // namespace

#define AVISTAN_FOR_REAL(Real)                                                                                       \
  AVISTAN_CLONES void put_mean_and_noise(const Real* loc, const float* sd, const float* e, std::size_t count,        \
                                         double* z) {                                                                \
    for (std::size_t n = 0; n < count; ++n) z[n] = static_cast<double>(loc[n]) + static_cast<double>(sd[n] * e[n]);  \
  }                                                                                                                  \
  AVISTAN_CLONES void place_diagonal(const Real* loc, const float* sd, const float* e, const double* center,         \
                                     const double* scale, bool own, std::size_t count, double* out) {                \
    if (own) {                                                                                                       \
      for (std::size_t n = 0; n < count; ++n) {                                                                      \
        out[n] = center[n] + scale[n] * (static_cast<double>(loc[n]) + static_cast<double>(sd[n] * e[n]));           \
      }                                                                                                              \
    } else {                                                                                                         \
      const double c = center[0], s = scale[0];                                                                      \
      for (std::size_t n = 0; n < count; ++n) {                                                                      \
        out[n] = c + s * (static_cast<double>(loc[n]) + static_cast<double>(sd[n] * e[n]));                          \
      }                                                                                                              \
    }                                                                                                                \
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
  }                                                                                                                  \
  AVISTAN_CLONES void flatten_numbers(const Real* skew, const Real* log_tail, std::size_t count,                     \
                                      const FlowNumbers& out) {                                                      \
    const FlowNumbers o = out;                                                                                       \
    for (std::size_t n = 0; n < count; ++n) {                                                                        \
      const float e = kMostSkew * hyperbolic_tangent(static_cast<float>(skew[n]) / kMostSkew);                       \
      const float l = kMostTail * hyperbolic_tangent(static_cast<float>(log_tail[n]) / kMostTail);                   \
      const float up = exponential(e), down = 1.0f / up;                                                             \
      o.skew[n] = e;                                                                                                 \
      o.log_tail[n] = l;                                                                                             \
      o.tail[n] = exponential(l);                                                                                    \
      o.sinh[n] = 0.5f * (up - down);                                                                                \
      o.cosh[n] = 0.5f * (up + down);                                                                                \
    }                                                                                                                \
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
double grow(const double* __restrict__ raw, double range, double shrink_range, std::size_t count,
            float* __restrict__ growth, float* __restrict__ slope, double* __restrict__ z, float* __restrict__ moved) {
  const float most = static_cast<float>(range), least = static_cast<float>(shrink_range);
  for (std::size_t n = 0; n < count; ++n) {
    const float limit = raw[n] > 0.0 ? most : least;
    const float flat = hyperbolic_tangent(static_cast<float>(raw[n]) / limit);
    moved[n] = limit * flat;
    growth[n] = exponential(limit * flat);
    slope[n] = 1.0f - flat * flat;
  }
  const double total = sum(moved, count);
  for (std::size_t n = 0; n < count; ++n) {
    z[n] *= static_cast<double>(growth[n]);
    moved[n] = static_cast<float>(z[n]);
  }
  return total;
}

AVISTAN_CLONES
double bend(const FlowNumbers& numbers, const float* sd, const float* e, std::size_t count, double* z,
            const FlowPoint& out) {
  constexpr std::size_t piece = 256;
  float r[piece], value[piece], log_slope[piece];
  double total = 0.0;
  for (std::size_t start = 0; start < count; start += piece) {
    const std::size_t m = std::min(piece, count - start);
    for (std::size_t n = 0; n < m; ++n) r[n] = static_cast<float>(z[start + n]) / sd[start + n];
    bend_entries(r, e + start, numbers.skew + start, numbers.tail + start, numbers.sinh + start, numbers.cosh + start, m,
                 value, log_slope, out.slope + start, out.curvature + start, out.by_log_sd + start,
                 out.by_skew + start, out.by_tail + start);
    for (std::size_t n = 0; n < m; ++n) z[start + n] = static_cast<double>(sd[start + n] * value[n]);
    total += sum(log_slope, m);
  }
  return total;
}

AVISTAN_CLONES
void pull_through_flow(const FlowPoint& at, const float* sd, std::size_t count, float* __restrict__ p) {
  const float *slope = at.slope, *curvature = at.curvature;
  for (std::size_t n = 0; n < count; ++n) p[n] = (p[n] + curvature[n] / sd[n]) / slope[n];
}

AVISTAN_CLONES
void through_flow(const FlowPoint& at, const float* sd, std::size_t count, float* __restrict__ v,
                  float* __restrict__ of_log_sd, float* __restrict__ of_skew, float* __restrict__ of_tail) {
  const FlowPoint f = at;
  for (std::size_t n = 0; n < count; ++n) {
    const float in_sds = v[n] * sd[n];
    of_log_sd[n] += in_sds * f.by_log_sd[n];
    of_skew[n] += in_sds * f.by_skew[n];
    of_tail[n] += in_sds * f.by_tail[n];
    v[n] *= f.slope[n];
  }
}

AVISTAN_CLONES
void through_flattening(const FlowNumbers& numbers, std::size_t count, float* __restrict__ of_skew,
                        float* __restrict__ of_tail) {
  const float *skew = numbers.skew, *log_tail = numbers.log_tail;
  for (std::size_t n = 0; n < count; ++n) {
    of_skew[n] *= slope_of_skew(skew[n]);
    of_tail[n] *= slope_of_tail(log_tail[n]);
  }
}

AVISTAN_CLONES
void pull_through_growth(const float* growth, const float* slope, const float* moved, std::size_t count,
                         float* __restrict__ p, float* __restrict__ of_raw) {
  for (std::size_t n = 0; n < count; ++n) {
    p[n] /= growth[n];
    of_raw[n] = slope[n] * (moved[n] * p[n] - 1.0f);
  }
}

AVISTAN_CLONES
void through_growth(const float* v, const float* growth, const float* slope, const float* moved, std::size_t count,
                    float* __restrict__ of_noise, float* __restrict__ of_raw) {
  for (std::size_t n = 0; n < count; ++n) {
    of_noise[n] = v[n] * growth[n];
    of_raw[n] = v[n] * slope[n] * moved[n];
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
void adam(const AdamScales& scales, const float* gradient, std::size_t count, float* first, float* second_root,
          double* parameters) {
  move(scales, gradient, count, first, second_root, parameters);
}

AVISTAN_CLONES
void adam(const AdamScales& scales, const float* gradient, std::size_t count, float* first, float* second_root,
          float* parameters) {
  move(scales, gradient, count, first, second_root, parameters);
}

AVISTAN_CLONES
void diagonal_adam(const AdamScales& scales, const double* gradient, const double* scale, bool own, const float* sd,
                   const float* e, std::size_t count, float* loc_first, float* loc_root, double* loc,
                   float* log_sd_first, float* log_sd_root, double* log_sd) {
  const AdamScales c = scales;
  for (std::size_t n = 0; n < count; n += kPiece) {
    const std::size_t m = std::min(kPiece, count - n);
    if (own) {
      follow_diagonal<true>(c, gradient + n, scale + n, sd + n, e + n, m, loc_first + n, loc_root + n,
                            log_sd_first + n, log_sd_root + n);
    } else {
      follow_diagonal<false>(c, gradient + n, scale, sd + n, e + n, m, loc_first + n, loc_root + n,
                             log_sd_first + n, log_sd_root + n);
    }
    advance(c, loc_first + n, m, loc_root + n, loc + n);
    advance(c, log_sd_first + n, m, log_sd_root + n, log_sd + n);
  }
}

}  // namespace avistan
