"""What is expected of each tiny program in this folder: one row per program, with a maker of its data.

A case's `level` is the declared size of its units, and `latents` are the parameters with one block per unit
of that level. Where two levels separate (persons and items), the row names the one with more units. For a
`not-closable` program the row names the level that fails. `coupling` says which of its units meet given
everything else: the k nearest on each side ("band k"), all of them ("dense"), the neighbours in a graph
("graph"). "other level" marks a program whose chosen level separates while another one, which could be taken
for it, is coupled.

`data_inputs` are the data entries on which a unit's conditional depends, sorted. Arrays that say which rows belong to a
unit (an index, group sizes, first and last rows) are among them. `inputs` is "simple" when a unit's own entries are
enough, "expanded" when they are not (a neighbour's entry or the position is needed too), "unknown" when the
declarations do not say whose an entry is.
`alt_verdicts` and `alt_inputs` are answers that a careful reader could defend instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Verdict = Literal["closable", "not-closable", "nothing-to-amortize"]
Inputs = Literal["simple", "expanded", "unknown"]
Coupling = Literal["band 1", "band 2", "dense", "graph", "other level"]
DataMaker = Callable[[np.random.Generator], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """The expected structure of one program."""

    name: str
    verdict: Verdict
    level: str | None
    latents: tuple[str, ...]
    inputs: Inputs | None
    coupling: Coupling | None
    data_inputs: tuple[str, ...]
    note: str
    make_data: DataMaker
    alt_verdicts: tuple[Verdict, ...] = ()
    alt_inputs: tuple[Inputs, ...] = ()

    @property
    def stan_file(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.stan")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict that counts as right, the expected one first."""
        return (self.verdict, *self.alt_verdicts)


CASES: dict[str, Case] = {}


def _add(case: Case) -> None:
    CASES[case.name] = case


def closable(
    level: str,
    *latents: str,
    data: tuple[str, ...],
    inputs: Inputs = "simple",
    coupling: Literal["other level"] | None = None,
    note: str = "",
    alt_verdicts: tuple[Verdict, ...] = (),
    alt_inputs: tuple[Inputs, ...] = (),
) -> Callable[[DataMaker], DataMaker]:
    def register(maker: DataMaker) -> DataMaker:
        _add(
            Case(
                name=maker.__name__,
                verdict="closable",
                level=level,
                latents=tuple(sorted(latents)),
                inputs=inputs,
                coupling=coupling,
                data_inputs=tuple(sorted(data)),
                note=note,
                make_data=_as_stan_data(maker),
                alt_verdicts=alt_verdicts,
                alt_inputs=alt_inputs,
            )
        )
        return maker

    return register


def not_closable(
    level: str, *latents: str, coupling: Coupling, note: str = ""
) -> Callable[[DataMaker], DataMaker]:
    def register(maker: DataMaker) -> DataMaker:
        _add(
            Case(
                name=maker.__name__,
                verdict="not-closable",
                level=level,
                latents=tuple(sorted(latents)),
                inputs=None,
                coupling=coupling,
                data_inputs=(),
                note=note,
                make_data=_as_stan_data(maker),
            )
        )
        return maker

    return register


def nothing_to_amortize(
    *, note: str = "", alt_verdicts: tuple[Verdict, ...] = ()
) -> Callable[[DataMaker], DataMaker]:
    def register(maker: DataMaker) -> DataMaker:
        _add(
            Case(
                name=maker.__name__,
                verdict="nothing-to-amortize",
                level=None,
                latents=(),
                inputs=None,
                coupling=None,
                data_inputs=(),
                note=note,
                make_data=_as_stan_data(maker),
                alt_verdicts=alt_verdicts,
            )
        )
        return maker

    return register


def _as_stan_data(maker: DataMaker) -> DataMaker:
    """The same maker with arrays turned into nested lists: plain Stan JSON."""

    def make(rng: np.random.Generator) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in maker(rng).items()}

    return make


