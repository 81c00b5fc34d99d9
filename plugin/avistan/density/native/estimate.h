// One step's draws, Stan's gradients and the path derivative, a stretch of units at a time: what step.cpp and the
// training loops are made of. step.h has the formulas.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "normals.h"
#include "parallel.h"
#include "registry.h"
#include "step.h"

namespace avistan {

constexpr std::size_t kStretch = 512;  // units that are worked on together: their numbers stay in cache
constexpr double kHalfLog2Pi = 0.91893853320467274178;

// A flow of so many entries: its numbers, and where each draw has it.
class Flow {
 public:
  void resize(std::size_t entries, std::size_t draws) {
    entries_ = entries;
    memory_.resize(5 * entries * (draws + 1));
  }
  FlowNumbers numbers(std::size_t at) { return {part(0, at), part(1, at), part(2, at), part(3, at), part(4, at)}; }
  FlowPoint point(std::size_t draw, std::size_t at) {
    const std::size_t first = 5 * (draw + 1);
    return {part(first, at), part(first + 1, at), part(first + 2, at), part(first + 3, at), part(first + 4, at)};
  }

 private:
  float* part(std::size_t number, std::size_t at) { return memory_.data() + number * entries_ + at; }
  std::vector<float> memory_;
  std::size_t entries_ = 0;
};

// Memory that one step needs, kept from step to step.
struct Workspace {
  std::vector<float> noise;       // (draws, block, columns)
  std::vector<float> sd;          // (block, columns)
  std::vector<float> growth, growth_slope, moved;  // (draws, block, columns): e^g, the slope of g, e^g T_n(L_n e_n)
  std::vector<double> noise_of_globals, along, bends;   // (draws, G), (draws, K), (draws, H): slopes of the curved ones
  std::vector<double> theta, gradient, lp;              // (draws, D), (draws, D), (draws,) of the batch
  std::vector<double> base_theta, base_gradient, base_lp;  // of the other terms
  std::vector<std::int32_t> status, base_status;
  std::vector<double> global_gradient;  // (draws, G): of all terms, weighted
  std::vector<double> value;            // (draws,)
  std::vector<double> sums;             // (stretches, draws, 1 + 2 K): e'e / 2 + sum of g and log slopes, slopes and
                                        // rates times pull, the same times all
  std::vector<double> log_sds;          // (stretches,)
  std::vector<double> sd_of_globals, pull, back, toward;  // (G,), (G,), (K,), (K,)
  std::vector<float> normals_of_globals, float_sd_of_globals;  // (G,)
  std::vector<double> log_slopes;                         // (draws,): sums of the globals' flow
  Flow flow_of_globals, flow;                             // of G entries, and of (block, columns)
  std::vector<std::size_t> accepted;
};

inline Workspace& workspace() {
  thread_local Workspace kept;
  return kept;
}

inline Pace pace_of_draws, pace_of_gradients, pace_of_moves;

// Entry (i, j), j < i, of a strict lower triangle stored row by row.
constexpr std::size_t below_diagonal(std::size_t i, std::size_t j) { return i * (i - 1) / 2 + j; }

template <class LocalReal>
class Step {
 public:
  Step(const Form& form, const Frame& frame, const Parts<const double, const LocalReal>& parameters, const Draw& draw,
       const Layout& layout, std::size_t threads, double log_scales)
      : form_(form), frame_(frame), p_(parameters), draw_(draw), layout_(layout), threads_(threads),
        log_scales_(log_scales), w_(workspace()), stretches_((layout.units + kStretch - 1) / kStretch),
        sums_(1 + 2 * form.directions) {}

