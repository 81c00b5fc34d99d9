// The network of an inference function, `inference_functions.MLP`: its outputs for all units and their derivative in
// its weights, a stretch of units at a time.
//
//     h_0 = x,  h_l = silu(W_l' h_(l-1) + b_l),  nu = W' h_L + b + A' x + start,  log sds of nu 10 tanh(. / 10)
//
// A unit's numbers lie together, as rows, and layers are products of rows with weights: what one pass writes, the other
// reads without turning it. Every row of h ends in a 1, so that b is one more row of W; after that of h_L comes x, so
// that b and A are more rows of the last W. A stretch gives the same numbers on any thread; gradients of the weights are
// added up in groups of stretches whose number and order depend on the number of units alone.
#pragma once

#include <cstddef>
#include <vector>

#include "aligned.h"
#include "matrix.h"

namespace avistan {

// Weights lie layer by layer, W (inputs, outputs) before b, then A (R, outputs) where `skip`.
struct NetworkShape {
  std::size_t inputs;          // R
  std::size_t layers;          // at least 2
  const std::size_t* outputs;  // (layers,) of each
  bool skip;
  std::size_t block;  // d: outputs d .. 2 d - 1 are log sds

  std::size_t num_outputs() const { return outputs[layers - 1]; }
  std::size_t num_weights() const {
    std::size_t total = skip ? inputs * num_outputs() : 0, before = inputs;
    for (std::size_t l = 0; l < layers; ++l) {
      total += (before + 1) * outputs[l];
      before = outputs[l];
    }
    return total;
  }
};

// The passes of one step.
class NetworkPasses {
 public:
  // Outputs of units (units, R) to rows of `nu`, (outputs, columns).
  void forward(const NetworkShape& shape, const float* weights, const double* start, const float* inputs,
               std::size_t units, std::size_t columns, std::size_t threads, float* nu);

  // Gradients of the weights, and of `start` (outputs,), from those of the outputs of the last forward pass.
  void backward(const float* of_nu, float* of_weights, float* of_start);

 private:
  // A hidden layer in what is kept of a stretch: rows of h, `stride` apart, then slopes of silu, whole_tiles(w) apart.
  struct Hidden {
    std::size_t at, stride, slope_at;
  };

  std::size_t width_below(std::size_t layer) const { return layer > 0 ? shape_.outputs[layer - 1] : shape_.inputs; }
  Matrix below(std::size_t layer, const float* kept) const;  // rows that the layer reads
  std::size_t stretches() const;
  std::size_t numbers() const;
  std::size_t group_size() const;
  void pack();
  void forward_stretch(std::size_t stretch, float* kept, float* nu) const;
  void backward_group(std::size_t group, const float* of_nu);
  void backward_stretch(std::size_t stretch, const float* kept, const float* of_nu, bool add, float* sums) const;
  float* kept_of(std::size_t stretch, AlignedVector<float>& scratch) const;
  void collect(float* of_weights, float* of_start) const;

  NetworkShape shape_{};
  const float *weights_ = nullptr, *inputs_ = nullptr;
  const float* nu_ = nullptr;
  std::size_t units_ = 0, columns_ = 0, threads_ = 1;
  std::size_t kept_size_ = 0, sums_size_ = 0;
  bool keep_ = true;
  std::vector<std::size_t> weights_at_;             // of each layer, and of A
  std::vector<Hidden> hidden_;                      // (layers - 1,)
  std::vector<std::size_t> packed_at_, turned_at_;  // of each layer in `packed_`
  std::vector<std::size_t> sums_at_;                // of each layer in a group's sums
  std::vector<float> start_;
  AlignedVector<float> packed_;  // W and b of hidden layers in whole tiles; W' of all but the first
  AlignedVector<float> kept_, sums_;
};

}  // namespace avistan