def _group_index(rng: np.random.Generator, rows: int, groups: int) -> np.ndarray:
    """A 1-based index of `rows` rows into `groups` groups, every group present, in random order."""
    return rng.permutation(np.concatenate([np.arange(groups), rng.integers(0, groups, rows - groups)])) + 1


# ---- one row of data per unit


@closable("N", "z", data=("x",))
def linear(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 20, "x": rng.normal(1, 2.5, 20)}


@closable("N", "z", data=("y",))
def array_of_vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 30, "K": 2, "D": 4, "y": rng.normal(size=(30, 4))}


@closable("N", "Z", data=("y",))
def matrix_columns(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 25, "K": 2, "D": 5, "y": rng.normal(size=(5, 25))}


@closable("N", "Z", data=("y",))
def matrix_rows(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 24, "K": 3, "D": 5, "y": rng.normal(size=(24, 5))}


@closable("N", "log_s", "m", data=("y",))
def two_containers(rng: np.random.Generator) -> dict[str, Any]:
    sd = np.exp(rng.normal(0, 0.5, 18))[:, None]
    return {"N": 18, "R": 5, "y": rng.normal(rng.normal(0, 1, (18, 1)), sd, (18, 5))}


@closable("N", "theta", data=("y",), note="block of K - 1 unconstrained coordinates")
def mixed_membership(rng: np.random.Generator) -> dict[str, Any]:
    profiles = rng.dirichlet(np.ones(6), 3)
    shares = rng.dirichlet(np.ones(3), 22)
    return {"N": 22, "K": 3, "V": 6, "y": np.array([rng.multinomial(15, p) for p in shares @ profiles])}


@closable("N", "lambda", data=("exposure", "y"))
def positive_locals(rng: np.random.Generator) -> dict[str, Any]:
    exposure = rng.uniform(0.5, 3, 16)
    return {"N": 16, "exposure": exposure, "y": rng.poisson(exposure * rng.gamma(2, 1, 16))}


@closable("N", "cut", data=("y",))
def ordered_locals(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 15, "R": 8, "y": rng.integers(1, 4, (15, 8))}


@closable("N", "z", data=("x",))
def non_centred(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 17, "x": rng.normal(2, 1.3, 17)}


@closable("N", "z", data=("X", "y"))
def covariates(rng: np.random.Generator) -> dict[str, Any]:
    X = rng.normal(size=(28, 3))
    return {"N": 28, "P": 3, "X": X, "y": rng.poisson(np.exp(0.5 + X @ [0.4, -0.3, 0.2]))}


@closable("N", "z", data=("w", "y"))
def measurement_error(rng: np.random.Generator) -> dict[str, Any]:
    z = rng.normal(size=21)
    return {"N": 21, "w": rng.normal(z, 0.5), "y": rng.normal(1 + 0.8 * z, 0.4)}


# ---- rows found through an index


@closable("J", "alpha", data=("g", "x", "y"))
def varying_intercept(rng: np.random.Generator) -> dict[str, Any]:
    g, x = _group_index(rng, 50, 13), rng.normal(size=50)
    return {"N": 50, "J": 13, "g": g, "x": x, "y": rng.normal(rng.normal(0, 1, 13)[g - 1] + 0.5 * x, 0.6)}


@closable("J", "alpha", data=("g", "y"), note="groups 4, 9 and the last have no rows")
def groups_without_rows(rng: np.random.Generator) -> dict[str, Any]:
    present = np.setdiff1d(np.arange(1, 15), [4, 9, 14])
    return {"N": 40, "J": 14, "g": rng.permutation(np.resize(present, 40)), "y": rng.integers(0, 2, 40)}


@closable("J", "beta", data=("g", "x", "y"))
def correlated_effects(rng: np.random.Generator) -> dict[str, Any]:
    g, x = _group_index(rng, 55, 12), rng.normal(size=55)
    return {"N": 55, "J": 12, "g": g, "x": x, "y": rng.normal(0.5 + 0.8 * x, 1.0)}


