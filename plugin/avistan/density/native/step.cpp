#include "step.h"

#include <algorithm>
#include <vector>

#include "estimate.h"

namespace avistan {

Estimate elbo_gradient(const Form& form, const Frame& frame, const Parts<const double, const float>& parameters,
                       const Draw& draw, const Parts<double, float>& gradient) {
  Estimate estimate{};
  const std::vector<Lease> leases = lease(form, draw.slots, draw.terms, estimate.result);
  if (estimate.result.outcome != Outcome::done) return estimate;
  const Layout& layout = *leases[0]->layout;
  Step<float> step(form, frame, parameters, draw, layout, leases[0]->threads,
                   sum_of_log_scales(frame, form, layout.units));
  estimate = step.evaluate_draws(leases);
  if (estimate.result.outcome != Outcome::done) return estimate;
  step.locals([&](std::size_t row, std::size_t first, std::size_t count, const float* values) {
    std::copy_n(values, count, gradient.locals + row * form.columns + first);
  });
  for (std::size_t row = 0; row < form.rows(); ++row) {
    std::fill(gradient.locals + row * form.columns + layout.units, gradient.locals + (row + 1) * form.columns, 0.0f);
  }
  step.globals(gradient.loc, gradient.log_sd, gradient.below, gradient.map, gradient.warp, gradient.curve);
  return estimate;
}

}  // namespace avistan