  // Draws and Stan's gradients; afterwards `estimate` holds the value.
  Estimate evaluate_draws(const std::vector<Lease>& leases) {
    const std::size_t draws = draw_.draws;
    resize(leases);
    put_globals();
    for_each(pace_of_draws, stretches_, draws * form_.block * layout_.units, threads_, [this](std::size_t i) { put_locals(i); });
    Estimate estimate{{Outcome::done, 0, 0}, 0.0, 0};
    estimate.result = evaluate_batch(leases);
    if (estimate.result.outcome == Outcome::done) estimate.result = add_base(leases);
    if (estimate.result.outcome != Outcome::done) return estimate;
    w_.accepted.clear();
    for (std::size_t s = 0; s < draws; ++s) {
      if (w_.status[s] == 0) w_.accepted.push_back(s);
    }
    estimate.rejected = static_cast<std::int32_t>(draws - w_.accepted.size());
    estimate.elbo = value();
    return estimate;
  }

  bool any_accepted() const { return !w_.accepted.empty(); }

  // Gradients of the locals, a stretch of units at a time: sink(row, first unit, count, gradient).
  template <class Sink>
  void locals(Sink sink) {
    for_each(pace_of_gradients, stretches_, draw_.draws * form_.rows() * layout_.units, threads_,
             [this, &sink](std::size_t i) { local_stretch(i, sink); });
  }

  // One step of Adam for all locals where nothing but Stan's gradient of one draw enters: false where more does.
  bool move_diagonal(const AdamScales& scales, float* first, float* second_root, double* parameters) {
    const bool contiguous = std::all_of(layout_.runs.begin(), layout_.runs.end(),
                                        [](const Layout::Run& run) { return run.stride == 1; });
    if (draw_.draws != 1 || !form_.diagonal() || !contiguous || w_.accepted.empty() || draw_.weights[0] != 1.0) {
      return false;
    }
    for_each(pace_of_moves, stretches_, form_.rows() * layout_.units, threads_, [&](std::size_t stretch) {
      const std::size_t n0 = first_unit(stretch), m = count(stretch);
      for (std::size_t i = 0; i < form_.block; ++i) {
        const std::size_t loc = i * form_.columns + n0, log_sd = (form_.block + i) * form_.columns + n0;
        diagonal_adam(scales, w_.gradient.data() + layout_.runs[i].start + n0, frame_.local_scale + frame_at(i, n0),
                      frame_.own, w_.sd.data() + loc, noise(0, i, n0), m, first + loc, second_root + loc,
                      parameters + loc, first + log_sd, second_root + log_sd, parameters + log_sd);
      }
    });
    return true;
  }

  // Gradients of the globals and of the directions; call after `locals`. Arrays as in Parts, of `double`.
  void globals(double* loc, double* log_sd, double* below, double* map, double* warp, double* curve) {
    const std::size_t G = form_.globals, straight = form_.straight();
    std::fill_n(loc, G, 0.0);
    std::fill_n(log_sd, G, 0.0);
    std::fill_n(below, form_.global_below(), 0.0);
    std::fill_n(map, form_.map_size(), 0.0);
    std::fill_n(curve, form_.curve_size(), 0.0);
    std::fill_n(warp, form_.global_warp(), 0.0);
    if (w_.accepted.empty()) return;
    const double share = 1.0 / static_cast<double>(w_.accepted.size());
    double *const pull = w_.pull.data(), *const back = w_.back.data(), *const toward = w_.toward.data();
    for (const std::size_t s : w_.accepted) {
      const double* t = w_.noise_of_globals.data() + s * G;
      sum_over_stretches(s, back, toward);
      through_curve(s, share, back, toward, curve);
      for (std::size_t g = 0; g < G; ++g) {
        pull[g] = t[g];
        if (!form_.mapped && straight > 0) pull[g] += back[g];
      }
      if (form_.mapped) {
        for (std::size_t k = 0; k < straight; ++k) {
          for (std::size_t g = 0; g < G; ++g) {
            pull[g] += back[k] * p_.map[k * G + g];
            map[k * G + g] += share * toward[k] * t[g];
          }
        }
      }
      for (std::size_t g = G; g-- > 0;) {  // L' x = pull
        if (form_.full_rank) {
          for (std::size_t h = g + 1; h < G; ++h) pull[g] -= p_.below[below_diagonal(h, g)] * pull[h];
        }
        pull[g] /= w_.sd_of_globals[g];
      }
      const FlowPoint at = form_.global_flow ? w_.flow_of_globals.point(s, 0) : FlowPoint{};
      for (std::size_t g = 0; g < G; ++g) {
        const double sd = w_.sd_of_globals[g];
        if (form_.global_flow) pull[g] = (pull[g] + at.curvature[g] / sd) / at.slope[g];
        double v = share * (frame_.global_scale[g] * w_.global_gradient[s * G + g] + pull[g]);
        loc[g] += v;
        if (form_.global_flow) {
          log_sd[g] += v * sd * at.by_log_sd[g];
          warp[g] += v * sd * at.by_skew[g];
          warp[G + g] += v * sd * at.by_tail[g];
          v *= at.slope[g];
        } else {
          log_sd[g] += v * t[g] * sd;
        }
        if (form_.full_rank) {
          for (std::size_t h = 0; h < g; ++h) below[below_diagonal(g, h)] += v * t[h];
        }
      }
    }
    if (form_.global_flow) {
      const FlowNumbers numbers = w_.flow_of_globals.numbers(0);
      for (std::size_t g = 0; g < G; ++g) {
        warp[g] *= slope_of_skew(numbers.skew[g]);
        warp[G + g] *= slope_of_tail(numbers.log_tail[g]);
      }
    }
  }

