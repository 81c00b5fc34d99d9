#include "network.h"

#include <algorithm>
#include <cmath>

#include "clones.h"
#include "elementary.h"
#include "kernels.h"
#include "matrix.h"
#include "parallel.h"

namespace avistan {
namespace {

constexpr std::size_t kUnits = 64;            // of a stretch: what a layer reads and writes stays in cache
constexpr std::size_t kStride = kUnits + 16;  // between rows of outputs: they fall into different cache sets
constexpr std::size_t kGroups = 64;            // most groups of stretches
constexpr std::size_t kMostKept = 4u << 20;    // numbers; beyond, the backward pass computes the hidden layers again
constexpr float kRange = 10.0f;                // of log sds, as in `inference_functions`

Pace pace_of_forward, pace_of_backward;

// h = silu(a) in place, with its slope; `columns` is a multiple of kTile.
AVISTAN_CLONES
void silu(std::size_t rows, std::size_t columns, float* __restrict__ h, std::size_t stride,
          float* __restrict__ slope) {
  for (std::size_t n = 0; n < rows; ++n) {
    for (std::size_t at = 0; at < columns; at += kTile) {
      float *const a = h + n * stride + at, *const out = slope + n * columns + at;
      for (std::size_t j = 0; j < kTile; ++j) {
        const float s = 1.0f / (1.0f + exponential(-a[j])), value = a[j] * s;
        a[j] = value;
        out[j] = s + value * (1.0f - s);
      }
    }
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
void add_up(const float* a, std::size_t count, float* sum) {
  for (std::size_t n = 0; n < count; ++n) sum[n] += a[n];
}

// A few numbers, for which a call would cost more.
inline void copy(const float* from, std::size_t count, float* to) {
  for (std::size_t i = 0; i < count; ++i) to[i] = from[i];
}

}  // namespace

std::size_t NetworkPasses::stretches() const { return (units_ + kUnits - 1) / kUnits; }
std::size_t NetworkPasses::numbers() const { return units_ * kept_size_ / kUnits; }
std::size_t NetworkPasses::group_size() const { return std::max<std::size_t>((stretches() + kGroups - 1) / kGroups, 1); }

Matrix NetworkPasses::below(std::size_t layer, const float* kept) const {
  if (layer == 0) return {kept, shape_.inputs + 1};
  return {kept + hidden_[layer - 1].at, hidden_[layer - 1].stride};
}

float* NetworkPasses::kept_of(std::size_t stretch, AlignedVector<float>& scratch) const {
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
  sums_at_.assign(1, 0);
  hidden_.clear();
  kept_size_ = kUnits * (R + 1);
  for (std::size_t l = 0; l < shape.layers; ++l) {
    const std::size_t w = shape.outputs[l], before = width_below(l);
    weights_at_.push_back(weights_at_.back() + (before + 1) * w);
    if (l == last) break;
    const std::size_t stride = whole_tiles(l + 1 < last ? w + 1 : w + 1 + R);
    hidden_.push_back({kept_size_, stride, kept_size_ + kUnits * stride});
    kept_size_ += kUnits * (stride + whole_tiles(w));
    sums_at_.push_back(sums_at_.back() + (before + 1) * whole_tiles(w));
  }
  sums_size_ = sums_at_.back() + P * hidden_.back().stride;
  start_.assign(start, start + P);
  pack();
  keep_ = stretches() * kept_size_ <= kMostKept;
  if (keep_) kept_.resize(std::max(kept_.size(), stretches() * kept_size_));
  for_each(pace_of_forward, stretches(), numbers(), threads_, [this, nu](std::size_t stretch) {
    thread_local AlignedVector<float> scratch;
    forward_stretch(stretch, kept_of(stretch, scratch), nu);
  });
}

void NetworkPasses::pack() {
  packed_at_.clear();
  turned_at_.assign(1, 0);
  std::size_t size = 0;
  for (std::size_t l = 0; l < shape_.layers; ++l) {
    packed_at_.push_back(size);
    if (l + 1 < shape_.layers) size += (width_below(l) + 1) * whole_tiles(shape_.outputs[l]);
    if (l > 0) turned_at_.push_back(size);
    if (l > 0) size += shape_.outputs[l] * whole_tiles(width_below(l));
  }
  packed_.assign(size, 0.0f);
  for (std::size_t l = 0; l < shape_.layers; ++l) {
    const std::size_t w = shape_.outputs[l], before = width_below(l);
    const float* weights = weights_ + weights_at_[l];
    for (std::size_t k = 0; l + 1 < shape_.layers && k <= before; ++k) {
      std::copy_n(weights + k * w, w, packed_.data() + packed_at_[l] + k * whole_tiles(w));
    }
    if (l > 0) transpose({weights, w}, before, w, packed_.data() + turned_at_[l], whole_tiles(before));
  }
}

// Without `nu` only the hidden layers.
void NetworkPasses::forward_stretch(std::size_t stretch, float* kept, float* nu) const {
  const std::size_t R = shape_.inputs, P = shape_.num_outputs(), last = shape_.layers - 1;
  const std::size_t n0 = stretch * kUnits, m = std::min(kUnits, units_ - n0), whole = whole_tiles(m);
  const float* x = inputs_ + n0 * R;
  for (std::size_t n = 0; n < m; ++n) {
    copy(x + n * R, R, kept + n * (R + 1));
    kept[n * (R + 1) + R] = 1.0f;
  }
  for (std::size_t l = 0; l < last; ++l) {
    const std::size_t w = shape_.outputs[l], stride = hidden_[l].stride;
    float* h = kept + hidden_[l].at;
    product(below(l, kept), {packed_.data() + packed_at_[l], whole_tiles(w)}, false, width_below(l) + 1, m,
            whole_tiles(w), h, stride);
    silu(m, whole_tiles(w), h, stride, kept + hidden_[l].slope_at);
    for (std::size_t n = 0; n < m; ++n) {
      h[n * stride + w] = 1.0f;
      if (l + 1 == last) copy(x + n * R, R, h + n * stride + w + 1);
    }
  }
  if (nu == nullptr) return;
  const Matrix h = below(last, kept);
  const std::size_t inner = width_below(last) + 1 + (shape_.skip ? R : 0);
  thread_local AlignedVector<float> turned, out;
  turned.resize(std::max(turned.size(), inner * kStride));
  out.resize(std::max(out.size(), P * kStride));
  transpose(h, m, inner, turned.data(), kStride);
  product_of_transpose({weights_ + weights_at_[last], P}, {turned.data(), kStride}, false, inner, P, whole, out.data(),
                       kStride);
  for (std::size_t p = 0; p < P; ++p) {
    float* row = out.data() + p * kStride;
    for (std::size_t n = 0; n < m; ++n) row[n] += start_[p];
    if (p >= shape_.block && p < 2 * shape_.block) bound(m, row);
    std::copy_n(row, m, nu + p * columns_ + n0);
  }
}

void NetworkPasses::backward(const float* of_nu, float* of_weights, float* of_start) {
  const std::size_t groups = std::max<std::size_t>((stretches() + group_size() - 1) / group_size(), 1);
  sums_.resize(std::max(sums_.size(), groups * sums_size_));
  for_each(pace_of_backward, groups, numbers(), threads_, [this, of_nu](std::size_t group) { backward_group(group, of_nu); });
  for (std::size_t group = 1; group < groups; ++group) add_up(sums_.data() + group * sums_size_, sums_size_, sums_.data());
  collect(of_weights, of_start);
}

void NetworkPasses::backward_group(std::size_t group, const float* of_nu) {
  thread_local AlignedVector<float> scratch;
  const std::size_t end = std::min((group + 1) * group_size(), stretches());
  for (std::size_t stretch = group * group_size(); stretch < end; ++stretch) {
    float* kept = kept_of(stretch, scratch);
    if (!keep_) forward_stretch(stretch, kept, nullptr);
    backward_stretch(stretch, kept, of_nu, stretch > group * group_size(), sums_.data() + group * sums_size_);
  }
}

void NetworkPasses::backward_stretch(std::size_t stretch, const float* kept, const float* of_nu, bool add,
                                     float* sums) const {
  const std::size_t P = shape_.num_outputs(), last = shape_.layers - 1;
  const std::size_t n0 = stretch * kUnits, m = std::min(kUnits, units_ - n0);
  std::size_t widest = 0;
  for (std::size_t l = 0; l < last; ++l) widest = std::max(widest, whole_tiles(shape_.outputs[l]));
  thread_local AlignedVector<float> of_outputs, above, here;
  of_outputs.resize(std::max(of_outputs.size(), P * kStride));
  above.resize(std::max(above.size(), kUnits * widest));
  here.resize(std::max(here.size(), kUnits * widest));
  for (std::size_t p = 0; p < P; ++p) {
    const float* g = of_nu + p * columns_ + n0;
    float* to = of_outputs.data() + p * kStride;
    if (p >= shape_.block && p < 2 * shape_.block) {
      through_bound(g, nu_ + p * columns_ + n0, m, to);
    } else {
      std::copy_n(g, m, to);
    }
  }
  const Matrix top = below(last, kept);
  product({of_outputs.data(), kStride}, top, add, m, P, top.stride, sums + sums_at_[last], top.stride);
  for (std::size_t l = last; l-- > 0;) {
    const std::size_t w = shape_.outputs[l], whole = whole_tiles(w);
    const Matrix turned{packed_.data() + turned_at_[l + 1], whole};
    const float* slope = kept + hidden_[l].slope_at;
    if (l + 1 == last) {
      product_of_transpose({of_outputs.data(), kStride}, turned, false, P, m, whole, here.data(), whole, slope);
    } else {
      const std::size_t outputs = shape_.outputs[l + 1];
      product({above.data(), whole_tiles(outputs)}, turned, false, outputs, m, whole, here.data(), whole, slope);
    }
    product_of_transpose(below(l, kept), {here.data(), whole}, add, m, width_below(l) + 1, whole, sums + sums_at_[l],
                         whole);
    std::swap(above, here);
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
  const std::size_t stride = hidden_.back().stride;
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
