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
  std::vector<double> rest;              // (D,) values of all coordinates that draws leave; empty where they leave none

  // Positions that start at `start` and go on by `stride`; stride 0 where they do not.
  struct Run {
    std::int64_t start, stride;
  };
  Run global_run;
  std::vector<Run> runs;  // (d,), of each latent

  void find_runs() {
    global_run = run_of(global_at.data(), globals);
    runs.clear();
    for (std::size_t i = 0; i < block; ++i) runs.push_back(run_of(local_at.data() + i * units, units));
  }

 private:
  static Run run_of(const std::int64_t* at, std::size_t count) {
    Run run{count > 0 ? at[0] : 0, count > 1 ? at[1] - at[0] : 1};
    for (std::size_t n = 1; n < count; ++n) {
      if (at[n] - at[n - 1] != run.stride) run.stride = 0;
    }
    return run;
  }
};

}  // namespace avistan