@closable("J", "z", data=("g", "x", "y"))
def correlated_effects_non_centred(rng: np.random.Generator) -> dict[str, Any]:
    g, x = _group_index(rng, 52, 11), rng.normal(size=52)
    return {"N": 52, "J": 11, "g": g, "x": x, "y": rng.normal(0.5 + 0.8 * x, 1.0)}


@closable("J", "alpha", data=("g", "u", "x", "y"))
def group_predictors(rng: np.random.Generator) -> dict[str, Any]:
    g, x, u = _group_index(rng, 48, 12), rng.normal(size=48), rng.normal(size=12)
    return {"N": 48, "J": 12, "g": g, "u": u, "x": x, "y": rng.normal(0.7 * u[g - 1] + 0.5 * x, 0.6)}


@closable("P", "theta", data=("ii", "jj", "y"), note="level I (a, b) separates too, with fewer units")
def item_response_long(rng: np.random.Generator) -> dict[str, Any]:
    pairs = np.array([(p, i) for p in range(1, 27) for i in range(1, 7) if rng.uniform() < 0.8 or i == 1])
    pairs = rng.permutation(pairs)
    n = len(pairs)
    return {"N": n, "P": 26, "I": 6, "jj": pairs[:, 0], "ii": pairs[:, 1], "y": rng.integers(0, 2, n)}


@closable("S", "u", data=("class_of", "student", "y"), note="level C (v) separates too, given the students")
def nested(rng: np.random.Generator) -> dict[str, Any]:
    class_of, student = _group_index(rng, 24, 5), _group_index(rng, 60, 24)
    y = rng.normal(rng.normal(size=24)[student - 1], 0.7)
    return {"N": 60, "S": 24, "C": 5, "class_of": class_of, "student": student, "y": y}


@closable("J", "alpha", data=("county", "y"))
def index_without_bounds(rng: np.random.Generator) -> dict[str, Any]:
    county = _group_index(rng, 45, 10)
    return {"N": 45, "J": 10, "county": county, "y": rng.normal(rng.normal(size=10)[county - 1], 1)}


# ---- tables, ragged rows, documents


@closable("N", "theta", data=("y",), note="level T (d) separates too, with fewer units")
def rows_of_a_table(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 23, "T": 6, "y": rng.integers(0, 2, (23, 6))}


@closable("N", "z", data=("y",), note="level T (season) separates too, with fewer units")
def columns_of_a_table(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 19, "T": 7, "y": rng.poisson(2, (7, 19))}


@closable("S", "u", "v", data=("y",))
def occupancy(rng: np.random.Generator) -> dict[str, Any]:
    present = rng.uniform(size=(26, 1)) < 0.6
    return {"S": 26, "V": 4, "y": (present & (rng.uniform(size=(26, 4)) < 0.5)).astype(int)}


@closable("J", "slope", data=("size_of", "x", "y"))
def ragged_sizes(rng: np.random.Generator) -> dict[str, Any]:
    # segment() checks its start even for no rows, so the last group must have some.
    sizes = np.append(rng.permutation(np.resize([1, 2, 3, 5, 0], 14)), 4)
    n, x = int(sizes.sum()), rng.normal(size=sizes.sum())
    return {"N": n, "J": 15, "size_of": sizes, "x": x, "y": rng.normal(0.6 * x, 0.5)}


@closable("J", "z", data=("first", "last", "y"))
def ragged_start_end(rng: np.random.Generator) -> dict[str, Any]:
    sizes = rng.permutation(np.resize([1, 2, 4, 6], 14))
    last = np.cumsum(sizes)
    return {
        "N": last[-1],
        "J": 14,
        "first": last - sizes + 1,
        "last": last,
        "y": rng.poisson(3, last[-1]),
    }


@closable("M", "theta", data=("doc", "w"), note="the topics are globals: they meet in every word")
def topics(rng: np.random.Generator) -> dict[str, Any]:
    doc = np.repeat(np.arange(1, 16), rng.integers(5, 12, 15))
    return {"K": 3, "V": 9, "M": 15, "N": doc.size, "w": rng.integers(1, 10, doc.size), "doc": doc}