 private:
  void resize(const std::vector<Lease>& leases) {
    const std::size_t draws = draw_.draws, dim = leases[0]->dim, G = form_.globals, K = form_.directions;
    std::size_t base_dim = 0;
    for (std::size_t i = 1; i < leases.size(); ++i) base_dim = std::max(base_dim, leases[i]->dim);
    w_.noise.resize(draws * form_.block * form_.columns);
    w_.sd.resize(form_.block * form_.columns);
    if (form_.scaled()) {
      for (std::vector<float>* part : {&w_.growth, &w_.growth_slope, &w_.moved}) part->resize(w_.noise.size());
    }
    w_.noise_of_globals.resize(draws * G);
    w_.normals_of_globals.resize(G);
    w_.float_sd_of_globals.resize(G);
    w_.log_slopes.assign(draws, 0.0);
    w_.flow_of_globals.resize(form_.global_flow ? G : 0, draws);
    w_.flow.resize(form_.flow ? form_.block * form_.columns : 0, draws);
    w_.sd_of_globals.resize(G);
    w_.pull.resize(G);
    w_.back.resize(K);
    w_.toward.resize(K);
    w_.along.resize(draws * K);
    w_.bends.resize(draws * form_.hidden);
    w_.theta.resize(draws * dim);
    w_.gradient.resize(draws * dim);
    w_.lp.resize(draws);
    w_.status.resize(draws);
    w_.base_theta.resize(draws * base_dim);
    w_.base_gradient.resize(draws * base_dim);
    w_.base_lp.resize(draws);
    w_.base_status.resize(draws);
    w_.global_gradient.resize(draws * G);
    w_.value.resize(draws);
    w_.sums.assign(stretches_ * draws * sums_, 0.0);
    w_.log_sds.assign(stretches_, 0.0);
    dim_ = dim;
  }

  std::uint64_t stream(std::size_t draw, std::size_t part) const {
    return stream_start(draw_.key, draw_.step, draw * (form_.block + 1) + part);
  }

