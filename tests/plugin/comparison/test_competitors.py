"""Competitors and references from outside, and references from files."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import avistan as avi
from avistan.cli.examples import examples
from avistan.comparison.competitors import COMPETITORS, External, resample
from avistan.comparison.references import Reference, nuts, reference_from
from avistan.report.write import write_netcdf
from avistan.runtime.errors import AvistanError, CompetitorError
from programs import NORMALS, REJECTS, bind, bundled
from prophet_series import bind_prophet, executable, flat
from stan_adapters.errors import CmdStanError, EngineError
from stan_adapters.samplers import stanli as algorithms
from stan_adapters.samplers.cmdstan import CmdStan
from stan_adapters.samplers.stanli import Paths, SamplerDraws, pathfinder_paths

MEAN, SD = np.array([1.0, -3.0, 40.0]), np.array([0.5, 2.0, 10.0])
KINDS = """
parameters {
  array[2] simplex[3] s; matrix[2, 3] m; real<lower=0> t; cholesky_factor_corr[2] L; vector[0] none;
  array[1] simplex[1] one;
}
model { to_vector(m) ~ std_normal(); t ~ std_normal(); L ~ lkj_corr_cholesky(2); }
"""


@pytest.fixture(scope="module")
def normals():
    with bind(NORMALS, {"D": 3, "mean": MEAN, "sd": SD}) as model:
        yield model


@pytest.fixture(scope="module")
def kinds():
    with bind(KINDS, {}) as model:
        yield model


@pytest.fixture(scope="module")
def kinds_nuts(kinds):
    return nuts(kinds, seed=2, chains=2, warmup=300, draws=100)


# -- Pathfinder through stanli ------------------------------------------------------------------------------------


def test_paths_have_the_models_density_and_that_of_their_normal(normals):
    paths = pathfinder_paths(normals, seed=1, paths=3, draws=500)
    assert paths.theta.shape == (3, 500, 3)
    assert paths.failures == ()
    for theta, log_p, log_q in zip(paths.theta, paths.log_p, paths.log_q, strict=True):
        np.testing.assert_allclose(
            log_p - log_p[0], -0.5 * _squares(theta) + 0.5 * _squares(theta[0]), atol=1e-9
        )
        # of 3 normals it is -chi^2_3 / 2, with variance 3/2 and fourth central moment 63/4
        assert abs(log_q.var() - 3 / 2) < 5 * np.sqrt((63 / 4 - 9 / 4) / 500)
    # every path's importance weights estimate the same normalizing constant
    weights = np.exp(paths.log_p - paths.log_q)
    total, se = weights.mean(axis=1), weights.std(axis=1) / np.sqrt(500)
    assert (np.abs(total - total[0]) < 5 * np.hypot(se, se[0])).all()
    assert not np.array_equal(paths.theta[0], paths.theta[1])


def _squares(theta):
    return (((theta - MEAN) / SD) ** 2).sum(axis=-1)


def test_pathfinder_finds_independent_normals(normals):
    with External(normals) as external:
        found = external.approximate("pathfinder", seed=1)
        again = external.approximate("pathfinder", seed=1)
    assert found.theta.shape == (1000, 3)
    assert (found.mean_field, found.elbo, found.trace, found.caveat) == (None, None, None, "")
    se = np.sqrt(1 / 1000 + 1 / 4000)
    assert (np.abs(found.theta.mean(axis=0) - MEAN) < 5 * se * SD).all()
    assert np.abs(found.theta.std(axis=0) / SD - 1).max() < 5 * se / np.sqrt(2)
    np.testing.assert_array_equal(found.theta, again.theta)


def test_resampling_weighs_the_paths_by_the_posterior():
    """Two paths, one of them where 1/8 of the posterior's mass lies, and both twice too wide."""
    noise = np.random.default_rng(1).normal(size=(2, 4000, 1))
    theta = 2 * noise + np.array([0.0, 100.0])[:, None, None]
    log_p = np.log([[0.875], [0.125]]) - 0.5 * (2 * noise[..., 0]) ** 2
    drawn, khat = resample(
        Paths(theta=theta, log_p=log_p, log_q=_log_normal(noise), failures=(), seconds=0), draws=4000, seed=1
    )
    far = drawn[:, 0] > 50
    assert khat < 0.5
    assert abs(far.mean() - 0.125) < 5 * np.sqrt(1.2 * 0.125 * 0.875 / 4000)
    near = drawn[~far, 0]
    assert abs(near.mean()) < 5 / np.sqrt(1500)  # 3500 draws of 4000 whose weights are worth 2650
    assert abs(near.std() - 1) < 5 / np.sqrt(2 * 1500)


