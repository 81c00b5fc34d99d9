// Single-precision elementary functions without branches or calls, so that loops over them vectorize.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace avistan {

// The number within `limit` of 0 that is nearest to x; NaN stays. One condition alone: compilers make jumps of two.
inline float within(float limit, float x) {
  const float size = std::fabs(x);
  return std::copysign(limit < size ? limit : size, x);
}

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

// exp by powers of 2 and the series of the rest. Adding kRounder leaves the nearest integer in the lowest bits.
inline float exponential(float x) {
  constexpr float kRounder = 12582912.0f;  // 1.5 2^23
  x = within(87.0f, x);
  const float shifted = x * 1.44269504088896f + kRounder;
  const float power = shifted - kRounder;
  const float r = (x - power * 0.693145751953125f) - power * 1.42860682030941723e-6f;
  const float series =
      1.0f +
      r * (1.0f + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;  // 2^power
  float two;
  std::memcpy(&two, &bits, sizeof two);
  return series * two;
}

// 1 / sqrt(x) of a positive normal number: a guess from the exponent, and Newton's steps.
inline float inverse_root(float x) {
  std::int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = 0x5f375a86 - (bits >> 1);
  float y;
  std::memcpy(&y, &bits, sizeof y);
  const float half = 0.5f * x;
  for (int i = 0; i < 3; ++i) y *= 1.5f - half * y * y;
  return y;
}

// A quotient of polynomials, error below 4e-7. Source: Eigen's library, generic_fast_tanh_float.
inline float hyperbolic_tangent(float x) {
  x = within(7.90531110763549805f, x);
  const float q = x * x;
  const float above =
      ((((((-2.76076847742355e-16f * q + 2.00018790482477e-13f) * q - 8.60467152213735e-11f) * q +
           5.12229709037114e-08f) * q + 1.48572235717979e-05f) * q + 6.37261928875436e-04f) * q +
       4.89352455891786e-03f) * x;
  const float below =
      ((1.19825839466702e-06f * q + 1.18534705686654e-04f) * q + 2.26843463243900e-03f) * q + 4.89352518554385e-03f;
  return above / below;
}

}  // namespace avistan