  void put_globals() {
    const std::size_t G = form_.globals;
    for (std::size_t g = 0; g < G; ++g) {
      w_.sd_of_globals[g] = std::exp(p_.log_sd[g]);
      w_.float_sd_of_globals[g] = static_cast<float>(w_.sd_of_globals[g]);
    }
    if (form_.global_flow) flatten_numbers(p_.warp, p_.warp + G, G, w_.flow_of_globals.numbers(0));
    double* const standard = w_.pull.data();
    std::vector<float>& normals = w_.normals_of_globals;
    for (std::size_t s = 0; s < draw_.draws; ++s) {
      fill_normals(stream(s, 0), 0, G, normals.data());
      double* t = w_.noise_of_globals.data() + s * G;
      std::copy(normals.begin(), normals.end(), t);
      double* theta = w_.theta.data() + s * dim_;
      for (std::size_t g = 0; g < G; ++g) {
        standard[g] = w_.sd_of_globals[g] * t[g];
        if (form_.full_rank) {
          for (std::size_t h = 0; h < g; ++h) standard[g] += p_.below[below_diagonal(g, h)] * t[h];
        }
      }
      if (form_.global_flow) {
        w_.log_slopes[s] = bend(w_.flow_of_globals.numbers(0), w_.float_sd_of_globals.data(), normals.data(), G,
                                standard, w_.flow_of_globals.point(s, 0));
      }
      for (std::size_t g = 0; g < G; ++g) {
        theta[layout_.global_at[g]] = frame_.global_center[g] + frame_.global_scale[g] * (p_.loc[g] + standard[g]);
      }
      put_along(s, t);
    }
  }

  void put_along(std::size_t s, const double* t) {
    const std::size_t G = form_.globals, straight = form_.straight();
    double* const along = w_.along.data() + s * form_.directions;
    for (std::size_t k = 0; k < straight; ++k) {
      along[k] = t[k % std::max<std::size_t>(G, 1)];
      if (form_.mapped) {
        along[k] = 0.0;
        for (std::size_t g = 0; g < G; ++g) along[k] += p_.map[k * G + g] * t[g];
      }
    }
    for (std::size_t h = 0; h < form_.hidden; ++h) {
      const double* const weights = p_.curve + h * (straight + 1);
      double raw = weights[straight];
      for (std::size_t k = 0; k < straight; ++k) raw += weights[k] * along[k];
      along[straight + h] = std::max(raw, 0.0) + std::log1p(std::exp(-std::abs(raw)));
      w_.bends[s * form_.hidden + h] = 0.5 * (1.0 + std::tanh(0.5 * raw));
    }
  }

  // Adds what reaches W t through the curved directions to the derivatives by it, and the gradient of V and v.
  void through_curve(std::size_t s, double share, double* back, double* toward, double* curve) const {
    const std::size_t straight = form_.straight();
    const double* const along = w_.along.data() + s * form_.directions;
    for (std::size_t h = 0; h < form_.hidden; ++h) {
      const double bend = w_.bends[s * form_.hidden + h];
      const double of_back = bend * back[straight + h], of_toward = bend * toward[straight + h];
      const double* const weights = p_.curve + h * (straight + 1);
      double* const of_weights = curve + h * (straight + 1);
      for (std::size_t k = 0; k < straight; ++k) {
        back[k] += of_back * weights[k];
        toward[k] += of_toward * weights[k];
        of_weights[k] += share * of_toward * along[k];
      }
      of_weights[straight] += share * of_toward;
    }
  }

  std::size_t first_unit(std::size_t stretch) const { return stretch * kStretch; }
  std::size_t count(std::size_t stretch) const { return std::min(kStretch, layout_.units - first_unit(stretch)); }
  const LocalReal* row(std::size_t r, std::size_t n) const { return p_.locals + r * form_.columns + n; }
  const LocalReal* below_row(std::size_t i, std::size_t j, std::size_t n) const {
    return row(2 * form_.block + below_diagonal(i, j), n);
  }
  const LocalReal* slope_row(std::size_t i, std::size_t k, std::size_t n) const {
    return row(form_.slope_at() + i * form_.directions + k, n);
  }
  const LocalReal* growth_row(std::size_t i, std::size_t k, std::size_t n) const {
    return row(form_.growth_at() + i * form_.directions + k, n);
  }
  std::size_t frame_at(std::size_t i, std::size_t n) const { return frame_.own ? i * form_.columns + n : i; }
  std::size_t latent_at(std::size_t s, std::size_t i, std::size_t n) const {
    return (s * form_.block + i) * form_.columns + n;
  }
  float* noise(std::size_t s, std::size_t i, std::size_t n) const { return w_.noise.data() + latent_at(s, i, n); }

