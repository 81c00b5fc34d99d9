// Loops over the units of one stretch of memory, each compiled for several vector units.
#pragma once

#include <cstddef>

namespace avistan {

// z = loc + sd e
void put_mean_and_noise(const double* loc, const float* sd, const float* e, std::size_t count, double* z);
void put_mean_and_noise(const float* loc, const float* sd, const float* e, std::size_t count, double* z);
// z = sd e
void put_noise(const float* sd, const float* e, std::size_t count, double* z);
// z += a b
void add_products(const double* a, const float* b, std::size_t count, double* z);
void add_products(const float* a, const float* b, std::size_t count, double* z);
// z += a x
void add_multiple(const double* a, double x, std::size_t count, double* z);
void add_multiple(const float* a, double x, std::size_t count, double* z);
// out[n stride] = center + scale z, with one centre and scale for all (`own` false) or one each
void place(const double* z, const double* center, const double* scale, bool own, std::size_t count, double* out,
           std::ptrdiff_t stride);
// out = center + scale (loc + sd e), one after the other
void place_diagonal(const double* loc, const float* sd, const float* e, const double* center, const double* scale,
                    bool own, std::size_t count, double* out);
void place_diagonal(const float* loc, const float* sd, const float* e, const double* center, const double* scale,
                    bool own, std::size_t count, double* out);
// out = weight scale in[n stride]
void take(const double* in, std::ptrdiff_t stride, double weight, const double* scale, bool own, std::size_t count,
          float* out);
// z = e^g z with g = range tanh(raw / range), shrink_range in place of range where raw is negative: `growth` is e^g,
// `slope` that of g, and `moved` the new z. Returns the sum of g.
double grow(const double* raw, double range, double shrink_range, std::size_t count, float* growth, float* slope,
            double* z, float* moved);
// p -= a b
void subtract_products(const double* a, const float* b, std::size_t count, float* p);
void subtract_products(const float* a, const float* b, std::size_t count, float* p);
// p = p / sd
void divide(const float* sd, std::size_t count, float* p);
// v += weight p; of_loc += v; of_log_sd += v sd e
void add_to_gradient(const float* p, const float* sd, const float* e, float weight, std::size_t count, float* v,
                     float* of_loc, float* of_log_sd);

constexpr float kMostSkew = 1.5f, kMostTail = 1.0f;  // of a flow's numbers, as in flows.py
inline float slope_of_skew(float skew) { return 1.0f - skew / kMostSkew * (skew / kMostSkew); }
inline float slope_of_tail(float log_tail) { return 1.0f - log_tail / kMostTail * (log_tail / kMostTail); }

// The numbers of a flow, entry by entry and flattened: epsilon, log delta, delta, sinh and cosh of epsilon.
struct FlowNumbers {
  float *skew, *log_tail, *tail, *sinh, *cosh;
};
void flatten_numbers(const double* skew, const double* log_tail, std::size_t count, const FlowNumbers& out);
void flatten_numbers(const float* skew, const float* log_tail, std::size_t count, const FlowNumbers& out);
// A flow T at r: its slope and curvature, and in sds the derivatives by the entry's log sd, epsilon and log delta.
struct FlowPoint {
  float *slope, *curvature, *by_log_sd, *by_skew, *by_tail;
};
// z = sd T(z / sd), z the noise of entries whose own normals are e. Returns the sum of the log slopes.
double bend(const FlowNumbers& numbers, const float* sd, const float* e, std::size_t count, double* z,
            const FlowPoint& out);
// p = (p + curvature / sd) / slope
void pull_through_flow(const FlowPoint& at, const float* sd, std::size_t count, float* p);
// The derivatives by log sd, skew and tail += v sd times those of the flow; v becomes v slope.
void through_flow(const FlowPoint& at, const float* sd, std::size_t count, float* v, float* of_log_sd, float* of_skew,
                  float* of_tail);
// Derivatives by epsilon and log delta become those by the raw numbers.
void through_flattening(const FlowNumbers& numbers, std::size_t count, float* of_skew, float* of_tail);
// p = p / growth; of_raw = slope (moved p - 1)
void pull_through_growth(const float* growth, const float* slope, const float* moved, std::size_t count, float* p,
                         float* of_raw);
// of_noise = v growth; of_raw = v slope moved
void through_growth(const float* v, const float* growth, const float* slope, const float* moved, std::size_t count,
                    float* of_noise, float* of_raw);
// v += weight p; of_loc += v
void add_pull(const float* p, float weight, std::size_t count, float* v, float* of_loc);
// sum += a b c
void add_triple_products(const float* a, const float* b, const float* c, std::size_t count, float* sum);
// sum += a b
void add_float_products(const float* a, const float* b, std::size_t count, float* sum);
// sum += a x
void add_float_multiple(const float* a, float x, std::size_t count, float* sum);
// a x, in place
void multiply(float x, std::size_t count, float* a);
// Sums of a b, in a fixed order.
double sum_of_products(const float* a, const float* b, std::size_t count);
double sum_of_products(const double* a, const float* b, std::size_t count);
double sum(const double* a, std::size_t count);
double sum(const float* a, std::size_t count);

// What one step of Adam needs beside moments and gradient.
struct AdamScales {
  float first_decay, second_decay;
  float first_scale, root_scale;  // corrections for the start
  float bound_scale;              // an entry beyond this many root mean squares is shortened
  double rate;                    // 0 leaves the parameters as they are
};

// Ascends along `gradient`.
void adam(const AdamScales& scales, const float* gradient, std::size_t count, float* first, float* second_root,
          double* parameters);
void adam(const AdamScales& scales, const float* gradient, std::size_t count, float* first, float* second_root,
          float* parameters);

// The same for means and log sds of units with one draw, straight from Stan's gradient.
void diagonal_adam(const AdamScales& scales, const double* gradient, const double* scale, bool own, const float* sd,
                   const float* e, std::size_t count, float* loc_first, float* loc_root, double* loc,
                   float* log_sd_first, float* log_sd_root, double* log_sd);

}  // namespace avistan
