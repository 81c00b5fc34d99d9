// JAX's normals by number (threefry2x32 keys, double precision): those of `common_numbers`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace avistan {

// out[i] = normal number `numbers[i]` of the key whose words are `high` and `low`, up to rounding. Sources: Salmon,
// Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; Giles, "Approximating the erfinv
// function", GPU Computing Gems 2, 2012.
void common_normals(std::uint32_t high, std::uint32_t low, const std::int64_t* numbers, std::size_t count, double* out);

}  // namespace avistan