  void put_locals(std::size_t stretch) {
    const std::size_t d = form_.block, n0 = first_unit(stretch), m = count(stretch);
    for (std::size_t i = 0; i < d; ++i) {
      exponentials(row(d + i, n0), m, w_.sd.data() + i * form_.columns + n0);
      w_.log_sds[stretch] += sum(row(d + i, n0), m);
      if (form_.flow) {
        const std::size_t r = form_.warp_at() + 2 * i;
        flatten_numbers(row(r, n0), row(r + 1, n0), m, w_.flow.numbers(i * form_.columns + n0));
      }
    }
    double z[kStretch];
    for (std::size_t s = 0; s < draw_.draws; ++s) {
      double* theta = w_.theta.data() + s * dim_;
      double squares = 0.0, volumes = 0.0;
      for (std::size_t i = 0; i < d; ++i) {
        float* e = noise(s, i, n0);
        fill_normals(stream(s, 1 + i), n0, m, e);
        squares += sum_of_products(e, e, m);
        const float* sd = w_.sd.data() + i * form_.columns + n0;
        const std::size_t f = frame_at(i, n0);
        const Layout::Run run = layout_.runs[i];
        if (form_.diagonal() && run.stride == 1) {
          place_diagonal(row(i, n0), sd, e, frame_.local_center + f, frame_.local_scale + f, frame_.own, m,
                         theta + run.start + n0);
          continue;
        }
        if (form_.gaussian()) {
          put_mean_and_noise(row(i, n0), sd, e, m, z);
        } else {
          put_noise(sd, e, m, z);
        }
        if (form_.full) {
          for (std::size_t j = 0; j < i; ++j) add_products(below_row(i, j, n0), noise(s, j, n0), m, z);
        }
        if (form_.flow) {
          const std::size_t at = i * form_.columns + n0;
          volumes += bend(w_.flow.numbers(at), sd, e, m, z, w_.flow.point(s, at));
        }
        if (form_.scaled()) volumes += grow_noise(s, i, n0, m, z);
        if (!form_.gaussian()) add_multiple(row(i, n0), 1.0, m, z);
        for (std::size_t k = 0; k < form_.directions; ++k) {
          add_multiple(slope_row(i, k, n0), w_.along[s * form_.directions + k], m, z);
        }
        if (run.stride != 0) {
          place(z, frame_.local_center + f, frame_.local_scale + f, frame_.own, m,
                theta + run.start + static_cast<std::int64_t>(n0) * run.stride, run.stride);
        } else {
          double placed[kStretch];
          place(z, frame_.local_center + f, frame_.local_scale + f, frame_.own, m, placed, 1);
          const std::int64_t* at = layout_.local_at.data() + i * layout_.units + n0;
          for (std::size_t n = 0; n < m; ++n) theta[at[n]] = placed[n];
        }
      }
      w_.sums[(stretch * draw_.draws + s) * sums_] = 0.5 * squares + volumes;
    }
  }

  // Scales the noise part z of latent i of some units as they follow the globals; the sum of g.
  double grow_noise(std::size_t s, std::size_t i, std::size_t n0, std::size_t m, double* z) const {
    double raw[kStretch] = {};
    for (std::size_t k = 0; k < form_.directions; ++k) {
      add_multiple(growth_row(i, k, n0), w_.along[s * form_.directions + k], m, raw);
    }
    const std::size_t at = latent_at(s, i, n0);
    return grow(raw, form_.growth_range, form_.shrink_range, m, w_.growth.data() + at, w_.growth_slope.data() + at, z,
                w_.moved.data() + at);
  }