@closable("M", "eps", data=("Kmin", "V", "X", "offset_det", "offset_state", "y"))
def n_mixture(rng: np.random.Generator) -> dict[str, Any]:
    M, T = 60, 3
    y = rng.binomial(rng.poisson(4, (M, 1)), 0.5, (M, T))
    used = {"y": y, "Kmin": y.max(axis=1), "X": rng.normal(size=(M, 2)), "V": rng.normal(size=(M, T))}
    offsets = {"offset_state": 0.3 * rng.normal(size=M), "offset_det": 0.3 * rng.normal(size=(M, T))}
    switches = {"has_random_state": 1, "has_random_det": 0, "prior_dist_state": 1, "prior_dist_det": 1}
    idle = {
        "prior_pars_state": [0, 1, 0],
        "prior_pars_det": [0, 1, 0],
        "visits": np.full(M, T),
        "first_visit": np.arange(M) * T + 1,
        "site": np.arange(1, M + 1),
        "primary": rng.integers(1, 4, M),
        "basis": rng.normal(size=(M, 3)),
        "area": rng.uniform(1, 2, M),
        "no_weights": np.ones(M),
        "no_groups": np.zeros(M, dtype=int),
        "knots": [0.1, 0.4, 0.6, 0.9],
    }
    return {"M": M, "T": T, "P": 2, "K": 20, **used, **offsets, **switches, **idle}


@closable("nind", "epsilon", data=("y",))
def capture_recapture(rng: np.random.Generator) -> dict[str, Any]:
    y = (rng.uniform(size=(24, 6)) < 0.5).astype(int)
    y[np.arange(24), rng.integers(0, 5, 24)] = 1
    return {"nind": 24, "T": 6, "y": y}


@closable("I", "theta", data=("y",), note="C classes of persons are summed out")
def cognitive_diagnosis(rng: np.random.Generator) -> dict[str, Any]:
    Q = (rng.uniform(size=(5, 2)) < 0.5).astype(int)
    Q[Q.sum(axis=1) == 0, 0] = 1
    return {
        "I": 27,
        "J": 5,
        "K": 2,
        "C": 4,
        "Q": Q,
        "alpha": np.array([[0, 0], [1, 0], [0, 1], [1, 1]]),
        "y": rng.integers(0, 2, (27, 5)),
    }


# ---- own data is not enough


@closable("N", "z", data=("x",), inputs="expanded", note="offsets 0 and 1 of x, which has N + 1 entries")
def saw(rng: np.random.Generator) -> dict[str, Any]:
    x = [0.0]
    for _ in range(20):
        x.append(rng.normal(0.75 * (rng.normal(x[-1], 1) + 0.5), 1))
    return {"N": 20, "x": np.array(x), "a": 0.75}


@closable("N", "z", data=("x",), inputs="expanded", note="offsets -1 and 0; the first unit is special")
def neighbour_mean(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 22, "x": rng.normal(size=22)}


@closable("N", "z", data=("y",), inputs="expanded", note="offsets -1 and 0; the first unit is special")
def autoregressive_observations(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 24, "y": rng.normal(size=24)}


@closable(
    "N",
    "z",
    data=("y",),
    inputs="expanded",
    alt_inputs=("simple", "unknown"),
    note="no neighbour's data, but f(y[n]) cannot close the gap: not exchangeable",
)
def position_as_number(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 25, "y": rng.poisson(np.exp(0.3 + np.arange(1, 26) / 25))}


# ---- units among the entries of one parameter, or under several sizes


@closable("J", "z", data=("group", "x", "y"))
def flat_blocks(rng: np.random.Generator) -> dict[str, Any]:
    group, x = _group_index(rng, 60, 12), rng.normal(size=60)
    return {"N": 60, "J": 12, "group": group, "x": x, "y": rng.poisson(np.exp(0.5 + 0.3 * x))}


@not_closable("q", "b", coupling="band 2")
def flat_blocks_of_neighbours(rng: np.random.Generator) -> dict[str, Any]:
    return CASES["flat_blocks"].make_data(rng)


