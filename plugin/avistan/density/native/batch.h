// Evaluates draws of registered models, spreading them over threads when that pays.
//
// Every function here writes all outputs and returns "", or says what is wrong and writes none of them. The numbers do not
// depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace avistan {

// Rows in the models' own order, each on its own slot.
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

std::string evaluate(const Batch& batch);

// Draws as globals and blocks of units; the slot's layout says where they lie in the model's vector.
struct BlockBatch {
  std::int64_t slot;
  std::size_t draws;       // S
  std::size_t globals;     // G
  std::size_t block;       // d, latents of a unit
  std::size_t columns;     // N: at least the units of the slot
  const double* theta;     // (S, G)
  const double* z;         // (S, d, N); not read where the slot has no units
  double* lp;              // (S,)
  double* theta_gradient;  // like theta
  double* z_gradient;      // like z: zero in the columns beyond the slot's units
  std::int32_t* status;    // (S,): 0 accepted, 1 rejected
};

std::string evaluate(const BlockBatch& batch);

}  // namespace avistan
