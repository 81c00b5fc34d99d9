#include "matrix.h"

#include "clones.h"

#if defined(__GNUC__)
#define AVISTAN_INLINE inline __attribute__((always_inline))
#define AVISTAN_UNROLL _Pragma("GCC unroll 16")
#else
#define AVISTAN_INLINE inline
#define AVISTAN_UNROLL
#endif

namespace avistan {
namespace {

// W numbers that are worked on at once.
#if defined(__GNUC__)
template <int W>
struct LanesOf {
  typedef float Type __attribute__((vector_size(W * sizeof(float)), aligned(sizeof(float)), may_alias));
};
#else
template <int W>
struct LanesOf {
  struct Type {
    float lane[W];
    Type& operator+=(const Type& other) {
      for (int i = 0; i < W; ++i) lane[i] += other.lane[i];
      return *this;
    }
    friend Type operator*(float x, const Type& a) {
      Type found;
      for (int i = 0; i < W; ++i) found.lane[i] = x * a.lane[i];
      return found;
    }
    friend Type operator+(const Type& a, float x) {
      Type found;
      for (int i = 0; i < W; ++i) found.lane[i] = a.lane[i] + x;
      return found;
    }
  };
};
#endif
template <int W>
using Lanes = typename LanesOf<W>::Type;

struct Factors {
  const float* a;
  std::size_t step, row;  // from one inner index of `a` to the next, and from one row of the result to the next
  const float* b;
  std::size_t b_stride;
  std::size_t inner;
};

// A few rows and two vectors of columns: sums stay in registers.
template <int W, int Rows>
AVISTAN_INLINE void tile(const Factors& f, const float* a, const float* b, const float* start, float* out,
                         std::size_t out_stride) {
  Lanes<W> sum[Rows][2];
  AVISTAN_UNROLL
  for (int i = 0; i < Rows; ++i) {
    for (int h = 0; h < 2; ++h) {
      sum[i][h] = start != nullptr ? Lanes<W>{} + start[i]
                                   : *reinterpret_cast<const Lanes<W>*>(out + i * out_stride + h * W);
    }
  }
  const std::size_t step = f.step, row = f.row, b_stride = f.b_stride;
  for (std::size_t k = 0; k < f.inner; ++k) {
    const Lanes<W> left = *reinterpret_cast<const Lanes<W>*>(b), right = *reinterpret_cast<const Lanes<W>*>(b + W);
    AVISTAN_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const float x = a[i * row];
      sum[i][0] += x * left;
      sum[i][1] += x * right;
    }
    a += step;
    b += b_stride;
  }
  AVISTAN_UNROLL
  for (int i = 0; i < Rows; ++i) {
    for (int h = 0; h < 2; ++h) *reinterpret_cast<Lanes<W>*>(out + i * out_stride + h * W) = sum[i][h];
  }
}

// The last rows, fewer than a tile's.
template <int W, int Rows>
AVISTAN_INLINE void last_rows(std::size_t rows, const Factors& f, const float* a, const float* b, const float* start,
                              float* out, std::size_t out_stride) {
  if constexpr (Rows > 0) {
    if (rows == Rows) {
      tile<W, Rows>(f, a, b, start, out, out_stride);
    } else {
      last_rows<W, Rows - 1>(rows, f, a, b, start, out, out_stride);
    }
  }
}

template <int W, int Rows, bool by_rows>
AVISTAN_INLINE void all_tiles(Factors f, const float* start, std::size_t rows, std::size_t columns, float* out,
                              std::size_t out_stride) {
  if (by_rows) {
    f.step = 1;
  } else {
    f.row = 1;
  }
  for (std::size_t n = 0; n < columns; n += 2 * W) {
    std::size_t j = 0;
    for (; j + Rows <= rows; j += Rows) {
      tile<W, Rows>(f, f.a + j * f.row, f.b + n, start != nullptr ? start + j : nullptr, out + j * out_stride + n,
                    out_stride);
    }
    last_rows<W, Rows - 1>(rows - j, f, f.a + j * f.row, f.b + n, start != nullptr ? start + j : nullptr,
                           out + j * out_stride + n, out_stride);
  }
}

using Tiles = void (*)(const Factors& f, const float* start, std::size_t rows, std::size_t columns, float* out,
                       std::size_t out_stride);

#define AVISTAN_TILES(name, target, W, Rows)                                                                    \
  target void name##_by_columns(const Factors& f, const float* start, std::size_t rows, std::size_t columns,    \
                                float* out, std::size_t out_stride) {                                           \
    all_tiles<W, Rows, false>(f, start, rows, columns, out, out_stride);                                        \
  }                                                                                                             \
  target void name##_by_rows(const Factors& f, const float* start, std::size_t rows, std::size_t columns,       \
                             float* out, std::size_t out_stride) {                                              \
    all_tiles<W, Rows, true>(f, start, rows, columns, out, out_stride);                                         \
  }

