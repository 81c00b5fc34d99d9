// Evaluates a batch of rows, each on its own slot, spreading them over threads when that pays.
#pragma once

#include <cstddef>
#include <cstdint>

namespace avistan {

struct Batch {
  const std::int64_t* slots;  // (num_slots,)
  std::size_t num_slots;
  std::size_t rows_per_slot;
  std::size_t dim;
  const double* theta;    // (num_slots * rows_per_slot, dim), row-major
  double* lp;             // (num_slots * rows_per_slot,)
  double* grad;           // like theta
  std::int32_t* status;   // (num_slots * rows_per_slot,): 0 accepted, 1 rejected
};

enum class Outcome { done, closed_slot, wrong_dim, wrong_layout };

struct Result {
  Outcome outcome;
  std::int64_t slot;         // the slot at fault
  std::size_t expected_dim;  // for wrong_dim: the dimension of that slot
};

// Writes every output unless a slot is closed or of another dimension; then it writes none of them. The numbers do not
// depend on the number of threads.
Result evaluate(const Batch& batch);

}  // namespace avistan
