// Products of small single-precision matrices, each compiled for several vector units; rows lie `stride` numbers apart.
#pragma once

#include <cstddef>

namespace avistan {

constexpr std::size_t kTile = 32;  // columns come in multiples of this: a whole number of any machine's vectors

constexpr std::size_t whole_tiles(std::size_t count) { return (count + kTile - 1) / kTile * kTile; }

struct Matrix {
  const float* values;
  std::size_t stride;
};

// out (rows, columns) = a' b, with a (inner, rows) and b (inner, columns), or added to it; then multiplied by `scale`,
// laid out as `out`, entry by entry, if there is one. `columns` is a multiple of kTile.
void product_of_transpose(Matrix a, Matrix b, bool add, std::size_t inner, std::size_t rows, std::size_t columns,
                          float* out, std::size_t out_stride, const float* scale = nullptr);

// The same for a b, with a (rows, inner).
void product(Matrix a, Matrix b, bool add, std::size_t inner, std::size_t rows, std::size_t columns, float* out,
             std::size_t out_stride, const float* scale = nullptr);

// out (columns, rows) = the transpose of a (rows, columns).
void transpose(Matrix a, std::size_t rows, std::size_t columns, float* out, std::size_t out_stride);

}  // namespace avistan
