#include "common_normals.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "clones.h"

namespace avistan {
namespace {

// Polynomials of the inverse error function, the highest power first.
constexpr double kCentre[] = {
    -3.6444120640178196996e-21, -1.685059138182016589e-19, 1.2858480715256400167e-18, 1.115787767802518096e-17,
    -1.333171662854620906e-16, 2.0972767875968561637e-17, 6.6376381343583238325e-15, -4.0545662729752068639e-14,
    -8.1519341976054721522e-14, 2.6335093153082322977e-12, -1.2975133253453532498e-11, -5.4154120542946279317e-11,
    1.051212273321532285e-09, -4.1126339803469836976e-09, -2.9070369957882005086e-08, 4.2347877827932403518e-07,
    -1.3654692000834678645e-06, -1.3882523362786468719e-05, 0.0001867342080340571352, -0.00074070253416626697512,
    -0.0060336708714301490533, 0.24015818242558961693, 1.6536545626831027356,
};
constexpr double kFlanks[] = {
    2.2137376921775787049e-09, 9.0756561938885390979e-08, -2.7517406297064545428e-07, 1.8239629214389227755e-08,
    1.5027403968909827627e-06, -4.013867526981545969e-06, 2.9234449089955446044e-06, 1.2475304481671778723e-05,
    -4.7318229009055733981e-05, 6.8284851459573175448e-05, 2.4031110387097893999e-05, -0.0003550375203628474796,
    0.00095328937973738049703, -0.0016882755560235047313, 0.0024914420961078508066, -0.0037512085075692412107,
    0.005370914553590063617, 1.0052589676941592334, 3.0838856104922207635,
};
constexpr double kTails[] = {
    -2.7109920616438573243e-11, -2.5556418169965252055e-10, 1.5076572693500548083e-09, -3.7894654401267369937e-09,
    7.6157012080783393804e-09, -1.4960026627149240478e-08, 2.9147953450901080826e-08, -6.7711997758452339498e-08,
    2.2900482228026654717e-07, -9.9298272942317002539e-07, 4.5260625972231537039e-06, -1.9681778105531670567e-05,
    7.5995277030017761139e-05, -0.00021503011930044477347, -0.00013871931833623122026, 1.0103004648645343977,
    4.8499064014085844221,
};

constexpr std::size_t kAtOnce = 64;    // numbers, in short loops one after the other
constexpr double kFar = 6.25;          // of -log(1 - u^2), from which other polynomials serve: one number in a thousand
constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};

template <std::size_t Count>
inline double polynomial(const double (&coefficients)[Count], double x) {
  double value = coefficients[0];
  for (std::size_t i = 1; i < Count; ++i) value = value * x + coefficients[i];
  return value;
}

// log of a positive normal number: exponent and mantissa in [1/sqrt 2, sqrt 2), then the series of atanh.
inline double logarithm(double x) {
  constexpr std::uint64_t kRootHalf = 0x3fe6a09e667f3bcdULL, kOne = 0x3ff0000000000000ULL, kBig = 0x4330000000000000ULL;
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint64_t biased = (bits - kRootHalf + kOne) >> 52;  // exponent + 1023
  bits -= (biased << 52) - kOne;
  double mantissa, exponent;
  std::memcpy(&mantissa, &bits, sizeof mantissa);
  const std::uint64_t shifted = biased | kBig;  // 2^52 + biased
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent -= 4503599627370496.0 + 1023.0;
  const double s = (mantissa - 1.0) / (mantissa + 1.0), q = s * s;
  double series = 1.0 / 21;
  series = series * q + 1.0 / 19;
  series = series * q + 1.0 / 17;
  series = series * q + 1.0 / 15;
  series = series * q + 1.0 / 13;
  series = series * q + 1.0 / 11;
  series = series * q + 1.0 / 9;
  series = series * q + 1.0 / 7;
  series = series * q + 1.0 / 5;
  series = series * q + 1.0 / 3;
  series = series * q + 1.0;
  return exponent * 0.6931471805599453 + 2.0 * s * series;
}

// sqrt 2 times the inverse error function where w = -log(1 - u^2) is large.
double far_normal(double u, double w) {
  const double root = std::sqrt(w);
  const double found = root < 4.0 ? polynomial(kFlanks, root - 3.25) : polynomial(kTails, root - 5.0);
  return std::sqrt(2.0) * found * u;
}

AVISTAN_CLONES
void make(std::uint32_t high, std::uint32_t low, const std::int64_t* numbers, std::size_t count, double* out) {
  const std::uint32_t keys[3] = {high, low, high ^ low ^ 0x1bd11bdau};
  std::uint32_t x[kAtOnce], y[kAtOnce];
  double u[kAtOnce], w[kAtOnce];
  for (std::size_t i = 0; i < count; ++i) {
    const auto number = static_cast<std::uint64_t>(numbers[i]);
    x[i] = static_cast<std::uint32_t>(number >> 32) + keys[0];
    y[i] = static_cast<std::uint32_t>(number) + keys[1];
  }
  for (std::uint32_t block = 0; block < 5; ++block) {
    const std::uint32_t to_x = keys[(block + 1) % 3], to_y = keys[(block + 2) % 3] + block + 1;
    const int *const turns = kRotations[block % 2], a = turns[0], b = turns[1], c = turns[2], d = turns[3];
    for (std::size_t i = 0; i < count; ++i) {
      std::uint32_t p = x[i], q = y[i];
      p += q, q = ((q << a) | (q >> (32 - a))) ^ p;
      p += q, q = ((q << b) | (q >> (32 - b))) ^ p;
      p += q, q = ((q << c) | (q >> (32 - c))) ^ p;
      p += q, q = ((q << d) | (q >> (32 - d))) ^ p;
      x[i] = p + to_x;
      y[i] = q + to_y;
    }
  }
  constexpr double kLowest = -1.0 + 0x1p-53;  // the number above -1
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t word = (static_cast<std::uint64_t>(x[i]) << 32 | y[i]) >> 12 | 0x3ff0000000000000ULL;
    double fraction;
    std::memcpy(&fraction, &word, sizeof fraction);
    const double found = (fraction - 1.0) * (1.0 - kLowest) + kLowest;
    u[i] = found > kLowest ? found : kLowest;
  }
  // Rounded squares, in a loop of their own, as JAX has them: near 1 the difference would show.
  for (std::size_t i = 0; i < count; ++i) w[i] = u[i] * u[i];
  for (std::size_t i = 0; i < count; ++i) w[i] = -logarithm(1.0 - w[i]);
  for (std::size_t i = 0; i < count; ++i) out[i] = 1.4142135623730951 * (polynomial(kCentre, w[i] - 3.125) * u[i]);
  for (std::size_t i = 0; i < count; ++i) {
    if (w[i] >= kFar) out[i] = far_normal(u[i], w[i]);
  }
}

}  // namespace

void common_normals(std::uint32_t high, std::uint32_t low, const std::int64_t* numbers, std::size_t count,
                    double* out) {
  for (std::size_t at = 0; at < count; at += kAtOnce) {
    make(high, low, numbers + at, std::min(kAtOnce, count - at), out + at);
  }
}

}  // namespace avistan
