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
// out = weight scale in[n stride]
void take(const double* in, std::ptrdiff_t stride, double weight, const double* scale, bool own, std::size_t count,
          float* out);
// z = e^g z with g = range tanh(raw / range), of which `scale` is e^g, `bend` the slope of g, and `moved` is z. Returns the
// sum of g.
double grow(const double* raw, double range, std::size_t count, float* scale, float* bend, double* z, float* moved);
// p -= a b
void subtract_products(const double* a, const float* b, std::size_t count, float* p);
void subtract_products(const float* a, const float* b, std::size_t count, float* p);
// p = p / sd
void divide(const float* sd, std::size_t count, float* p);
// v += weight p; of_loc += v; of_log_sd += v sd e
void add_to_gradient(const float* p, const float* sd, const float* e, float weight, std::size_t count, float* v,
                     float* of_loc, float* of_log_sd);
// p = p / scale; of_raw = bend (moved p - 1)
void pull_through_scale(const float* scale, const float* bend, const float* moved, std::size_t count, float* p,
                        float* of_raw);
// of_noise = v scale; of_raw = v bend moved
void through_scale(const float* v, const float* scale, const float* bend, const float* moved, std::size_t count,
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