@closable("K", "eta", data=("y",))
def flat_columns(rng: np.random.Generator) -> dict[str, Any]:
    return {"K": 11, "P": 2, "T": 6, "x": np.arange(6) / 3, "y": rng.normal(size=(11, 6))}


@nothing_to_amortize(alt_verdicts=("not-closable",), note="no data have K * P entries")
def flat_columns_centred(rng: np.random.Generator) -> dict[str, Any]:
    return CASES["flat_columns"].make_data(rng)


@closable(
    "sets of dr", "dr", data=("y",), inputs="unknown", note="the pairs; sr is coupled, given nothing of dr"
)
def dyads(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 9, "y": rng.poisson(2, (9, 9))}


@not_closable("N", "dr", "sr", coupling="dense", note="a prior on the sum of what a sender sends")
def dyads_in_triads(rng: np.random.Generator) -> dict[str, Any]:
    return CASES["dyads"].make_data(rng)


@closable("z_b[1:24]", "z_b", data=("class_of", "group", "x", "y"), inputs="unknown", alt_inputs=("simple",))
def two_groupings_in_one_vector(rng: np.random.Generator) -> dict[str, Any]:
    group, class_of, x = _group_index(rng, 120, 12), _group_index(rng, 120, 7), rng.normal(size=120)
    sizes = {"N": 120, "t": 2, "p": [2, 1], "l": [12, 7], "q": 31}
    return sizes | {"group": group, "class_of": class_of, "x": x, "y": rng.normal(0.5 * x, 1)}


@not_closable("q", "z_b", coupling="graph")
def two_groupings_of_neighbours(rng: np.random.Generator) -> dict[str, Any]:
    return CASES["two_groupings_in_one_vector"].make_data(rng)


@closable("J", "base", "extra", "theta", data=("control", "effect", "se"))
def one_level_of_three_sizes(rng: np.random.Generator) -> dict[str, Any]:
    base, se = rng.uniform(0.5, 2, 14), rng.uniform(0.1, 0.3, 14)
    return {
        "J": 14,
        "with_base": 1,
        "with_effect": 1,
        "effect": rng.normal(0.5 * base, se),
        "se": se,
        "control": rng.normal(base, se),
    }


@closable(
    "I", "ability", data=("y",), note="R = I = 12; level R (severity) separates too: they meet everywhere"
)
def crossed_levels_of_one_number(rng: np.random.Generator) -> dict[str, Any]:
    return {"I": 12, "R": 12, "y": rng.integers(0, 2, (12, 12))}


@closable("N_studies", "theta", data=("se", "y"), note="the priors separate as well, and share all the data")
def studies_under_several_priors(rng: np.random.Generator) -> dict[str, Any]:
    se = rng.uniform(0.5, 1.5, 15)
    return {"N_studies": 15, "N_priors": 4, "y": rng.normal(0.5, se), "se": se, "scale": [0.2, 0.5, 1.0, 2.0]}


# ---- coupled units


@not_closable("T", "z", coupling="band 1")
def random_walk(rng: np.random.Generator) -> dict[str, Any]:
    return {"T": 20, "y": np.cumsum(rng.normal(0, 0.5, 20))}


@not_closable("T", "eps", coupling="dense", note="falls off as phi^k: far pairs reach rounding error")
def ar1_non_centred(rng: np.random.Generator) -> dict[str, Any]:
    return {"T": 18, "y": np.cumsum(rng.normal(0, 0.5, 18))}


@not_closable("T", "z", coupling="band 2")
def ar2(rng: np.random.Generator) -> dict[str, Any]:
    return {"T": 21, "y": rng.poisson(2, 21)}


@not_closable("N", "eta", coupling="dense")
def gaussian_process(rng: np.random.Generator) -> dict[str, Any]:
    x = np.sort(rng.uniform(0, 5, 15))
    return {"N": 15, "x": x, "y": rng.normal(np.sin(x), 0.3)}