def _log_normal(noise):
    return -0.5 * noise[..., 0] ** 2


def test_k_hat_tells_draws_that_are_too_narrow_from_draws_that_are_too_wide():
    def khat(scale):
        noise = np.random.default_rng(1).normal(size=(1, 4000, 1))
        log_p = -0.5 * (scale * noise[..., 0]) ** 2
        paths = Paths(theta=scale * noise, log_p=log_p, log_q=_log_normal(noise), failures=(), seconds=0)
        return resample(paths, draws=1000, seed=1)[1]

    assert khat(0.4) > 0.7  # the variance of its weights is infinite below sd 0.707
    assert khat(1.5) < 0.3
    assert khat(1.0) == -np.inf


def test_draws_that_stan_rejects_are_never_chosen():
    log_p = np.zeros((1, 1000))
    log_p[0, 3:] = -np.inf
    theta = np.arange(1000.0).reshape(1, 1000, 1)
    paths = Paths(theta=theta, log_p=log_p, log_q=np.zeros((1, 1000)), failures=(), seconds=0)
    assert set(resample(paths, draws=100, seed=1)[0].ravel()) == {0.0, 1.0, 2.0}
    paths = replace(paths, log_p=np.full((1, 1000), -np.inf))
    with pytest.raises(CompetitorError, match="rejects every draw"):
        resample(paths, draws=100, seed=1)


def test_a_path_that_fails_is_told_and_all_of_them_are_an_error():
    data = {"N": 2, "y": [0.0, 0.0], "limit": -1e9}
    with (
        bind(REJECTS, data) as model,
        pytest.raises(EngineError, match=r"Pathfinder failed on model: Initialization between .* failed"),
    ):
        pathfinder_paths(model, seed=1)
    with bind(REJECTS, data | {"limit": 1.0}) as model:
        paths = pathfinder_paths(model, seed=1, paths=30, draws=10)
        with External(model) as external:
            caveat = external.approximate("pathfinder", seed=1).caveat
    assert paths.failures
    assert len(paths.theta) + len(paths.failures) == 30
    assert "of its paths failed: Failure: None of the LBFGS iterations completed" in caveat


def test_another_c_abi_is_refused(normals, monkeypatch):
    monkeypatch.setattr(algorithms, "_KNOWN_ABI", (1,))
    with pytest.raises(EngineError, match=r"C ABI has version.*Use cmdstan-pathfinder"):
        pathfinder_paths(normals, seed=1)


# -- one CmdStan for all ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prophet(require):
    return require("prophet")


def test_one_cmdstan_serves_every_competitor_and_the_reference(prophet, monkeypatch):
    entered = []
    enter = CmdStan.__enter__
    monkeypatch.setattr(CmdStan, "__enter__", lambda self: entered.append(self) or enter(self))
    with bind_prophet(prophet, flat()) as model, External(model, cmdstan_exe=executable(prophet)) as external:
        rows = {name: external.approximate(name, seed=1) for name in COMPETITORS}
        reference = external.reference("cmdstan-nuts", seed=1, chains=2, warmup=200, draws=200)
    assert len(entered) == 1
    assert [row.name for row in rows.values()] == list(COMPETITORS)
    assert all(row.theta.shape == (1000, 5) and np.isfinite(row.theta).all() for row in rows.values())
    assert (reference.name, reference.theta.shape) == ("cmdstan-nuts", (2, 200, 5))
    advi = rows["cmdstan-advi"]
    assert advi.mean_field is not None
    assert advi.steps == advi.trace.steps[-1] < advi.gradient_evaluations
    assert len(advi.trace.elbo) == len(advi.trace.seconds) == advi.steps / 100


def test_a_cmdstan_that_can_not_be_set_up_is_tried_once(normals, monkeypatch, tmp_path):
    tries = []
    monkeypatch.setattr(CmdStan, "_given", lambda self, file: tries.append(file) or _refuse())
    with External(normals, cmdstan_exe=tmp_path / "exe") as external:
        for name in ("cmdstan-advi", "cmdstan-pathfinder"):
            with pytest.raises(CmdStanError, match="refused"):
                external.approximate(name, seed=1)
    assert len(tries) == 1


