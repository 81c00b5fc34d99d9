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
    Type& operator*=(const Type& other) {
      for (int i = 0; i < W; ++i) lane[i] *= other.lane[i];
      return *this;
    }
    friend Type operator*(float x, const Type& a) {
      Type found;
      for (int i = 0; i < W; ++i) found.lane[i] = x * a.lane[i];
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
  const float* scale;  // null, or what every number of the result is multiplied by, laid out as the result
  float* result;
};

// A few rows and vectors of columns: sums stay in registers.
template <int W, int Rows, int Vectors>
AVISTAN_INLINE void tile(const Factors& f, const float* a, const float* b, bool add, float* out,
                         std::size_t out_stride) {
  Lanes<W> sum[Rows][Vectors] = {};
  const std::size_t step = f.step, row = f.row, b_stride = f.b_stride;
  const float* scale = f.scale == nullptr ? nullptr : f.scale + (out - f.result);
  for (std::size_t k = 0; k < f.inner; ++k) {
    Lanes<W> right[Vectors];
    AVISTAN_UNROLL
    for (int h = 0; h < Vectors; ++h) right[h] = *reinterpret_cast<const Lanes<W>*>(b + h * W);
    AVISTAN_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const float x = a[i * row];
      AVISTAN_UNROLL
      for (int h = 0; h < Vectors; ++h) sum[i][h] += x * right[h];
    }
    a += step;
    b += b_stride;
  }
  AVISTAN_UNROLL
  for (int i = 0; i < Rows; ++i) {
    AVISTAN_UNROLL
    for (int h = 0; h < Vectors; ++h) {
      Lanes<W>& to = *reinterpret_cast<Lanes<W>*>(out + i * out_stride + h * W);
      if (add) sum[i][h] += to;
      if (f.scale != nullptr) sum[i][h] *= *reinterpret_cast<const Lanes<W>*>(scale + i * out_stride + h * W);
      to = sum[i][h];
    }
  }
}

// Columns from n on in tiles of so many vectors; returns the first column that is left.
template <int W, int Rows, int Vectors>
AVISTAN_INLINE std::size_t row_of_tiles(const Factors& f, const float* a, bool add, std::size_t n,
                                        std::size_t columns, float* out, std::size_t out_stride) {
  for (; n + Vectors * W <= columns; n += Vectors * W) {
    tile<W, Rows, Vectors>(f, a, f.b + n, add, out + n, out_stride);
  }
  return n;
}

// The last rows, fewer than `Most`, with more vectors of columns where they are few: sums that wait for one another
// would not keep a processor busy.
template <int W, int Rows, int Most>
AVISTAN_INLINE void last_rows(std::size_t rows, const Factors& f, const float* a, bool add, std::size_t columns,
                              float* out, std::size_t out_stride) {
  if constexpr (Rows > 0) {
    if (rows == Rows) {
      std::size_t n = 0;
      if constexpr (2 * Rows <= Most) n = row_of_tiles<W, Rows, 4>(f, a, add, n, columns, out, out_stride);
      row_of_tiles<W, Rows, 2>(f, a, add, n, columns, out, out_stride);
    } else {
      last_rows<W, Rows - 1, Most>(rows, f, a, add, columns, out, out_stride);
    }
  }
}

template <int W, int Rows, bool by_rows>
AVISTAN_INLINE void all_tiles(Factors f, bool add, std::size_t rows, std::size_t columns, float* out,
                              std::size_t out_stride) {
  if (by_rows) {
    f.step = 1;
  } else {
    f.row = 1;
  }
  const std::size_t whole = rows / Rows * Rows;
  for (std::size_t n = 0; n < columns; n += 2 * W) {
    for (std::size_t j = 0; j < whole; j += Rows) {
      tile<W, Rows, 2>(f, f.a + j * f.row, f.b + n, add, out + j * out_stride + n, out_stride);
    }
  }
  last_rows<W, Rows - 1, Rows>(rows - whole, f, f.a + whole * f.row, add, columns, out + whole * out_stride,
                               out_stride);
}

using Tiles = void (*)(const Factors& f, bool add, std::size_t rows, std::size_t columns, float* out,
                       std::size_t out_stride);

#define AVISTAN_TILES(name, target, W, Rows)                                                                     \
  target void name##_by_columns(const Factors& f, bool add, std::size_t rows, std::size_t columns, float* out,   \
                                std::size_t out_stride) {                                                        \
    all_tiles<W, Rows, false>(f, add, rows, columns, out, out_stride);                                           \
  }                                                                                                              \
  target void name##_by_rows(const Factors& f, bool add, std::size_t rows, std::size_t columns, float* out,      \
                             std::size_t out_stride) {                                                           \
    all_tiles<W, Rows, true>(f, add, rows, columns, out, out_stride);                                            \
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

void product_of_transpose(Matrix a, Matrix b, bool add, std::size_t inner, std::size_t rows, std::size_t columns,
                          float* out, std::size_t out_stride, const float* scale) {
  const Factors factors{a.values, a.stride, 1, b.values, b.stride, inner, scale, out};
  kernels().by_columns(factors, add, rows, columns, out, out_stride);
}

void product(Matrix a, Matrix b, bool add, std::size_t inner, std::size_t rows, std::size_t columns, float* out,
             std::size_t out_stride, const float* scale) {
  const Factors factors{a.values, 1, a.stride, b.values, b.stride, inner, scale, out};
  kernels().by_rows(factors, add, rows, columns, out, out_stride);
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