@not_closable("A", "phi", coupling="graph", note="a 5 x 6 lattice with shuffled names")
def icar(rng: np.random.Generator) -> dict[str, Any]:
    name = rng.permutation(30).reshape(5, 6) + 1
    across, down = (name[:, :-1], name[:, 1:]), (name[:-1], name[1:])
    node1, node2 = (np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(across, down, strict=True))
    return {"A": 30, "E": node1.size, "node1": node1, "node2": node2, "y": rng.poisson(2, 30)}


@not_closable("J", "strength", coupling="graph")
def paired_comparisons(rng: np.random.Generator) -> dict[str, Any]:
    winner = np.concatenate([np.arange(1, 17), rng.integers(1, 17, 20)])
    loser = (winner - 1 + np.concatenate([np.ones(16, dtype=int), rng.integers(1, 16, 20)])) % 16 + 1
    return {"G": 36, "J": 16, "winner": winner, "loser": loser}


@not_closable("J", "alpha", coupling="dense", note="J - 1 unconstrained coordinates: no unit owns one")
def sum_to_zero(rng: np.random.Generator) -> dict[str, Any]:
    g = _group_index(rng, 40, 12)
    return {"N": 40, "J": 12, "g": g, "y": rng.normal(size=40)}


@not_closable("J", "alpha", coupling="dense")
def soft_sum_to_zero(rng: np.random.Generator) -> dict[str, Any]:
    return {"J": 14, "y": rng.normal(size=14)}


@not_closable("N", "z", coupling="dense")
def centred_in_transformed_parameters(rng: np.random.Generator) -> dict[str, Any]:
    trials = rng.integers(5, 20, 16)
    return {"N": 16, "trials": trials, "y": rng.binomial(trials, 0.4)}


@not_closable("N", "z", coupling="dense")
def common_total(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 15, "y": rng.normal(size=15), "total": 25}


@not_closable("N", "z", coupling="band 1", note="one probe of one pair misses it three times in four")
def coupled_where_positive(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 18, "y": rng.normal(size=18)}


# ---- no units


@nothing_to_amortize()
def hidden_markov(rng: np.random.Generator) -> dict[str, Any]:
    return {"T": 30, "K": 2, "y": rng.normal(np.where(rng.uniform(size=30) < 0.5, -1.5, 1.5), 1)}


@nothing_to_amortize()
def mixture(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 40, "K": 3, "y": rng.normal(rng.choice([-3, 0, 3], 40), 0.8)}


@nothing_to_amortize()
def linear_regression(rng: np.random.Generator) -> dict[str, Any]:
    X = rng.normal(size=(40, 4))
    return {"N": 40, "P": 4, "X": X, "y": rng.normal(1 + X @ [1, -1, 0.5, 0], 0.7)}


@nothing_to_amortize(
    alt_verdicts=("not-closable",), note="lambda and z have one entry per coefficient, coupled"
)
def horseshoe(rng: np.random.Generator) -> dict[str, Any]:
    X = rng.normal(size=(35, 12))
    return {"N": 35, "P": 12, "X": X, "y": rng.normal(2 * X[:, 0] - X[:, 5], 1)}


@nothing_to_amortize(note="40 weights: with a long lengthscale the first few alone look coupled")
def basis_weights(rng: np.random.Generator) -> dict[str, Any]:
    x, order = np.sort(rng.uniform(-1, 1, 50)), np.arange(1, 41)
    basis = np.sin(np.pi * order * (x[:, None] + 1.5) / 3) / np.sqrt(1.5)
    frequency = np.pi * order / 3
    return {"N": 50, "M": 40, "basis": basis, "frequency": frequency, "y": rng.normal(np.sin(3 * x), 0.2)}


# ---- transformed data, sizes, rejections


@closable(
    "N",
    "theta",
    data=("cum", "pattern"),
    inputs="simple",
    note="N = cum[R]; one entry of pattern serves all persons who gave it",
)
def response_patterns(rng: np.random.Generator) -> dict[str, Any]:
    pattern = np.array([[b >> i & 1 for i in (3, 2, 1, 0)] for b in (0, 1, 3, 6, 7, 9, 12, 14, 15)])
    return {
        "R": 9,
        "I": 4,
        "cum": np.cumsum(rng.permutation([1, 2, 2, 3, 4, 4, 5, 6, 0])),
        "pattern": pattern,
    }


