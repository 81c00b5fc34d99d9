#include "training.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "estimate.h"
#include "kernels.h"
#include "network.h"

namespace avistan {
namespace {

constexpr double kFirstDecay = 0.9, kSecondDecay = 0.99, kLimit = 10.0;  // of Adam, as in `optimizer.guarded_adam`
constexpr double kNetworkRate = 0.25;  // of a network's weights, as there

// Of the next step.
AdamScales scales_of(const Adam& adam, double rate) {
  const double number = static_cast<double>(*adam.steps + 1);
  AdamScales scales{};
  scales.first_decay = kFirstDecay;
  scales.second_decay = kSecondDecay;
  scales.first_scale = static_cast<float>(1.0 / (1.0 - std::pow(kFirstDecay, number)));
  scales.root_scale = static_cast<float>(std::sqrt(1.0 / (1.0 - std::pow(kSecondDecay, number))));
  scales.bound_scale = static_cast<float>(
      kLimit * std::sqrt(1.0 / (1.0 - std::pow(kSecondDecay, std::max(number - 1.0, 1.0)))));
  scales.rate = rate;
  return scales;
}

// Parameters and where their moments begin.
struct Segment {
  double* values;
  std::size_t size, moment;
};
using Segments = std::array<Segment, 7>;
constexpr std::size_t kLocals = 3;

// All but the locals, whose gradients lie one after the other.
void move_globals(const Adam& state, const AdamScales& scales, const float* gradient, const Segments& segments) {
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& part = segments[i];
    if (i == kLocals || part.size == 0) continue;
    adam(scales, gradient, part.size, state.first + part.moment, state.second_root + part.moment, part.values);
    gradient += part.size;
  }
}

NetworkShape shape_of(const NetworkRun& run) {
  return {run.inputs, run.layers, run.outputs, run.skip, run.form.block};
}

bool counts(const Course& course, std::size_t step) { return course.stride != 0 && (step + 1) % course.stride == 0; }

void add_to_sum(const Segments& segments, double* sum) {
  for (const Segment& part : segments) {
    for (std::size_t n = 0; n < part.size; ++n) *sum++ += part.values[n];
  }
}

}  // namespace

Result train_table(const TableRun& run) {
  const Form& form = run.form;
  Result result{};
  const double weight = 1.0;
  const std::vector<Lease> leases = lease(form, &run.slot, 1, result);
  if (result.outcome != Outcome::done) return result;
  const Layout& layout = *leases[0]->layout;
  const double log_scales = sum_of_log_scales(run.frame, form, layout.units);
  const Parts<const double, const double> parameters{run.parameters.loc, run.parameters.log_sd, run.parameters.below,
                                                     run.parameters.locals, run.parameters.map,
                                                     run.parameters.warp, run.parameters.curve};
  // Parameters and moments in one order.
  const std::size_t G = form.globals, B = form.global_below(), L = form.rows() * form.columns;
  const std::size_t M = form.map_size(), F = form.global_warp(), C = form.curve_size();
  std::vector<double> global_gradient(2 * G + B + M + F + C);
  double* const of_loc = global_gradient.data();
  std::vector<float> rounded(global_gradient.size());
  const Segments segments = {{{run.parameters.loc, G, 0},
                              {run.parameters.log_sd, G, G},
                              {run.parameters.below, B, 2 * G},
                              {run.parameters.locals, L, 2 * G + B},
                              {run.parameters.map, M, 2 * G + B + L},
                              {run.parameters.warp, F, 2 * G + B + L + M},
                              {run.parameters.curve, C, 2 * G + B + L + M + F}}};
  for (std::size_t i = 0; i < run.course.steps; ++i) {
    const Draw draw{&run.slot, &weight, 1, run.course.key, static_cast<std::uint64_t>(*run.adam.steps),
                    run.course.draws};
    Step<double> step(form, run.frame, parameters, draw, layout, leases[0]->threads, log_scales);
    const Estimate estimate = step.evaluate_draws(leases);
    if (estimate.result.outcome != Outcome::done) return estimate.result;
    run.course.elbo[i] = estimate.elbo;
    run.course.rejected[i] = estimate.rejected;
    const AdamScales scales = scales_of(run.adam, step.any_accepted() ? run.adam.rate[i] : 0.0);
    float* const first_moments = run.adam.first + segments[kLocals].moment;
    float* const roots = run.adam.second_root + segments[kLocals].moment;
    if (!step.move_diagonal(scales, first_moments, roots, run.parameters.locals)) {
      step.locals([&](std::size_t row, std::size_t first, std::size_t count, const float* gradient) {
        const std::size_t at = row * form.columns + first;
        adam(scales, gradient, count, first_moments + at, roots + at, run.parameters.locals + at);
      });
    }
    step.globals(of_loc, of_loc + G, of_loc + 2 * G, of_loc + 2 * G + B, of_loc + 2 * G + B + M,
                 of_loc + 2 * G + B + M + F);
    std::copy(global_gradient.begin(), global_gradient.end(), rounded.begin());
    move_globals(run.adam, scales, rounded.data(), segments);
    ++*run.adam.steps;
    if (counts(run.course, i)) add_to_sum(segments, run.course.sum);
  }
  return {Outcome::done, 0, 0};
}

