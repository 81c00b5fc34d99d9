"""Minibatches: bound models on some units that add up to the whole, and the pool that keeps them."""

import ctypes
import functools
from collections import Counter

import numpy as np
import pytest

from sliced_cases import CASES, ROOT, bind, inspected, level_of, sliced
from stan_adapters.bound.bound_model import BoundModel
from stan_adapters.data.stan_data import read_data
from stan_adapters.engine.abi import Abi
from stan_adapters.errors import BindingError, EngineError, StructureError
from stan_adapters.language.program import Program
from stan_adapters.shards import pool as shard_pool
from stan_adapters.shards.base import BaseTerm, compare_with_whole, make_base
from stan_adapters.shards.pool import Schedule, ShardPool, shard_bytes
from stan_adapters.shards.shard import (
    Shard,
    ShardMaker,
    batch_size,
    data_numbers,
    minibatches_pay,
    partition,
)
from stan_adapters.unit_data import Slicing
from stan_adapters.unit_data.rules import parse_rules

LEVELS = {"linear": "N", "lsat_2pl": "N", "random_slopes": "J"}


@functools.cache
def bundled(name: str, *changes: tuple[str, str]) -> ShardMaker:
    """An example, its text changed."""
    folder = ROOT / "stan_models" / name
    code = (folder / f"{name}.stan").read_text()
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    model = bind(code, folder / "data.json")
    return ShardMaker(model, level_of(model, LEVELS[name]), sliced(model, LEVELS[name]))


def normals(units: int) -> ShardMaker:
    """The linear example with some units."""
    x = np.random.default_rng(units).normal(size=units)
    data = {"N": units, "x": x, "tau": 1.0, "sigma": 2.0}
    model = bind(ROOT / "stan_models" / "linear" / "linear.stan", data)
    return ShardMaker(model, level_of(model, "N"), sliced(model, "N"))


def random_point(maker: ShardMaker, scale: float = 0.4):
    """Globals (2, G), blocks (2, N, d) and the points (2, D) of the whole model."""
    rng, at = np.random.default_rng(0), maker.level.globals_index(maker.model.dim)
    theta = scale * rng.normal(size=(2, len(at)))
    z = scale * rng.normal(size=(2, *maker.level.index.shape))
    point = np.empty((2, maker.model.dim))
    point[:, at], point[:, maker.level.index] = theta, z
    return theta, z, point


# ---- the estimate of the whole


@pytest.mark.parametrize("name", LEVELS)
def test_the_mean_over_the_batches_of_a_partition_is_the_whole(name):
    maker = bundled(name)
    theta, z, point = random_point(maker)
    at, index = maker.level.globals_index(maker.model.dim), maker.level.index
    batches = partition(np.random.default_rng(3), maker.level.num_units, 150)
    assert len({len(units) for units in batches}) == 2  # the number of units is no multiple of the size
    lps, gradients = [], []
    with make_base(maker, np.full(maker.level.block, 0.3)) as base:
        base_lp, base_gradient = base.log_density_gradient(theta)
        for units in batches:
            shard = maker(units)
            with shard.model:
                lp, gradient = shard.model.log_density_gradient(shard.place(theta, z[:, shard.units]))
            estimate = np.zeros_like(point)
            scaled = gradient[:, shard.globals_index] - base_gradient
            estimate[:, at] = base_gradient + len(batches) * scaled
            estimate[:, index[shard.units]] = len(batches) * gradient[:, shard.index]
            lps.append(base_lp + len(batches) * (lp - base_lp))
            gradients.append(estimate)
    lp, gradient = maker.model.log_density_gradient(point)
    np.testing.assert_allclose(np.mean(lps, axis=0), lp, rtol=1e-12)
    np.testing.assert_allclose(np.mean(gradients, axis=0), gradient, rtol=1e-10, atol=1e-10)