def _refuse():
    raise CmdStanError("refused")


def test_an_unknown_competitor_is_named_with_those_there_are(normals):
    with External(normals) as external, pytest.raises(CompetitorError, match=r"'advi'.*cmdstan-advi"):
        external.approximate("advi", seed=1)


def test_iterations_are_for_cmdstans_advi_alone(normals):
    with (
        External(normals) as external,
        pytest.raises(CompetitorError, match="'pathfinder' has no iterations"),
    ):
        external.approximate("pathfinder", seed=1, iterations=100)


@pytest.mark.parametrize("name", [example.name for example in examples(avi.models_root())])
def test_with_cmdstan_installed_its_algorithms_run_on_every_bundled_program(name, cmdstan_home):
    model = bundled(name).bound
    with External(model) as external:
        found = [external.approximate("cmdstan-pathfinder", seed=1)]
        try:
            found.append(external.approximate("cmdstan-advi", seed=1))
        except CmdStanError as error:  # some programs are too steep for the step sizes that ADVI tries
            if "All proposed step-sizes failed" not in str(error):
                raise
        reference = external.reference("cmdstan-nuts", seed=1, chains=1, warmup=50, draws=20)
    for theta in (*(f.theta for f in found), reference.theta[0]):
        assert theta.shape[1] == model.dim
        assert np.isfinite(theta).all()
    assert found[0].seconds_compile > 0


# -- references ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nc", ".zarr", None])
def test_a_reference_comes_back_from_a_file(kinds, kinds_nuts, tmp_path, suffix):
    tree = kinds_nuts.to_datatree(kinds)
    source = tree if suffix is None else tmp_path / f"draws{suffix}"
    if suffix == ".nc":
        write_netcdf(tree, source)
    elif suffix == ".zarr":
        tree["posterior"].to_dataset().drop_vars("none").to_zarr(
            source, group="posterior", consolidated=False
        )
    again = reference_from(source, kinds)
    np.testing.assert_allclose(again.theta, kinds_nuts.theta, rtol=1e-8, atol=1e-8)
    assert again.max_rhat == pytest.approx(kinds_nuts.max_rhat)
    if suffix != ".zarr":  # the attributes are the tree's
        assert again.seconds == kinds_nuts.seconds
    assert again.name == ("nuts" if suffix is None else source.name)


def test_dims_may_stand_in_any_order_and_divergences_are_counted(normals):
    draws = np.random.default_rng(1).normal(size=(3, 50, 2))
    diverging = np.zeros((2, 50), dtype=bool)
    diverging[1, 4:7] = True
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": (("k", "draw", "chain"), draws)}),
            "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), diverging)}),
        }
    )
    reference = reference_from(tree, normals)
    np.testing.assert_array_equal(reference.theta, draws.transpose(2, 1, 0))
    assert reference.divergences == 3
    assert np.isnan(reference.seconds)
    assert "3 divergent transitions" in reference.caveat


def test_options_are_for_samplers(normals):
    with External(normals) as external, pytest.raises(CompetitorError, match="chains: options are for"):
        external.reference(_tree(x=np.zeros((2, 9, 3))), seed=1, chains=2)


def _tree(**variables):
    dims = ("chain", "draw", "k", "l", "m")
    dataset = xr.Dataset({name: (dims[: np.ndim(value)], value) for name, value in variables.items()})
    return xr.DataTree.from_dict({"posterior": dataset})


def _draws(shape=(2, 9, 3)):
    return np.random.default_rng(1).normal(size=shape)


def _without_chains(dataset):
    return dataset.rename(chain="run") if dataset else dataset


BAD = {
    "no group": (xr.DataTree.from_dict({"prior": xr.Dataset()}), "no group `posterior`; its groups: prior"),
    "missing": (_tree(y=_draws()), "no parameter 'x'; its posterior has y"),
    "shape": (_tree(x=_draws((2, 9, 4))), r"shape \(4,\) a draw, the program and its data give \(3,\)"),
    "no chains": (_tree(x=_draws()).map_over_datasets(_without_chains), "needs dims chain"),
    "nan": (_tree(x=np.full((2, 9, 3), np.nan)), "54 values that are not finite"),
    "text": (_tree(x=np.full((2, 9, 3), "many")), "is not numeric"),
    "one draw": (_tree(x=_draws((1, 1, 3))), "two or more"),
}


