#include "normals.h"

#include <algorithm>
#include <cmath>

#include "clones.h"
#include "elementary.h"

namespace avistan {
namespace {

constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15ULL;
constexpr std::size_t kPairs = kNormalBlock / 2;

inline std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// sin(2 pi y) for |y| <= 1/4, by its series.
inline float sine_of_turns(float y) {
  const float x = 6.283185307179586f * y;
  const float q = x * x;
  return x * (1.0f + q * (-1.0f / 6 + q * (1.0f / 120 + q * (-1.0f / 5040 + q * (1.0f / 362880 - q / 39916800.0f)))));
}

AVISTAN_CLONES
void make_blocks(std::uint64_t start, std::uint64_t counter, std::size_t blocks, float* out) {
  for (std::size_t block = 0; block < blocks; ++block, out += kNormalBlock, counter += kPairs) {
    std::int32_t radius[kPairs], angle[kPairs];
    for (std::size_t i = 0; i < kPairs; ++i) {
      const std::uint64_t word = mixed(start + kGamma * (counter + i + 1));
      radius[i] = static_cast<std::int32_t>(word >> 33);
      angle[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(word));
    }
    for (std::size_t i = 0; i < kPairs; ++i) {
      const float u = (static_cast<float>(radius[i]) + 0.5f) * 4.656612873077393e-10f;  // 2^-31, in (0, 1]
      const float turns = static_cast<float>(angle[i]) * 2.3283064365386963e-10f;       // 2^-32, in [-1/2, 1/2]
      const float r = std::sqrt(-2.0f * logarithm(u));
      const float cosine = sine_of_turns(0.25f - std::fabs(turns));
      const float folded = std::fabs(turns) <= 0.25f ? turns : std::copysign(0.5f, turns) - turns;
      out[i] = r * cosine;
      out[kPairs + i] = r * sine_of_turns(folded);
    }
  }
}

AVISTAN_CLONES
void exponentials_of_doubles(const double* in, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = exponential(static_cast<float>(in[i]));
}

AVISTAN_CLONES
void exponentials_of_floats(const float* in, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = exponential(in[i]);
}

}  // namespace

std::uint64_t stream_start(std::uint64_t key, std::uint64_t step, std::uint64_t stream) {
  return mixed(mixed(key + kGamma * step) + kGamma * (stream + 1));
}

void fill_normals(std::uint64_t start, std::size_t first, std::size_t count, float* out) {
  const std::size_t whole = count / kNormalBlock;
  make_blocks(start, first / 2, whole, out);
  if (const std::size_t rest = count - whole * kNormalBlock; rest != 0) {
    float last[kNormalBlock];
    make_blocks(start, first / 2 + whole * kPairs, 1, last);
    std::copy_n(last, rest, out + whole * kNormalBlock);
  }
}

void exponentials(const double* in, std::size_t count, float* out) { exponentials_of_doubles(in, count, out); }
void exponentials(const float* in, std::size_t count, float* out) { exponentials_of_floats(in, count, out); }

}  // namespace avistan
