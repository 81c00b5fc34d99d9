# Reads CmdStan's CSV files as R's packages do, and prints what they find as lines of "name value".
files <- commandArgs(trailingOnly = TRUE)
suppressPackageStartupMessages({library(rstan); library(posterior); library(bayesplot); library(loo)})
fit <- rstan::read_stan_csv(files)
draws <- posterior::as_draws_array(as.array(fit))
cat("chains", posterior::nchains(draws), "\n")
cat("draws", posterior::niterations(draws), "\n")
found <- posterior::summarise_draws(posterior::subset_draws(draws, c("mu", "tau", "theta[3]", "lp__")), mean, sd)
for (row in seq_len(nrow(found))) {
  cat(paste0("mean_", found$variable[row]), format(as.numeric(found$mean[row]), digits = 17), "\n")
  cat(paste0("sd_", found$variable[row]), format(as.numeric(found$sd[row]), digits = 17), "\n")
}
plot <- bayesplot::mcmc_intervals(draws, pars = c("mu", "tau"))
cat("plot", inherits(plot, "ggplot"), "\n")
log_lik <- as.array(fit, pars = "log_lik")
cat("elpd", format(suppressWarnings(loo::loo(log_lik))$estimates["elpd_loo", "Estimate"], digits = 12), "\n")