@pytest.mark.parametrize(("tree", "message"), BAD.values(), ids=BAD.keys())
def test_draws_of_something_else_are_refused(normals, tree, message):
    with pytest.raises(CompetitorError, match=message):
        reference_from(tree, normals)


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1.0, "outside the support of model: .*"), (0.0, "on the edge of the support: sigma")],
)
def test_draws_outside_the_support_are_refused(value, message):
    sigma = np.exp(_draws((2, 9)))
    sigma[1, 3] = value
    with bind("parameters { real<lower=0> sigma; } model { sigma ~ exponential(1); }", {}) as model:
        assert reference_from(_tree(sigma=np.abs(sigma) + 0.1), model).theta.shape == (2, 9, 1)
        with pytest.raises(CompetitorError, match=message):
            reference_from(_tree(sigma=sigma), model)


def test_files_that_can_not_be_read_are_named(normals, tmp_path):
    (tmp_path / "text.nc").write_text("no netCDF")
    for name, message in (("gone.nc", "there is no reference file"), ("text.nc", "can't read the reference")):
        with pytest.raises(CompetitorError, match=message):
            reference_from(tmp_path / name, normals)
    with External(normals) as external, pytest.raises(CompetitorError, match="there is no reference file"):
        external.reference(str(tmp_path / "gone.nc"), seed=1)


def with_warmup(theta, divergent, model, *, lp=True, warmup=40):
    """A tree as ArviZ 1.3 makes it of CmdStanPy's draws with save_warmup=True: statistics of the warm-up come first."""
    chains, draws = theta.shape[:2]
    rng = np.random.default_rng(2)
    diverging = np.concatenate([rng.random((chains, warmup)) < 0.6, divergent], axis=1)
    density = np.stack([model.log_density_gradient(points)[0] for points in theta])
    stats = {"diverging": (("chain", "draw"), diverging)}
    if lp:
        before = rng.normal(-30, 5, (chains, warmup))
        stats["lp"] = (("chain", "draw"), np.concatenate([before, density - 3.25], axis=1))
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": (("chain", "draw", "k"), theta)}),
            "sample_stats": xr.Dataset(stats, coords={"draw": np.arange(warmup + draws)}),
        }
    )


@pytest.mark.parametrize("count", [0, 3])
def test_divergences_of_the_warmup_are_not_those_of_the_draws(normals, count):
    divergent = np.zeros((2, 60), dtype=bool)
    divergent[0, 10 : 10 + count] = True
    reference = reference_from(with_warmup(_draws((2, 60, 3)), divergent, normals), normals)
    assert reference.divergences == count


def test_divergences_that_belong_to_no_draw_for_sure_are_not_counted(normals):
    tree = with_warmup(_draws((2, 60, 3)), np.zeros((2, 60), dtype=bool), normals, lp=False)
    reference = reference_from(tree, normals)
    assert reference.divergences is None
    assert "which of its transitions diverged can't be told" in reference.caveat
    assert reference_from(reference.to_datatree(normals), normals).divergences is None


def test_a_reference_of_constants_is_refused(normals):
    with pytest.raises(CompetitorError, match=r"all 18 draws .* the same in x\[1\] and of 2 other numbers"):
        reference_from(_tree(x=np.ones((2, 9, 3))), normals)
    one_still = _draws()
    one_still[..., 1] = 0.3
    with pytest.raises(CompetitorError, match=r"the same in x\[2\]: that is a point, not draws"):
        reference_from(_tree(x=one_still), normals)


def test_a_reference_of_one_short_chain_is_in_doubt():
    assert isinstance(Reference.of("mine", SamplerDraws(theta=_draws((1, 3, 2)), seconds=1.0)).caveat, str)


def test_a_sampler_that_fails_says_why():
    data = {"N": 2, "y": [0.0, 0.0], "limit": -1e9}
    with bind(REJECTS, data) as model, pytest.raises(AvistanError, match="NUTS failed on model"):
        nuts(model, seed=1, chains=1, warmup=10, draws=10)
