// One step's gradient of the ELBO for the families of `families.py`: draws, Stan's gradients and the path
// derivative, without intermediate arrays in the caller.
//
//     theta = c + s (m + T(L t))                           t, e_n standard normal
//     z_n   = c_n + s_n (m_n + A_n a(t) + exp(g_n) T_n(L_n e_n)),    g_n = r tanh(C_n a(t) / r)
//     a(t)  = [W t ; log(1 + exp(V W t + v))]
//
// Parameters are on the standardized scale of the frame (c, s); L and L_n are lower triangular, with exp(log_sd) on the
// diagonal. T and T_n are the flow of `flows.py`, entry by entry and in units of these sds, or the identity. The estimate
// for a batch of M units with weight w is
//
//     sum_i a_i U_i(theta, z) - log q(theta) - w sum_n log q(z_n | theta),     a_0 = w for the batch
//
// where the other terms are evaluated at theta alone (their locals are fixed). Source: Roeder, Wu & Duvenaud, NeurIPS
// 2017, for the path derivative.
#pragma once

#include <cstddef>
#include <cstdint>

#include "batch.h"

namespace avistan {

struct Form {
  std::size_t globals;     // G
  std::size_t block;       // d
  std::size_t columns;     // columns of the arrays of local parameters: at least the units of any batch
  std::size_t directions;  // K, 0 unless the locals follow the globals
  std::size_t hidden;      // H: the last of the directions, which are curved
  bool full_rank;          // L is lower triangular, not diagonal
  bool full;               // L_n is
  bool mapped;             // W is an array (K - H, G), not the identity
  double growth_range;     // r of positive g, 0 unless the scales of the locals follow the globals
  double shrink_range;     // of negative g
  bool global_flow;        // T is not the identity
  bool flow;               // T_n is not

  std::size_t global_below() const { return full_rank ? globals * (globals - 1) / 2 : 0; }
  std::size_t local_below() const { return full ? block * (block - 1) / 2 : 0; }
  std::size_t straight() const { return directions - hidden; }
  bool learned(std::size_t k) const { return mapped || k >= straight(); }  // direction k has parameters
  std::size_t map_size() const { return mapped ? straight() * globals : 0; }
  std::size_t curve_size() const { return hidden * (straight() + 1); }
  std::size_t global_warp() const { return global_flow ? 2 * globals : 0; }
  bool scaled() const { return growth_range > 0.0; }
  bool gaussian() const { return !scaled() && !flow; }  // the noise of a unit moves it as it is
  bool diagonal() const { return gaussian() && !full && directions == 0; }  // its own mean and sd are all of a latent
  std::size_t slope_at() const { return 2 * block + local_below(); }  // rows of local parameters: where A_n begins
  std::size_t growth_at() const { return slope_at() + block * directions; }  // C_n
  std::size_t warp_at() const { return growth_at() + (scaled() ? block * directions : 0); }  // numbers of T_n
  std::size_t rows() const { return warp_at() + (flow ? 2 * block : 0); }
};

struct Frame {
  const double* global_center;  // (G,)
  const double* global_scale;
  const double* local_center;  // (d, 1) or (d, columns)
  const double* local_scale;
  bool own;  // every unit has its own column
};

// Parameters or their gradients. Of the locals: loc, log_sd, below, slope, growth and warp, one below the other, (rows,
// columns).
template <class GlobalReal, class LocalReal>
struct Parts {
  GlobalReal* loc;
  GlobalReal* log_sd;
  GlobalReal* below;
  LocalReal* locals;
  GlobalReal* map;    // W
  GlobalReal* warp;   // (2, G) numbers of T
  GlobalReal* curve;  // (H, K - H + 1): V and, as its last column, v
};

struct Draw {
  const std::int64_t* slots;  // (terms,): the batch first
  const double* weights;      // (terms,): a
  std::size_t terms;
  std::uint64_t key, step;
  std::size_t draws;
};

struct Estimate {
  Result result;
  double elbo;            // nats, over the accepted draws; NaN where there are none
  std::int32_t rejected;  // draws
};

// The gradient of the estimate, in arrays like the parameters; columns beyond the batch's units get zeros.
Estimate elbo_gradient(const Form& form, const Frame& frame, const Parts<const double, const float>& parameters,
                       const Draw& draw, const Parts<double, float>& gradient);

}  // namespace avistan
