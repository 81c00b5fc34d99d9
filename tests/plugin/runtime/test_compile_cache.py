"""Compiled programs are kept between processes: the same bytes, nobody's settings touched, trouble is a warning."""

import json
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from avistan.density.backend import native_available
from avistan.runtime.compile_cache import CompileCacheWarning, _made, compile_cache
from avistan.runtime.precision import in_float64

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
FIT = """
import hashlib, json
import jax
import jax.monitoring
import numpy as np
import avistan as avi
from avistan.cli.examples import models_root

seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
rng = np.random.default_rng(1)
data = {"N": 20, "x": rng.normal(size=20), "tau": 1.0, "sigma": 1.0}
model = avi.Model(models_root() / "linear" / "linear.stan", data=data)
digests = []
for method, estimator in (("avi:mlp(4):full-rank", "path"), ("avi:polynomial(1)", "entropy")):
    fit = model.fit(method=method, steps=20, elbo_draws=20, estimator=estimator)
    leaves = jax.tree.leaves((fit.chains[0].family.globals, fit.chains[0].family.inference))
    parts = [fit.trace.elbo, fit.evaluation.log_weights, *map(np.asarray, leaves)]
    digests.append(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
counts = {name: seen.count(f"/jax/compilation_cache/cache_{name}") for name in ("hits", "misses")}
print(json.dumps({"digests": digests, **counts}))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty cache folder in place of the user's, and no cache of JAX's own."""
    monkeypatch.setenv("AVISTAN_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("AVISTAN_NO_CACHE", *(name.upper() for name in SETTINGS)):
        monkeypatch.delenv(name, raising=False)
    before = settings()
    jax.config.update(SETTINGS[0], None)
    jax.config.update(SETTINGS[2], 1.0)
    reset_cache()
    yield tmp_path / "cache"
    for name, value in zip(SETTINGS, before, strict=True):
        jax.config.update(name, value)
    reset_cache()


def programs(place):
    return sorted(place.rglob("*-cache"))


def settings():
    return [getattr(jax.config, name) for name in SETTINGS]


@in_float64
def compiled(value: float) -> float:
    """Something that compiles anew on every call."""
    return float(jax.jit(lambda x: jnp.sin(x) + value)(1.0))


@pytest.mark.parametrize("without_handler", [False, True])
def test_a_second_process_loads_what_the_first_compiled_and_ends_at_the_same_bytes(place, without_handler):
    if not without_handler and not native_available():
        pytest.skip("the compiled handler was not built")
    environment = os.environ | {"AVISTAN_NO_NATIVE": "1" if without_handler else ""}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    def fitted():
        done = subprocess.run(
            [sys.executable, "-c", FIT], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return json.loads(done.stdout)

    first, second = fitted(), fitted()
    assert first["digests"] == second["digests"]
    assert first["misses"] > 0
    assert second["misses"] == 0
    assert second["hits"] >= first["misses"]


def test_settings_are_put_back_and_the_folder_is_the_users_alone(place):
    before = settings()
    with compile_cache():
        inside = settings()
        with compile_cache():
            assert settings() == inside
        assert settings() == inside
        assert inside[0].startswith(str(place))
    assert settings() == before
    (folder,) = place.iterdir()
    assert folder.stat().st_mode & 0o077 == 0


def test_only_what_avistan_compiles_is_kept(place):
    assert compiled(0.25) == pytest.approx(0.25 + 0.8414709848)
    kept = programs(place)
    assert kept
    jax.jit(lambda x: jnp.cos(x) + 0.125)(1.0)
    assert programs(place) == kept


def test_settings_are_put_back_after_an_error(place):
    before = settings()
    with pytest.raises(ZeroDivisionError), compile_cache():
        raise ZeroDivisionError
    assert settings() == before


def test_a_cache_that_the_user_configured_is_left_alone_and_used(place, tmp_path):
    own = tmp_path / "own"
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    reset_cache()
    before = settings()
    with compile_cache():
        assert settings() == before
    compiled(0.5)
    assert settings() == before
    assert programs(own)
    assert not programs(place)


def test_it_can_be_switched_off(place, monkeypatch):
    monkeypatch.setenv("AVISTAN_NO_CACHE", "1")
    compiled(0.75)
    assert not place.exists()


@pytest.mark.parametrize("trouble", ["a file in the way", "open to others"])
def test_a_folder_that_does_not_serve_is_one_warning(place, trouble):
    if trouble == "a file in the way":
        place.write_text("")
    else:
        with compile_cache():
            pass
        (folder,) = place.iterdir()
        os.rename(folder, place.parent / "x")
        place.rmdir()
        os.makedirs(place / folder.name)
        os.chmod(place / folder.name, 0o777)
        _made.cache_clear()
    with pytest.warns(CompileCacheWarning, match="AVISTAN_CACHE_DIR"):
        assert compiled(1.25) == pytest.approx(1.25 + 0.8414709848)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(1.5)
    assert not programs(place)


def test_a_damaged_program_is_compiled_again(place):
    def same() -> float:
        jax.clear_caches()
        return in_float64(lambda: float(jax.jit(lambda x: jnp.sin(x) * 3.5)(1.0)))()

    expected = same()
    for program in programs(place):
        program.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        assert same() == expected


def test_folders_of_other_versions_and_machines_are_kept_only_while_they_are_few(place):
    for number in range(6):
        folder = place / f"jax-old-{number}"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    with compile_cache():
        pass
    assert {path.name for path in place.glob("jax-old-*")} == {"jax-old-3", "jax-old-4", "jax-old-5"}
