// Where the globals and the locals of units lie in a model's unconstrained vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace avistan {

struct Layout {
  std::size_t globals;                   // G
  std::size_t block;                     // d, latents of a unit
  std::size_t units;                     // M
  std::vector<std::int64_t> global_at;   // (G,)
  std::vector<std::int64_t> local_at;    // (d, M)
  std::vector<double> rest;              // (D,) values of all coordinates that are not set; empty where all are

  // Positions of one latent that start at `start` and go on by `stride`; stride 0 where they do not.
  struct Run {
    std::int64_t start, stride;
  };
  std::vector<Run> runs;  // (d,)

  void find_runs() {
    runs.clear();
    for (std::size_t i = 0; i < block; ++i) {
      const std::int64_t* at = local_at.data() + i * units;
      Run run{units > 0 ? at[0] : 0, units > 1 ? at[1] - at[0] : 1};
      for (std::size_t n = 1; n < units; ++n) {
        if (at[n] - at[n - 1] != run.stride) run.stride = 0;
      }
      runs.push_back(run);
    }
  }
};

}  // namespace avistan