  Result evaluate_batch(const std::vector<Lease>& leases) {
    Batch batch{};
    batch.slots = draw_.slots;
    batch.num_slots = 1;
    batch.rows_per_slot = draw_.draws;
    batch.dim = dim_;
    batch.theta = w_.theta.data();
    batch.lp = w_.lp.data();
    batch.grad = w_.gradient.data();
    batch.status = w_.status.data();
    Result result{Outcome::done, 0, 0};
    if (draw_.draws == 1) {
      Slot& slot = *leases[0].get();
      const std::size_t handle = slot.take_handle();
      w_.status[0] = slot.evaluate(handle, batch.theta, batch.lp, batch.grad);
      slot.return_handle(handle);
    } else {
      result = evaluate(batch);
    }
    if (result.outcome != Outcome::done) return result;
    for (std::size_t s = 0; s < draw_.draws; ++s) {
      w_.value[s] = draw_.weights[0] * w_.lp[s];
      for (std::size_t g = 0; g < form_.globals; ++g) {
        w_.global_gradient[s * form_.globals + g] =
            draw_.weights[0] * w_.gradient[s * dim_ + static_cast<std::size_t>(layout_.global_at[g])];
      }
    }
    return result;
  }

  // The other terms: densities of few units or none, whose locals do not move.
  Result add_base(const std::vector<Lease>& leases) {
    for (std::size_t i = 1; i < leases.size(); ++i) {
      const Layout& layout = *leases[i]->layout;
      const std::size_t dim = leases[i]->dim;
      for (std::size_t s = 0; s < draw_.draws; ++s) {
        double* theta = w_.base_theta.data() + s * dim;
        std::copy(layout.rest.begin(), layout.rest.end(), theta);
        for (std::size_t g = 0; g < form_.globals; ++g) {
          theta[layout.global_at[g]] = w_.theta[s * dim_ + static_cast<std::size_t>(layout_.global_at[g])];
        }
      }
      Batch batch{draw_.slots + i, 1, draw_.draws, dim, w_.base_theta.data(), w_.base_lp.data(),
                  w_.base_gradient.data(), w_.base_status.data()};
      const Result result = evaluate(batch);
      if (result.outcome != Outcome::done) return result;
      for (std::size_t s = 0; s < draw_.draws; ++s) {
        w_.status[s] |= w_.base_status[s];
        w_.value[s] += draw_.weights[i] * w_.base_lp[s];
        for (std::size_t g = 0; g < form_.globals; ++g) {
          w_.global_gradient[s * form_.globals + g] +=
              draw_.weights[i] * w_.base_gradient[s * dim + static_cast<std::size_t>(layout.global_at[g])];
        }
      }
    }
    return {Outcome::done, 0, 0};
  }

  // Mean over the accepted draws of the weighted densities less log q.
  double value() const {
    if (w_.accepted.empty()) return std::numeric_limits<double>::quiet_NaN();
    const std::size_t G = form_.globals;
    const double weight = draw_.weights[0];
    double of_globals = static_cast<double>(G) * kHalfLog2Pi, of_locals = log_scales_;
    for (std::size_t g = 0; g < G; ++g) of_globals += std::log(frame_.global_scale[g]) + p_.log_sd[g];
    for (const double part : w_.log_sds) of_locals += part;
    of_locals += static_cast<double>(form_.block * layout_.units) * kHalfLog2Pi;
    double total = 0.0;
    for (const std::size_t s : w_.accepted) {
      double squares = 0.0, of_units = 0.0;
      for (std::size_t g = 0; g < G; ++g) squares += w_.noise_of_globals[s * G + g] * w_.noise_of_globals[s * G + g];
      for (std::size_t i = 0; i < stretches_; ++i) of_units += w_.sums[(i * draw_.draws + s) * sums_];
      total += w_.value[s] + of_globals + 0.5 * squares + w_.log_slopes[s] + weight * (of_locals + of_units);
    }
    return total / static_cast<double>(w_.accepted.size());
  }

  void sum_over_stretches(std::size_t s, double* back, double* toward) const {
    const std::size_t K = form_.directions;
    std::fill_n(back, K, 0.0);
    std::fill_n(toward, K, 0.0);
    for (std::size_t i = 0; i < stretches_; ++i) {
      const double* sums = w_.sums.data() + (i * draw_.draws + s) * sums_;
      for (std::size_t k = 0; k < K; ++k) {
        back[k] += sums[1 + k];
        toward[k] += sums[1 + K + k];
      }
    }
  }