def test_every_program_that_can_be_sliced_is_the_sum_of_its_minibatches():
    checked = {}
    for name in CASES:
        model, level, slicing = inspected(name)
        if isinstance(slicing, Slicing):
            maker = ShardMaker(model, level, slicing)
            theta, z, _ = random_point(maker, scale=0.1)
            size = max(2, level.num_units // 4)
            with (
                make_base(maker, np.zeros(level.block)) as base,
                ShardPool(maker, size=size, seed=1) as pool,
            ):
                probe = compare_with_whole(maker.everyone(), base.terms, pool.epoch(1), theta, z)
            checked[name] = max(base.probe.statistic, probe.statistic)
    assert len(checked) > 30
    assert {name: statistic for name, statistic in checked.items() if statistic > 1e-12} == {}


def test_the_base_of_the_linear_model_is_zero_and_needs_no_units():
    maker = bundled("linear")  # the prior of theta is flat
    with make_base(maker, np.zeros(1)) as base:
        assert [(term.coefficient, term.model.dim) for term in base.terms] == [(1.0, 1)]
        lp, gradient = base.log_density_gradient(np.array([[0.7], [-3.0]]))
    np.testing.assert_array_equal(lp, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("locals_at", [np.array([1.3]), np.linspace(-2, 2, 1000)[:, None]])
def test_where_no_units_are_refused_three_terms_leave_the_priors(locals_at):
    theta = np.random.default_rng(0).normal(size=(3, 10))
    maker = bundled("lsat_2pl", ("int<lower=0> N", "int<lower=1> N"))
    with make_base(maker, locals_at) as base:
        assert [term.coefficient for term in base.terms] == [1.0, 1.0, -1.0]
        lp, gradient = base.log_density_gradient(theta)
    log_a, b = theta[:, :5], theta[:, 5:]  # a ~ lognormal(0, 0.5), with its Jacobian; b ~ normal(0, 2)
    expected = -2 * (log_a**2).sum(axis=1) - (b**2).sum(axis=1) / 8
    np.testing.assert_allclose(gradient, np.concatenate([-4 * log_a, -b / 4], axis=1), atol=1e-12)
    np.testing.assert_allclose(lp - lp[0], expected - expected[0], atol=1e-12)


def test_a_base_comes_with_its_evidence_and_counts_it():
    maker = bundled("random_slopes", ("int<lower=0> J", "int<lower=1> J"))
    with make_base(maker, np.zeros(2)) as base:
        assert base.probe.holds
        assert 0 < base.probe.statistic < 1e-12
        assert base.probe.evaluations == 2 * (1 + 3 + 3)  # two points: the whole, three parts, three terms


def test_a_wrong_base_or_a_missing_batch_is_found():
    maker = bundled("linear")
    theta, z, _ = random_point(maker)
    shards = [maker(units) for units in partition(np.random.default_rng(0), 1000, 250)]
    with make_base(maker, np.zeros(1)) as right:
        assert compare_with_whole(maker.everyone(), right.terms, shards, theta, z).holds
        assert not compare_with_whole(maker.everyone(), right.terms, shards[1:], theta, z).holds
    one = maker(np.arange(1))
    template = one.place(np.zeros(1), np.zeros((1, 1)))
    wrong = (BaseTerm(1.0, one.model, one.globals_index, template),)
    assert not compare_with_whole(maker.everyone(), wrong, shards, theta, z).holds


def test_units_that_do_not_add_up_are_refused():
    program = Program.from_code("""
        data { int N; vector[N] x; }
        transformed data { real middle = N > 0 ? mean(x) : 0; }
        parameters { real mu; vector[N] z; }
        model { mu ~ std_normal(); z ~ normal(mu, 1); x - middle ~ normal(z, 1); }""")
    model = bind(program.source, {"N": 20, "x": np.arange(20.0) ** 2})
    slicing = Slicing(
        level="N",
        rules=parse_rules(program, {"N": "size", "x": "unit"}),
        evidence=(),
        smallest=0,
        bindings=0,
        evaluations=0,
    )
    with pytest.raises(StructureError, match=r"of N do not add up to the whole .*train on all units"):
        make_base(ShardMaker(model, level_of(model, "N"), slicing), np.zeros(1))


# ---- batches


@pytest.mark.parametrize(("units", "size"), [(10, 3), (1000, 150), (7, 7), (5, 1)])
def test_a_partition_has_every_unit_once_in_batches_of_nearly_one_size(units, size):
    batches = partition(np.random.default_rng(0), units, size)
    assert len(batches) == -(-units // size)
    assert sorted(np.concatenate(batches)) == list(range(units))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_without_units_or_larger_than_all_is_refused():
    for size in (0, 11):
        with pytest.raises(StructureError, match=f"has 1 to 10 units, not {size}"):
            partition(np.random.default_rng(0), 10, size)


def test_sizes_follow_from_counts_of_units_and_data():
    ability = bundled("lsat_2pl")
    responses = np.zeros((40_000, 5), dtype=np.int64)
    program = ability.model.program
    many = read_data(program, {"N": 40_000, "I": 5, "y": responses})
    assert data_numbers(ability.slicing, many) == 200_000
    assert batch_size(ability.slicing, many) == 1000  # 5 numbers a person: the most units that a batch has
    assert minibatches_pay(ability.slicing, many)
    assert batch_size(ability.slicing, ability.model.data) == 1000  # all there are
    assert not minibatches_pay(ability.slicing, ability.model.data)
    for items, persons in ((40, 500), (400, 200)):  # 20000 numbers, and the fewest units
        wide = {"N": 3000, "I": items, "y": np.zeros((3000, items), dtype=np.int64)}
        assert batch_size(ability.slicing, read_data(program, wide)) == persons
    slopes = bundled("random_slopes")  # 400 groups
    assert data_numbers(slopes.slicing, slopes.model.data) == 3 * int(slopes.model.data["N"])


# ---- shards


def test_shards_of_one_size_share_their_positions():
    maker = bundled("random_slopes")
    one, other, smaller = (maker(np.arange(*ends)) for ends in ((0, 50), (50, 100), (100, 140)))
    assert one.index is other.index
    assert one.globals_index is other.globals_index
    assert smaller.index.shape == (40, 2)
    names = [one.model.layout.label(i) for i in one.globals_index]
    assert names == ["mu_alpha", "mu_beta", "tau_alpha", "tau_beta"]
    assert [smaller.model.layout.label(i) for i in smaller.index[0]] == ["alpha[1]", "beta[1]"]


def test_a_unit_with_rows_comes_last():
    rng = np.random.default_rng(0)
    group = np.repeat([1, 2, 3, 4, 6, 7, 9, 10], 3)  # groups 5 and 8 have no rows
    data = {"N": 24, "J": 10, "g": group, "x": rng.normal(size=24), "y": rng.poisson(1, size=24)}
    model = bind(ROOT / "stan_models" / "random_slopes" / "random_slopes.stan", data)
    maker = ShardMaker(model, level_of(model, "J"), sliced(model, "J"))
    shard = maker(np.array([0, 8, 4, 7]))
    assert shard.units.tolist() == [0, 4, 7, 8]
    theta, z, point = random_point(maker)
    _, gradient = shard.model.log_density_gradient(shard.place(theta, z[:, shard.units]))
    _, whole = model.log_density_gradient(point)
    np.testing.assert_allclose(gradient[:, shard.index], whole[:, maker.level.index[shard.units]])


# ---- the schedule


def units_of(schedule: Schedule, seed: int, count: int) -> list[list[list[int]]]:
    found = schedule.rounds(np.random.default_rng(seed))
    return [[batch.units.tolist() for batch in next(found)] for _ in range(count)]


def test_a_partition_that_fits_stays_one_while_a_few_batches_exchange_units():
    schedule = Schedule(num_units=103, size=5, capacity=30)
    assert (schedule.num_batches, schedule.changed, schedule.held) == (21, 2, 21)
    rounds = schedule.rounds(np.random.default_rng(0))
    previous = next(rounds)
    for _ in range(50):
        present = next(rounds)
        assert sorted(np.concatenate([batch.units for batch in present])) == list(range(103))
        assert {len(batch.units) for batch in present} == {4, 5}
        assert len(set(present) & set(previous)) == 19
        previous = present


def test_units_of_a_batch_are_spread_over_all_batches_in_time():
    rounds = Schedule(num_units=400, size=100, capacity=10).rounds(np.random.default_rng(0))
    first = next(rounds)[0]
    for _ in range(100):
        present = next(rounds)
    together = [len(np.intersect1d(first.units, batch.units)) for batch in present]
    # hypergeometric: 100 of 400 units, 100 of them from the first batch
    assert np.abs(np.array(together) - 25).max() < 5 * np.sqrt(25 * 0.75 * 300 / 399)


def test_what_does_not_fit_runs_through_all_units_equally_often():
    schedule = Schedule(num_units=60, size=2, capacity=10)
    assert not schedule.resident
    assert (schedule.held, schedule.changed) == (9, 1)
    found = schedule.rounds(np.random.default_rng(0))
    seen = {batch: batch.units for _ in range(8 + 3 * 30) for batch in next(found)}
    counts = Counter(np.concatenate(list(seen.values())[: 3 * 30]).tolist())
    assert set(counts.values()) == {3}  # three partitions of 30 batches


def test_a_partition_that_should_not_change_needs_no_room_to_change():
    schedule = Schedule(num_units=100, size=10, capacity=10, renew=0.0)
    assert (schedule.resident, schedule.changed) == (True, 0)
    one, two = (set(map(tuple, round)) for round in units_of(schedule, 0, 2))
    assert one == two


# ---- the pool


@pytest.mark.parametrize("memory_budget", [1 << 30, 1])
def test_the_same_seed_gives_the_same_subsets_with_any_number_of_workers(memory_budget):
    maker = normals(60)

    def subsets(seed: int, workers: int, start: int = 0) -> list[list[list[int]]]:
        options = {"size": 7, "memory_budget": memory_budget, "workers": workers, "start": start}
        with ShardPool(maker, seed=seed, **options) as pool:
            return [[shard.units.tolist() for shard in pool.epoch(k)] for k in range(start, 4)]

    one = subsets(1, 1)
    assert one == subsets(1, 4)
    assert one != subsets(2, 1)
    assert one[2:] == subsets(1, 2, start=2)


def test_training_can_begin_on_the_first_shards():
    with ShardPool(normals(60), size=7, seed=1) as pool:
        first = pool.first(3)
        assert pool.epoch(0)[:3] == first
        assert pool.first(100) == pool.epoch(0)
        np.testing.assert_array_equal(first[0].model.data["x"], pool.maker.model.data["x"][first[0].units])


def test_rounds_of_a_pool_add_up_to_the_whole():
    maker = bundled("random_slopes")
    theta, z, _ = random_point(maker)
    with make_base(maker, np.zeros(2)) as base, ShardPool(maker, size=70, seed=1) as pool:
        for number in range(3):
            probe = compare_with_whole(maker.everyone(), base.terms, pool.epoch(number), theta, z)
            assert probe.statistic < 1e-12


def test_shards_that_left_are_closed_and_the_others_kept():
    with ShardPool(normals(60), size=5, seed=1) as pool:
        one, two = pool.epoch(0), pool.epoch(1)
        left = set(one) - set(two)
        assert len(left) == len(set(two) - set(one)) == 2
        assert [shard.model.closed for shard in left] == [True, True]
        assert not any(shard.model.closed for shard in two)
        with pytest.raises(BindingError, match="round 0 is past: the pool is at round 1"):
            pool.epoch(0)


def test_closing_frees_every_handle_and_refuses_further_use(monkeypatch):
    maker = normals(60)
    alive = Counter()
    construct, destruct = Abi.construct, Abi.destruct

    def counting_construct(self, *arguments):
        handle, printed = construct(self, *arguments)
        alive["made"] += 1
        return handle, printed

    def counting_destruct(self, handle):
        alive["freed"] += 1
        destruct(self, handle)

    monkeypatch.setattr(Abi, "construct", counting_construct)
    monkeypatch.setattr(Abi, "destruct", counting_destruct)

    def fail_in_round_two() -> None:
        pool.epoch(2)
        raise ZeroDivisionError

    pool = ShardPool(maker, size=5, seed=1, workers=3)
    pool.epoch(0)
    with pytest.raises(ZeroDivisionError), pool:
        fail_in_round_two()
    assert alive["made"] == alive["freed"] > 12
    assert pool.closed
    assert pool.num_held == 0
    with pytest.raises(BindingError, match="pool of minibatches is closed"):
        pool.epoch(2)


class MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]


LIBC = ctypes.CDLL(None)
needs_mallinfo = pytest.mark.skipif(not hasattr(LIBC, "mallinfo2"), reason="the C library has no mallinfo2")


def allocated() -> int:
    """Bytes in use: small blocks (uordblks) and mapped ones (hblkhd)."""
    LIBC.mallinfo2.restype = MallInfo
    info = LIBC.mallinfo2()
    return info.field7 + info.field4


@needs_mallinfo
def test_a_small_budget_is_kept_by_holding_a_window_of_shards():
    maker = normals(20_000)
    size = 1000
    budget = 8 * shard_bytes(maker, size, 1)
    before = allocated()
    with ShardPool(maker, size=size, seed=1, memory_budget=budget) as pool:
        assert (pool.schedule.resident, pool.schedule.held, pool.schedule.changed) == (False, 7, 1)
        for number in range(12):
            assert len(pool.epoch(number)) == 7
            assert pool.num_held == 8
            assert allocated() - before < 1.5 * budget


@needs_mallinfo
@pytest.mark.parametrize("name", LEVELS)
def test_the_memory_of_a_shard_with_its_gradients_is_about_what_the_allocator_hands_out(name, monkeypatch):
    monkeypatch.setattr(BoundModel, "_threads_for", lambda model, points: 2)  # as in training
    maker, grown, shards = bundled(name), [], []
    for _ in range(3):
        before = allocated()
        shards.append(maker(np.arange(400)))
        shards[-1].model.log_density_gradient(np.zeros((8, shards[-1].model.dim)))
        grown.append(allocated() - before)
    for shard in shards:
        shard.model.close()
    assert sorted(grown)[1] / 2 < shard_bytes(maker, 400, 1) < 2 * sorted(grown)[1]


def test_an_error_in_a_background_thread_reaches_the_caller_as_it_is():
    maker = normals(60)

    class RefusesUnit:
        """Raises as a program that refuses some units would, from the fourth shard on."""

        level, model, slicing = maker.level, maker.model, maker.slicing
        calls = 0

        def __call__(self, units: np.ndarray) -> Shard:
            RefusesUnit.calls += 1
            if RefusesUnit.calls > 3:
                raise EngineError("the program refuses these data")
            return maker(units)

    with ShardPool(RefusesUnit(), size=10, seed=1, workers=1) as pool:
        assert len(pool.first(3)) == 3  # three were bound before, to measure them
        with pytest.raises(EngineError, match="refuses these data"):
            pool.epoch(0)
    assert pool.num_held == 0


def test_memory_is_handed_back_where_the_c_library_can(monkeypatch):
    asked = []

    class Library:
        def malloc_trim(self, left):
            asked.append(left)

    for library in (Library, object):
        monkeypatch.setattr(shard_pool.ctypes, "CDLL", lambda name, library=library: library())
        shard_pool._give_memory_back()
    assert asked == [0]


def test_transformed_data_that_are_cut_with_the_units_count_among_their_numbers():
    code = """data { int N; int J; vector[N] y; array[N] int<lower=1, upper=J> g; }
    transformed data { vector[N] total = cumulative_sum(y); }
    parameters { vector[J] z; } model { z ~ normal(0, 1); y ~ normal(z[g] + 0.01 * total, 1); }"""
    rng = np.random.default_rng(1)
    model = bind(
        code, {"N": 60, "J": 12, "y": rng.normal(size=60), "g": rng.permutation(np.arange(60) % 12) + 1}
    )
    slicing = sliced(model, "J")
    assert slicing.derivation.names == ("total",)
    assert data_numbers(slicing, model.data) == 3 * 60
    maker = ShardMaker(model, level_of(model, "J"), slicing)
    with make_base(maker, np.zeros(1)) as base:
        assert base.probe.holds
    assert batch_size(slicing, model.data) == 12
