#include "network.h"

#include <algorithm>
#include <cmath>

#include "clones.h"
#include "elementary.h"
#include "kernels.h"
#include "matrix.h"
#include "normals.h"
#include "parallel.h"

namespace avistan {
namespace {

constexpr std::size_t kUnits = 128;            // of a stretch: what a layer reads and writes stays in cache
constexpr std::size_t kStride = kUnits + 16;   // between rows: rows of one column fall into different cache sets
constexpr std::size_t kGroups = 64;            // most groups of stretches
constexpr std::size_t kMostKept = 4u << 20;    // numbers; beyond, the backward pass computes the hidden layers again
constexpr float kRange = 10.0f;                // of log sds, as in `inference_functions`

Pace pace_of_forward, pace_of_backward;

// h = silu(a) in place, with its slope; `e` holds exp(a).
AVISTAN_CLONES
void silu(const float* __restrict__ e, std::size_t count, float* __restrict__ h, float* __restrict__ slope) {
  for (std::size_t n = 0; n < count; ++n) {
    const float s = e[n] / (1.0f + e[n]);
    h[n] *= s;
    slope[n] = s + h[n] * (1.0f - s);
  }
}

// a = kRange tanh(a / kRange)
AVISTAN_CLONES
void bound(std::size_t count, float* a) {
  for (std::size_t n = 0; n < count; ++n) a[n] = kRange * hyperbolic_tangent(a[n] / kRange);
}

// out = g times the slope of `bound` where its value was v
AVISTAN_CLONES
void through_bound(const float* g, const float* v, std::size_t count, float* out) {
  for (std::size_t n = 0; n < count; ++n) out[n] = g[n] * (1.0f - (v[n] / kRange) * (v[n] / kRange));
}

AVISTAN_CLONES
void multiply_by(const float* slope, std::size_t count, float* a) {
  for (std::size_t n = 0; n < count; ++n) a[n] *= slope[n];
}

AVISTAN_CLONES
void add(const float* a, std::size_t count, float* sum) {
  for (std::size_t n = 0; n < count; ++n) sum[n] += a[n];
}

}  // namespace

std::size_t NetworkPasses::stretches() const { return (units_ + kUnits - 1) / kUnits; }
std::size_t NetworkPasses::numbers() const { return units_ * kept_size_ / kStride; }
std::size_t NetworkPasses::group_size() const { return std::max<std::size_t>((stretches() + kGroups - 1) / kGroups, 1); }

float* NetworkPasses::kept_of(std::size_t stretch, std::vector<float>& scratch) const {
  if (keep_) return const_cast<float*>(kept_.data()) + stretch * kept_size_;
  scratch.resize(std::max(scratch.size(), kept_size_));
  return scratch.data();
}

void NetworkPasses::forward(const NetworkShape& shape, const float* weights, const double* start, const float* inputs,
                            std::size_t units, std::size_t columns, std::size_t threads, float* nu) {
  shape_ = shape;
  weights_ = weights;
  inputs_ = inputs;
  nu_ = nu;
  units_ = units;
  columns_ = columns;
  threads_ = threads;
  const std::size_t R = shape.inputs, P = shape.num_outputs(), last = shape.layers - 1;
  weights_at_.assign(1, 0);
  hidden_at_.clear();
  sums_at_.assign(1, 0);
  kept_size_ = (R + 1) * kStride;
  std::size_t widest = R, before = R;
  for (std::size_t l = 0; l < shape.layers; ++l) {
    const std::size_t w = shape.outputs[l];
    weights_at_.push_back(weights_at_.back() + (before + 1) * w);
    if (l < last) {
      hidden_at_.push_back(kept_size_);
      kept_size_ += (2 * w + 1) * kStride;  // h, a row of ones, and the slopes
      sums_at_.push_back(sums_at_.back() + (before + 1) * whole_tiles(w));
    }
    widest = std::max(widest, w);
    before = w;
  }
  sums_size_ = sums_at_.back() + P * whole_tiles(shape.outputs[last - 1] + 1 + R);
  zeros_.assign(widest, 0.0f);
  const float* bias = weights + weights_at_[last] + shape.outputs[last - 1] * P;
  start_.resize(P);
  for (std::size_t p = 0; p < P; ++p) start_[p] = bias[p] + static_cast<float>(start[p]);
  keep_ = stretches() * kept_size_ <= kMostKept;
  if (keep_) kept_.resize(std::max(kept_.size(), stretches() * kept_size_));
  for_each(pace_of_forward, stretches(), numbers(), threads_, [this, nu](std::size_t stretch) {
    thread_local std::vector<float> scratch;
    forward_stretch(stretch, kept_of(stretch, scratch), nu);
  });
}

// Without `nu` only the hidden layers.
void NetworkPasses::forward_stretch(std::size_t stretch, float* kept, float* nu) const {
  const std::size_t R = shape_.inputs, P = shape_.num_outputs(), last = shape_.layers - 1;
  const std::size_t n0 = stretch * kUnits, m = std::min(kUnits, units_ - n0), whole = whole_tiles(m);
  thread_local std::vector<float> out;
  out.resize(std::max({out.size(), P * kStride, kUnits}));
  transpose({inputs_ + n0 * R, R}, m, R, kept, kStride);
  std::fill_n(kept + R * kStride, kStride, 1.0f);
  const float* below = kept;
  std::size_t before = R;
  for (std::size_t l = 0; l < last; ++l) {
    const std::size_t w = shape_.outputs[l];
    const float* weights = weights_ + weights_at_[l];
    float *const h = kept + hidden_at_[l], *const slope = h + (w + 1) * kStride;
    product_of_transpose({weights, w}, {below, kStride}, weights + before * w, before, w, whole, h, kStride);
    for (std::size_t j = 0; j < w; ++j) {
      float* a = h + j * kStride;
      exponentials(a, whole, out.data());
      silu(out.data(), whole, a, slope + j * kStride);
    }
    std::fill_n(h + w * kStride, kStride, 1.0f);
    below = h;
    before = w;
  }
  if (nu == nullptr) return;
  product_of_transpose({weights_ + weights_at_[last], P}, {below, kStride}, start_.data(), before, P, whole, out.data(),
                       kStride);
  if (shape_.skip) {
    product_of_transpose({weights_ + weights_at_[last + 1], P}, {kept, kStride}, nullptr, R, P, whole, out.data(),
                         kStride);
  }
  for (std::size_t p = 0; p < P; ++p) {
    float* row = out.data() + p * kStride;
    if (p >= shape_.block && p < 2 * shape_.block) bound(m, row);
    std::copy_n(row, m, nu + p * columns_ + n0);
  }
}

void NetworkPasses::backward(const float* of_nu, float* of_weights, float* of_start) {
  const std::size_t groups = std::max<std::size_t>((stretches() + group_size() - 1) / group_size(), 1);
  sums_.assign(groups * sums_size_, 0.0f);
  for_each(pace_of_backward, groups, numbers(), threads_, [this, of_nu](std::size_t group) { backward_group(group, of_nu); });
  for (std::size_t group = 1; group < groups; ++group) add(sums_.data() + group * sums_size_, sums_size_, sums_.data());
  collect(of_weights, of_start);
}

void NetworkPasses::backward_group(std::size_t group, const float* of_nu) {
  thread_local std::vector<float> scratch;
  const std::size_t end = std::min((group + 1) * group_size(), stretches());
  for (std::size_t stretch = group * group_size(); stretch < end; ++stretch) {
    float* kept = kept_of(stretch, scratch);
    if (!keep_) forward_stretch(stretch, kept, nullptr);
    backward_stretch(stretch, kept, of_nu, sums_.data() + group * sums_size_);
  }
}

void NetworkPasses::backward_stretch(std::size_t stretch, const float* kept, const float* of_nu, float* sums) const {
  const std::size_t R = shape_.inputs, P = shape_.num_outputs(), last = shape_.layers - 1;
  const std::size_t n0 = stretch * kUnits, m = std::min(kUnits, units_ - n0), whole = whole_tiles(m);
  const std::size_t rows = std::max(P, zeros_.size());
  thread_local std::vector<float> above, here, turned;
  above.resize(std::max(above.size(), rows * kStride));
  here.resize(std::max(here.size(), rows * kStride));
  const std::size_t top = shape_.outputs[last - 1] + 1 + R;
  turned.resize(std::max(turned.size(), kUnits * whole_tiles(std::max(rows, top))));
  for (std::size_t p = 0; p < P; ++p) {
    const float* g = of_nu + p * columns_ + n0;
    float* to = above.data() + p * kStride;
    if (p >= shape_.block && p < 2 * shape_.block) {
      through_bound(g, nu_ + p * columns_ + n0, m, to);
    } else {
      std::copy_n(g, m, to);
    }
  }
  // The last layer and A: gradients (outputs, inputs), the last hidden layer, its row of ones and the unit's inputs.
  const std::size_t top_stride = whole_tiles(top), width = shape_.outputs[last - 1];
  const float* h = kept + hidden_at_[last - 1];
  transpose({h, kStride}, width + 1, m, turned.data(), top_stride);
  for (std::size_t n = 0; n < m; ++n) {
    std::copy_n(inputs_ + (n0 + n) * R, R, turned.data() + n * top_stride + width + 1);
  }
  product({above.data(), kStride}, {turned.data(), top_stride}, nullptr, m, P, top_stride, sums + sums_at_[last],
          top_stride);
  std::size_t outputs = P;
  for (std::size_t l = last; l-- > 0;) {
    const std::size_t w = shape_.outputs[l], before = l > 0 ? shape_.outputs[l - 1] : R, stride = whole_tiles(w);
    product({weights_ + weights_at_[l + 1], outputs}, {above.data(), kStride}, zeros_.data(), outputs, w, whole,
            here.data(), kStride);
    multiply_by(kept + hidden_at_[l] + (w + 1) * kStride, w * kStride, here.data());
    transpose({here.data(), kStride}, w, m, turned.data(), stride);
    product({l > 0 ? kept + hidden_at_[l - 1] : kept, kStride}, {turned.data(), stride}, nullptr, m, before + 1, stride,
            sums + sums_at_[l], stride);
    std::swap(above, here);
    outputs = w;
  }
}

// The sums of all groups in the order of the weights.
void NetworkPasses::collect(float* of_weights, float* of_start) const {
  const std::size_t R = shape_.inputs, P = shape_.num_outputs(), last = shape_.layers - 1;
  std::size_t before = R;
  for (std::size_t l = 0; l < last; ++l) {
    const std::size_t w = shape_.outputs[l], stride = whole_tiles(w);
    for (std::size_t k = 0; k <= before; ++k) {
      std::copy_n(sums_.data() + sums_at_[l] + k * stride, w, of_weights + weights_at_[l] + k * w);
    }
    before = w;
  }
  const std::size_t stride = whole_tiles(before + 1 + R);
  float *const of_last = of_weights + weights_at_[last], *const of_skip = of_weights + weights_at_[last + 1];
  for (std::size_t p = 0; p < P; ++p) {
    const float* sums = sums_.data() + sums_at_[last] + p * stride;
    for (std::size_t k = 0; k <= before; ++k) of_last[k * P + p] = sums[k];
    of_start[p] = sums[before];
    if (shape_.skip) {
      for (std::size_t r = 0; r < R; ++r) of_skip[r * P + p] = sums[before + 1 + r];
    }
  }
}

}  // namespace avistan