  template <class Sink>
  void local_stretch(std::size_t stretch, Sink& sink) {
    const std::size_t d = form_.block, K = form_.directions, n0 = first_unit(stretch), m = count(stretch);
    thread_local std::vector<float> gradient, pulls, all, pull, of_noise, of_raw;
    gradient.assign(form_.rows() * kStretch, 0.0f);
    pulls.resize(d * kStretch);
    for (std::vector<float>* part : {&all, &pull, &of_noise, &of_raw}) part->resize(kStretch);
    const float weight = static_cast<float>(draw_.weights[0]);
    for (const std::size_t s : w_.accepted) {
      double* sums = w_.sums.data() + (stretch * draw_.draws + s) * sums_;
      for (std::size_t i = d; i-- > 0;) {
        const float* sd = w_.sd.data() + i * form_.columns + n0;
        const float* e = noise(s, i, n0);
        float* p = pulls.data() + i * kStretch;
        std::copy_n(e, m, p);
        if (form_.full) {
          for (std::size_t k = i + 1; k < d; ++k) subtract_products(below_row(k, i, n0), pulls.data() + k * kStretch, m, p);
        }
        divide(sd, m, p);
        take_gradient(s, i, n0, m, all.data());
        const float* toward_noise = all.data();
        if (form_.gaussian()) {
          add_to_gradient(p, sd, e, weight, m, all.data(), gradient.data() + i * kStretch,
                          gradient.data() + (d + i) * kStretch);
        } else {
          std::copy_n(p, m, pull.data());
          p = pull.data();
          add_bent(s, i, n0, m, p, all.data(), gradient.data(), sums + 1, of_noise.data(), of_raw.data());
          toward_noise = of_noise.data();
        }
        if (form_.full) {
          for (std::size_t j = 0; j < i; ++j) {
            add_float_products(toward_noise, noise(s, j, n0), m,
                               gradient.data() + (2 * d + below_diagonal(i, j)) * kStretch);
          }
        }
        for (std::size_t k = 0; k < K; ++k) {
          const float along = static_cast<float>(w_.along[s * K + k]);
          add_float_multiple(all.data(), along, m, gradient.data() + (form_.slope_at() + i * K + k) * kStretch);
          sums[1 + k] -= draw_.weights[0] * sum_of_products(slope_row(i, k, n0), p, m);
          if (form_.learned(k)) sums[1 + K + k] += sum_of_products(slope_row(i, k, n0), all.data(), m);
          if (form_.scaled()) {
            add_float_multiple(of_raw.data(), along, m, gradient.data() + (form_.growth_at() + i * K + k) * kStretch);
            if (form_.learned(k)) sums[1 + K + k] += sum_of_products(growth_row(i, k, n0), of_raw.data(), m);
          }
        }
      }
    }
    for (std::size_t i = 0; form_.flow && i < d; ++i) {
      float* const of_skew = gradient.data() + (form_.warp_at() + 2 * i) * kStretch;
      through_flattening(w_.flow.numbers(i * form_.columns + n0), m, of_skew, of_skew + kStretch);
    }
    const float share = 1.0f / static_cast<float>(std::max<std::size_t>(w_.accepted.size(), 1));
    for (std::size_t r = 0; r < form_.rows(); ++r) {
      if (w_.accepted.size() > 1) multiply(share, m, gradient.data() + r * kStretch);
      sink(r, n0, m, gradient.data() + r * kStretch);
    }
  }

