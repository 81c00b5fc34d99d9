// Standard normals by number: the n-th normal of a stream depends on (key, step, stream, n) alone, so that any thread
// can make any part of them, and single-precision exponentials that vectorize.
#pragma once

#include <cstddef>
#include <cstdint>

namespace avistan {

// Normals are made in blocks of this many.
constexpr std::size_t kNormalBlock = 32;

// The start of a stream. Source: SplitMix64 of Steele, Lea & Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014, here as a hash of counters.
std::uint64_t stream_start(std::uint64_t key, std::uint64_t step, std::uint64_t stream);

// Normals first .. first + count - 1 of a stream; `first` is a multiple of kNormalBlock. Source: Box & Muller, Annals of
// Mathematical Statistics 1958.
void fill_normals(std::uint64_t start, std::size_t first, std::size_t count, float* out);

// out[i] = exp(in[i]), relative error below 3e-7; beyond +-87 it stays at the ends.
void exponentials(const double* in, std::size_t count, float* out);
void exponentials(const float* in, std::size_t count, float* out);

}  // namespace avistan
