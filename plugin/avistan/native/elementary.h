// Single-precision elementary functions without branches or calls, so that loops over them vectorize.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace avistan {

// log of a positive normal number: exponent and mantissa in [1/sqrt 2, sqrt 2), then the series of atanh.
inline float logarithm(float x) {
  std::int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::int32_t exponent = (bits - 0x3f3504f3) >> 23;  // 0x3f3504f3 is 1/sqrt 2
  bits -= exponent << 23;
  float mantissa;
  std::memcpy(&mantissa, &bits, sizeof mantissa);
  const float s = (mantissa - 1.0f) / (mantissa + 1.0f);
  const float q = s * s;
  const float series = 1.0f + q * (1.0f / 3 + q * (1.0f / 5 + q * (1.0f / 7 + q * (1.0f / 9))));
  return static_cast<float>(exponent) * 0.693147180559945f + 2.0f * s * series;
}

// exp by powers of 2 and the series of the rest.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 87.0f);
  const float scaled = x * 1.44269504088896f;
  const float power = static_cast<float>(static_cast<std::int32_t>(scaled + (scaled < 0.0f ? -0.5f : 0.5f)));
  const float r = (x - power * 0.693145751953125f) - power * 1.42860682030941723e-6f;
  const float series =
      1.0f +
      r * (1.0f + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
  const std::int32_t bits = (static_cast<std::int32_t>(power) + 127) << 23;
  float two;
  std::memcpy(&two, &bits, sizeof two);
  return series * two;
}

// Source: Moshier's Cephes library, tanhf.
inline float hyperbolic_tangent(float x) {
  const float q = x * x;
  const float series = ((((-5.70498872745e-3f * q + 2.06390887954e-2f) * q - 5.37397155531e-2f) * q +
                         1.33314422036e-1f) * q - 3.33332819422e-1f) * q * x + x;
  const float far = std::copysign(1.0f - 2.0f / (exponential(2.0f * std::fabs(x)) + 1.0f), x);
  return std::fabs(x) < 0.625f ? series : far;
}

}  // namespace avistan
