// Steps of training without leaving C++: of a table of parameters, and of a network that gives them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "step.h"

namespace avistan {

// Adam as in `optimizer.guarded_adam`, in place.
struct Adam {
  const double* rate;   // (steps,) of each step
  float* first;         // moments, in the order loc, log_sd, below, locals, map, warp, curve, weights
  float* second_root;
  std::int64_t* steps;  // done so far
};

// Draws of each step, and what is reported of it.
struct Course {
  std::uint64_t key;
  std::size_t draws;
  std::size_t steps;
  std::size_t stride;      // every so many steps the parameters count for their mean; 0: never
  double* sum;             // (parameters,) in the order of the moments, added to
  double* elbo;            // (steps,)
  std::int32_t* rejected;  // (steps,)
};

// Steps of F-VI. Moves parameters and moments in place.
struct TableRun {
  Form form;
  Frame frame;
  Parts<double, double> parameters;
  Adam adam;
  Course course;
  std::int64_t slot;
};

// Steps of A-VI on the whole model or on batches. Of `parameters`, `locals` is the start that the network adds to its
// outputs, (rows,).
struct NetworkRun {
  Form form;
  Frame frame;
  Parts<double, double> parameters;
  Adam adam;
  Course course;
  std::size_t inputs;          // R
  std::size_t layers;          // at least 2
  const std::size_t* outputs;  // (layers,)
  bool skip;
  float* weights;                     // as `NetworkShape` has them
  const std::int64_t* slots;          // (steps,) of each step's batch
  const float* const* unit_inputs;    // (steps,) of that batch: (units, R)
  const std::int64_t* other_slots;    // (terms - 1,) densities of the globals alone
  const double* term_weights;         // (terms,): the batch's first
  std::size_t terms;
};

Result train_table(const TableRun& run);
Result train_network(const NetworkRun& run);

// Only the passes of the network, for `columns` units of the first step, so many times; for benchmarks.
void run_passes(const NetworkRun& run, std::size_t threads, std::size_t repeats);

}  // namespace avistan