// As many rows as leave registers for two vectors of columns and one broadcast number.
AVISTAN_TILES(plain, , 4, 6)
#if defined(AVISTAN_X86_LEVELS)
AVISTAN_TILES(v3, __attribute__((target("arch=x86-64-v3"))), 8, 6)
AVISTAN_TILES(v4, __attribute__((target("arch=x86-64-v4"))), 16, 12)
#endif
#undef AVISTAN_TILES

struct Kernels {
  Tiles by_columns, by_rows;
};

// Those for this machine.
const Kernels& kernels() {
  static const Kernels chosen = [] {
#if defined(AVISTAN_X86_LEVELS)
    if (__builtin_cpu_supports("x86-64-v4")) return Kernels{v4_by_columns, v4_by_rows};
    if (__builtin_cpu_supports("x86-64-v3")) return Kernels{v3_by_columns, v3_by_rows};
#endif
    return Kernels{plain_by_columns, plain_by_rows};
  }();
  return chosen;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define AVISTAN_SHUFFLES
#endif
#endif

}  // namespace

void product_of_transpose(Matrix a, Matrix b, const float* start, std::size_t inner, std::size_t rows,
                          std::size_t columns, float* out, std::size_t out_stride) {
  kernels().by_columns({a.values, a.stride, 1, b.values, b.stride, inner}, start, rows, columns, out, out_stride);
}

void product(Matrix a, Matrix b, const float* start, std::size_t inner, std::size_t rows, std::size_t columns,
             float* out, std::size_t out_stride) {
  kernels().by_rows({a.values, 1, a.stride, b.values, b.stride, inner}, start, rows, columns, out, out_stride);
}

void transpose(Matrix a, std::size_t rows, std::size_t columns, float* out, std::size_t out_stride) {
  std::size_t j = 0;
#if defined(AVISTAN_SHUFFLES)
  using Four = Lanes<4>;
  for (; j + 4 <= rows; j += 4) {
    const float* in = a.values + j * a.stride;
    const auto row = [&](std::size_t i, std::size_t n) {
      return *reinterpret_cast<const Four*>(in + i * a.stride + n);
    };
    std::size_t n = 0;
    for (; n + 4 <= columns; n += 4) {
      const Four r0 = row(0, n), r1 = row(1, n), r2 = row(2, n), r3 = row(3, n);
      const Four s0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), s1 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
      const Four s2 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), s3 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      float* to = out + n * out_stride + j;
      *reinterpret_cast<Four*>(to) = __builtin_shufflevector(s0, s2, 0, 1, 4, 5);
      *reinterpret_cast<Four*>(to + out_stride) = __builtin_shufflevector(s0, s2, 2, 3, 6, 7);
      *reinterpret_cast<Four*>(to + 2 * out_stride) = __builtin_shufflevector(s1, s3, 0, 1, 4, 5);
      *reinterpret_cast<Four*>(to + 3 * out_stride) = __builtin_shufflevector(s1, s3, 2, 3, 6, 7);
    }
    for (; n < columns; ++n) {
      for (std::size_t i = 0; i < 4; ++i) out[n * out_stride + j + i] = in[i * a.stride + n];
    }
  }
#endif
  for (; j < rows; ++j) {
    for (std::size_t n = 0; n < columns; ++n) out[n * out_stride + j] = a.values[j * a.stride + n];
  }
}

}  // namespace avistan