@closable(
    "N",
    "z",
    data=("y",),
    inputs="simple",
    alt_inputs=("expanded",),
    note="one f(y[n]) serves this data set; mean and sd of all y must be kept where it is cut",
)
def standardized_data(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 20, "y": rng.gamma(2, 3, 20)}


@closable("12", "z", data=("x",))
def hard_coded_size(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.normal(1, 1, 12)}


@closable("N", "z", data=("x",), note="reject() above 1.5: never for uniform(-1, 1), often for wider points")
def rejects(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 16, "x": rng.normal(-0.5, 1, 16)}


@closable("N", "z", data=("x",), note="infinite scale above about 2.19")
def overflowing_scale(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 14, "x": rng.normal(0, 1.5, 14)}


@closable(
    "A", "school", data=("y",), coupling="other level", note="A = W = 16; the weeks are coupled, band 1"
)
def same_number_two_levels(rng: np.random.Generator) -> dict[str, Any]:
    return {"A": 16, "W": 16, "y": rng.normal(size=(16, 16))}


@closable("J", "z", data=("y",), coupling="other level", note="J = K = 7; axis K is coupled, dense")
def square_by_accident(rng: np.random.Generator) -> dict[str, Any]:
    return {"J": 7, "K": 7, "y": rng.normal(size=(7, 7))}


@closable("P", "z", data=("y",), coupling="other level", note="axis T is coupled, band 1; block of T latents")
def panel_of_walks(rng: np.random.Generator) -> dict[str, Any]:
    return {"P": 13, "T": 5, "y": np.cumsum(rng.normal(0, 0.5, (13, 5)), axis=1)}


@closable("N - 1", "jump", data=("x",), inputs="expanded", note="offsets 0 and 1 of x, which has N entries")
def size_minus_one(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 19, "x": np.cumsum(rng.normal(0.3, 0.8, 19))}


@closable("J * K", "u", data=("y",), alt_inputs=("unknown",), note="row major: unit (j - 1) * K + k")
def size_product(rng: np.random.Generator) -> dict[str, Any]:
    return {"J": 6, "K": 4, "y": rng.poisson(2, (6, 4))}


@closable("n_seen", "z", data=("seen", "x"), alt_inputs=("unknown",), note="n_seen = sum(seen)")
def size_from_transformed_data(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 30, "seen": rng.permutation(np.repeat([1, 0], [18, 12])), "x": rng.normal(1, 1, 30)}


@closable("N_mis", "y_mis", data=("x_mis",), note="y_obs and x_obs inform the globals only")
def missing_values(rng: np.random.Generator) -> dict[str, Any]:
    x_obs, x_mis = rng.normal(size=25), rng.normal(size=11)
    return {"N_obs": 25, "N_mis": 11, "x_obs": x_obs, "y_obs": rng.normal(1 + x_obs, 0.5), "x_mis": x_mis}


@closable(
    "N", "z", data=("col", "row", "y"), alt_inputs=("unknown",), note="level N_mis (y_mis) has more entries"
)
def missing_outcomes(rng: np.random.Generator) -> dict[str, Any]:
    places = rng.choice(17 * 4, 22, replace=False)
    data = {"N": 17, "T": 4, "N_mis": 22, "y": rng.normal(size=(17, 4))}
    return data | {"row": places // 4 + 1, "col": places % 4 + 1}


@closable("J", "alpha", data=("g", "y"), alt_verdicts=("nothing-to-amortize",))
def two_units(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 20, "J": 2, "g": _group_index(rng, 20, 2), "y": rng.normal(size=20)}


@closable("N", "z", data=("y",))
def partial_sums(rng: np.random.Generator) -> dict[str, Any]:
    return {"N": 27, "y": rng.poisson(3, 27)}