  // As `add_to_gradient` for latent i of some units whose noise is scaled or bent: p becomes the pull of the latent,
  // `of_noise` the gradient by L_n e_n, `of_raw` that by C_n W t.
  void add_bent(std::size_t s, std::size_t i, std::size_t n0, std::size_t m, float* p, float* all, float* gradient,
                double* back, float* of_noise, float* of_raw) {
    const std::size_t at = latent_at(s, i, n0), entry = i * form_.columns + n0;
    const float *const sd = w_.sd.data() + entry, *const growth = w_.growth.data() + at;
    const float *const growth_slope = w_.growth_slope.data() + at, *const moved = w_.moved.data() + at;
    float* const of_log_sd = gradient + (form_.block + i) * kStretch;
    if (form_.flow) pull_through_flow(w_.flow.point(s, entry), sd, m, p);
    if (form_.scaled()) {
      pull_through_growth(growth, growth_slope, moved, m, p, of_raw);
      for (std::size_t k = 0; k < form_.directions; ++k) {
        back[k] -= draw_.weights[0] * sum_of_products(growth_row(i, k, n0), of_raw, m);
      }
    }
    add_pull(p, static_cast<float>(draw_.weights[0]), m, all, gradient + i * kStretch);
    if (form_.scaled()) {
      through_growth(all, growth, growth_slope, moved, m, of_noise, of_raw);
    } else {
      std::copy_n(all, m, of_noise);
    }
    if (form_.flow) {
      float* const of_skew = gradient + (form_.warp_at() + 2 * i) * kStretch;
      through_flow(w_.flow.point(s, entry), sd, m, of_noise, of_log_sd, of_skew, of_skew + kStretch);
    } else {
      add_triple_products(of_noise, sd, noise(s, i, n0), m, of_log_sd);
    }
  }

  // Stan's gradient of latent i of some units, on the standardized scale and weighted, into `out`.
  void take_gradient(std::size_t s, std::size_t i, std::size_t n0, std::size_t m, float* out) const {
    const double* gradient = w_.gradient.data() + s * dim_;
    const double* scale = frame_.local_scale + frame_at(i, n0);
    const Layout::Run run = layout_.runs[i];
    if (run.stride != 0) {
      take(gradient + run.start + static_cast<std::int64_t>(n0) * run.stride, run.stride, draw_.weights[0], scale,
           frame_.own, m, out);
    } else {
      double gathered[kStretch];
      const std::int64_t* at = layout_.local_at.data() + i * layout_.units + n0;
      for (std::size_t n = 0; n < m; ++n) gathered[n] = gradient[at[n]];
      take(gathered, 1, draw_.weights[0], scale, frame_.own, m, out);
    }
  }

  const Form& form_;
  const Frame& frame_;
  const Parts<const double, const LocalReal> p_;
  const Draw& draw_;
  const Layout& layout_;
  const std::size_t threads_;
  const double log_scales_;  // sum of the logarithms of the units' scales
  Workspace& w_;
  const std::size_t stretches_, sums_;
  std::size_t dim_ = 0;
};

// Leases of the slots, with the dimensions that the form needs; `result` says what is wrong.
inline std::vector<Lease> lease(const Form& form, const std::int64_t* slots, std::size_t terms, Result& result) {
  std::vector<Lease> leases;
  leases.reserve(terms);
  result = {Outcome::done, 0, 0};
  for (std::size_t i = 0; i < terms; ++i) {
    leases.push_back(lease_slot(slots[i]));
    if (!leases.back()) {
      result = {Outcome::closed_slot, slots[i], 0};
      return leases;
    }
    const Layout* layout = leases.back()->layout.get();
    const bool fits = layout != nullptr && layout->globals == form.globals &&
                      (i > 0 ? layout->rest.size() == leases.back()->dim
                             : layout->block == form.block && layout->units <= form.columns &&
                                   layout->globals + layout->block * layout->units == leases.back()->dim);
    if (!fits) {
      result = {Outcome::wrong_layout, slots[i], 0};
      return leases;
    }
  }
  return leases;
}

inline double sum_of_log_scales(const Frame& frame, const Form& form, std::size_t units) {
  double total = 0.0;
  for (std::size_t i = 0; i < form.block; ++i) {
    if (!frame.own) {
      total += static_cast<double>(units) * std::log(frame.local_scale[i]);
    } else {
      for (std::size_t n = 0; n < units; ++n) total += std::log(frame.local_scale[i * form.columns + n]);
    }
  }
  return total;
}

}  // namespace avistan