Result train_network(const NetworkRun& run) {
  const Form& form = run.form;
  const std::size_t G = form.globals, B = form.global_below(), P = form.rows();
  const std::size_t M = form.map_size(), F = form.global_warp(), C = form.curve_size();
  const NetworkShape shape = shape_of(run);
  const std::size_t Q = shape.num_weights();
  const Segments segments = {{{run.parameters.loc, G, 0},
                              {run.parameters.log_sd, G, G},
                              {run.parameters.below, B, 2 * G},
                              {run.parameters.locals, P, 2 * G + B},
                              {run.parameters.map, M, 2 * G + B + P},
                              {run.parameters.warp, F, 2 * G + B + P + M},
                              {run.parameters.curve, C, 2 * G + B + P + M + F}}};
  const std::size_t weights_at = 2 * G + B + P + M + F + C;
  std::vector<double> global_gradient(2 * G + B + M + F + C);
  double* const of_loc = global_gradient.data();
  std::vector<float> rounded(global_gradient.size()), of_start(P), of_weights(Q);
  std::vector<float> nu(P * form.columns), of_nu(P * form.columns);
  std::vector<std::int64_t> slots(run.terms);
  std::copy_n(run.other_slots, run.terms - 1, slots.begin() + 1);
  NetworkPasses passes;
  const Parts<const double, const float> parameters{run.parameters.loc, run.parameters.log_sd, run.parameters.below,
                                                    nu.data(), run.parameters.map, run.parameters.warp,
                                                    run.parameters.curve};
  for (std::size_t i = 0; i < run.course.steps; ++i) {
    slots[0] = run.slots[i];
    Result result{};
    const std::vector<Lease> leases = lease(form, slots.data(), run.terms, result);
    if (result.outcome != Outcome::done) return result;
    const Layout& layout = *leases[0]->layout;
    const std::size_t threads = leases[0]->threads;
    passes.forward(shape, run.weights, run.parameters.locals, run.unit_inputs[i], layout.units, form.columns, threads,
                   nu.data());
    const Draw draw{slots.data(), run.term_weights, run.terms, run.course.key,
                    static_cast<std::uint64_t>(*run.adam.steps), run.course.draws};
    Step<float> step(form, run.frame, parameters, draw, layout, threads,
                     sum_of_log_scales(run.frame, form, layout.units));
    const Estimate estimate = step.evaluate_draws(leases);
    if (estimate.result.outcome != Outcome::done) return estimate.result;
    run.course.elbo[i] = estimate.elbo;
    run.course.rejected[i] = estimate.rejected;
    step.locals([&](std::size_t row, std::size_t first, std::size_t count, const float* gradient) {
      std::copy_n(gradient, count, of_nu.data() + row * form.columns + first);
    });
    step.globals(of_loc, of_loc + G, of_loc + 2 * G, of_loc + 2 * G + B, of_loc + 2 * G + B + M,
                 of_loc + 2 * G + B + M + F);
    passes.backward(of_nu.data(), of_weights.data(), of_start.data());
    AdamScales scales = scales_of(run.adam, step.any_accepted() ? run.adam.rate[i] : 0.0);
    std::copy(global_gradient.begin(), global_gradient.end(), rounded.begin());
    move_globals(run.adam, scales, rounded.data(), segments);
    const std::size_t start_at = segments[kLocals].moment;
    adam(scales, of_start.data(), P, run.adam.first + start_at, run.adam.second_root + start_at,
         run.parameters.locals);
    scales.rate *= kNetworkRate;
    adam(scales, of_weights.data(), Q, run.adam.first + weights_at, run.adam.second_root + weights_at, run.weights);
    ++*run.adam.steps;
    if (counts(run.course, i)) {
      add_to_sum(segments, run.course.sum);
      for (std::size_t n = 0; n < Q; ++n) run.course.sum[weights_at + n] += run.weights[n];
    }
  }
  return {Outcome::done, 0, 0};
}

void run_passes(const NetworkRun& run, std::size_t threads, std::size_t repeats) {
  const NetworkShape shape = shape_of(run);
  const std::size_t P = shape.num_outputs(), units = run.form.columns;
  std::vector<float> nu(P * units), of_nu(P * units, 1.0f), of_weights(shape.num_weights()), of_start(P);
  NetworkPasses passes;
  for (std::size_t i = 0; i < repeats; ++i) {
    passes.forward(shape, run.weights, run.parameters.locals, run.unit_inputs[0], units, units, threads, nu.data());
    passes.backward(of_nu.data(), of_weights.data(), of_start.data());
  }
}

}  // namespace avistan
