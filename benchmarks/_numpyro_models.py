"""The benchmarks' programs in NumPyro, with the same names and the same priors."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def linear(data: dict[str, Any]) -> None:
    theta = numpyro.sample("theta", dist.ImproperUniform(dist.constraints.real, (), ()))
    with numpyro.plate("units", data["N"]):
        z = numpyro.sample("z", dist.Normal(theta, data["tau"]))
        numpyro.sample("x", dist.Normal(z, data["sigma"]), obs=data["x"])


def lsat_2pl(data: dict[str, Any]) -> None:
    with numpyro.plate("items", data["I"], dim=-1):
        a = numpyro.sample("a", dist.LogNormal(0.0, 0.5))
        b = numpyro.sample("b", dist.Normal(0.0, 2.0))
    with numpyro.plate("persons", data["N"], dim=-2):
        theta = numpyro.sample("theta", dist.Normal(jnp.zeros((1,)), 1.0))
        with numpyro.plate("answers", data["I"], dim=-1):
            numpyro.sample("y", dist.Bernoulli(logits=b + a * theta), obs=data["y"])


def random_slopes(data: dict[str, Any]) -> None:
    mu_alpha = numpyro.sample("mu_alpha", dist.Normal(0.0, 2.0))
    mu_beta = numpyro.sample("mu_beta", dist.Normal(0.0, 1.0))
    tau_alpha = numpyro.sample("tau_alpha", dist.HalfNormal(1.0))
    tau_beta = numpyro.sample("tau_beta", dist.HalfNormal(1.0))
    with numpyro.plate("groups", data["J"]):
        alpha = numpyro.sample("alpha", dist.Normal(mu_alpha, tau_alpha))
        beta = numpyro.sample("beta", dist.Normal(mu_beta, tau_beta))
    rows = data["g"] - 1
    with numpyro.plate("rows", data["N"]):
        numpyro.sample("y", dist.Poisson(jnp.exp(alpha[rows] + beta[rows] * data["x"])), obs=data["y"])


MODELS = {"linear": linear, "lsat_2pl": lsat_2pl, "random_slopes": random_slopes}
