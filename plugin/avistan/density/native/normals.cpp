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

// sin(2 pi y) for |y| <= 1/4: the polynomial in y of that degree with the least relative error, 6e-9.
inline float sine_of_turns(float y) {
  const float q = y * y;
  return y * (6.28318548f + q * (-41.3416786f + q * (81.6022338f + q * (-76.5749893f + q * 39.7109184f))));
}

// A few blocks at once, one short loop after the other: a processor looks only so many instructions ahead.
AVISTAN_CLONES
void make_blocks(std::uint64_t start, std::uint64_t counter, std::size_t blocks, float* out) {
  constexpr std::size_t most = 8;
  std::int32_t above[most * kPairs], below[most * kPairs];
  float radius[most * kPairs];
  for (std::size_t done = 0; done < blocks; done += most) {
    const std::size_t some = std::min(most, blocks - done), pairs = some * kPairs;
    std::uint64_t at = start + kGamma * (counter + done * kPairs);
    for (std::size_t i = 0; i < pairs; ++i) {
      at += kGamma;
      const std::uint64_t word = mixed(at);
      above[i] = static_cast<std::int32_t>(word >> 33);
      below[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(word));
    }
    for (std::size_t i = 0; i < pairs; ++i) {
      const float u = (static_cast<float>(above[i]) + 0.5f) * 4.656612873077393e-10f;  // 2^-31, in (0, 1]
      radius[i] = std::sqrt(-2.0f * logarithm(u));
    }
    for (std::size_t block = 0; block < some; ++block, out += kNormalBlock) {
      for (std::size_t i = 0; i < kPairs; ++i) {
        const float turns = static_cast<float>(below[block * kPairs + i]) * 2.3283064365386963e-10f;  // 2^-32
        const float r = radius[block * kPairs + i];
        const float folded = std::fabs(turns) <= 0.25f ? turns : std::copysign(0.5f, turns) - turns;
        out[i] = r * sine_of_turns(0.25f - std::fabs(turns));
        out[kPairs + i] = r * sine_of_turns(folded);
      }
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
