"""Calls of the command line that can't be meant: one message each, exit status 2, and everything left as it was."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import avistan as avi
from avistan.cli.app import app
from avistan.fitting.shared_start import SharedStarts

SCHOOLS = avi.models_root() / "eight_schools"
HUGE = str(2**63)
FIT = ["fit", "p.stan", "d.json", "--output", "out"]
COMPARE = ["compare", "p.stan", "d.json", "--output", "out"]
SBC = ["sbc", "p.stan", "simulator.stan", "d.json", "--output", "out"]
FILES = {
    "none.stan": "",
    "comments.stan": "// nothing\n",
    "quantities.stan": "generated quantities { real x = normal_rng(0, 1); }",
    "empty.stan": "parameters { vector[0] x; }",
    "crossed.stan": "data { real a; real b; } parameters { real<lower=a, upper=b> x; } model { x ~ std_normal(); }",
    "crossed.json": '{"a": 3, "b": 0}',
    "flat.stan": "parameters { real x; real y; } model { y ~ std_normal(); }",
    "line.stan": "parameters { real x; real y; } model { x + y ~ std_normal(); }",
    "impossible.stan": 'parameters { real x; } model { reject("no room"); }',
    "simulator.stan": "data { int J; } generated quantities { real mu = normal_rng(0, 5); array[J] real y = normal_rng("
    "rep_vector(mu, J), 1); }",
    "junk_model.so": "junk",
    "junk.nc": "junk",
    "mine/notes.txt": "keep",
    "only/data.json": "{}",
    "only/program.stan": "parameters { real x; } model { x ~ std_normal(); }",
}
CALLS = {
    # numbers of a fit
    "--steps 2^63": ([*FIT, "--steps", HUGE], ["1000000000 is the most", "the ELBO of each step is kept"]),
    "--steps 10^15": ([*FIT, "--steps", str(10**15)], ["1000000000 is the most"]),
    "--steps 0": ([*FIT, "--steps", "0"], ["--steps", "greater than or equal to 1"]),
    "--steps 1e3": ([*FIT, "--steps", "1e3"], ["--steps", "integer"]),
    "--steps nothing": ([*FIT, "--steps", ""], ["--steps", "integer"]),
    "--draws-per-step 10^12": ([*FIT, "--draws-per-step", str(10**12)], ["draws_per_step", "10000 is the most"]),
    "--draws-per-step -1": ([*FIT, "--draws-per-step", "-1"], ["--draws-per-step"]),
    "--learning-rate nan": ([*FIT, "--learning-rate", "nan"], ["learning_rate=nan: give a positive number"]),
    "--learning-rate inf": ([*FIT, "--learning-rate", "inf"], ["learning_rate=inf"]),
    "--learning-rate 1e400": ([*FIT, "--learning-rate", "1e400"], ["learning_rate=inf"]),
    "--learning-rate -0": ([*FIT, "--learning-rate", "-0"], ["learning_rate=-0.0"]),
    "--num-references 10^9": ([*FIT, "--num-references", str(10**9)], ["num_references", "4096 is the most"]),
    "--max-rank 10^12": ([*FIT, "--max-rank", str(10**12)], ["max_rank", "1000000 is the most"]),
    "--elbo-draws 1": ([*FIT, "--elbo-draws", "1"], ["elbo_draws=1: give a whole number of at least 2"]),
    "--elbo-draws 10^12": ([*FIT, "--elbo-draws", str(10**12)], ["elbo_draws", "5000000 is the most"]),
    "--draws 10^12": ([*FIT, "--draws", str(10**12)], ["draws=1000000000000: 1000000000 is the most"]),
    "--draws 10^9": ([*FIT, "--draws", str(10**9)], ["draws=1000000000 would take about", "are free there"]),
    "--draws 1.5": ([*FIT, "--draws", "1.5"], ["--draws", "integer"]),
    "--chains 0": ([*FIT, "--chains", "0"], ["--chains"]),
    "--chains 10^6": ([*FIT, "--chains", str(10**6)], ["chains=1000000: 1000 is the most"]),
    "--seed -1": ([*FIT, "--seed", "-1"], ["--seed"]),
    "--seed 2^32": ([*FIT, "--seed", str(2**32)], ["--seed", "4294967295"]),
    "--seed 1.5": ([*FIT, "--seed", "1.5"], ["--seed", "integer"]),
    "--max-seconds 0": ([*FIT, "--max-seconds", "0"], ["max_seconds=0"]),
    "--max-seconds nan": ([*FIT, "--max-seconds", "nan"], ["max_seconds=nan"]),
    # names
    "a family that is none": ([*FIT, "--family", "atuo"], ["unknown family 'atuo'", "'auto' or 'fixed'"]),
    "no family": ([*FIT, "--family", ""], ["unknown family ''"]),
    "an estimator that is none": ([*FIT, "--estimator", "pth"], ["--estimator", "'pth'"]),
    "an engine that is none": ([*FIT, "--engine", "stanly"], ["unknown engine 'stanly'"]),
    "no engine": ([*FIT, "--engine", ""], ["unknown engine ''"]),
    "a missing library": ([*FIT, "--engine", "gone_model.so"], ["there is no library at"]),
    "a library that is none": ([*FIT, "--engine", "junk_model.so"], ["is not a BridgeStan model library"]),
    "no level": ([*FIT, "--level", ""], ["level=''"]),
    "a level that is none": ([*FIT, "--level", "j"], ["no level 'j'", "J (theta_raw)"]),
    "a missing include path": ([*FIT, "--include-path", "gone"], ["the include path gone is no folder"]),
    "a file as include path": ([*FIT, "--include-path", "p.stan"], ["the include path p.stan is a file"]),
    "no method": ([*FIT, "--method", ""], ["unknown method ''"]),
    "a method in capitals": ([*FIT, "--method", "AVI"], ["Did you mean 'avi'"]),
    "a part twice": ([*FIT, "--method", "avi:full:full"], ["says 'full' more than once"]),
    "a network without end": ([*FIT, "--method", "avi:mlp(10000000000)"], ["100000 is the most"]),
    "a network beyond memory": ([*FIT, "--method", "avi:mlp(99999)"], ["width 99999", "of memory at least"]),
    "a polynomial without end": ([*FIT, "--method", "avi:polynomial(100000)"], ["1999 is the most"]),
    "data that are none": ([*FIT, "--method", "avi:data(nope)"], ["no data entry 'nope'"]),
    "data without rows": ([*FIT, "--method", "avi:data(J)"], ["not one row for each"]),
    "a row beyond all": ([*FIT, "--method", "avi:window(y, 100)"], ["y has 8 rows", "+100"]),
    "neighbours beyond all": ([*FIT, "--method", "avi:neighbours(8)"], ["J has 8 units"]),
    "a rank beyond all": ([*FIT, "--method", "avi:low-rank(500)"], ["no rank is above 2"]),
    "a reference as method": ([*FIT, "--method", "nuts"], ["NUTS is a reference"]),
    "two methods": ([*FIT, "--method", "avi,fvi"], ["unknown method 'avi,fvi'"]),
    # places
    "nowhere": ([*FIT[:-1], ""], ["p.stan lies in . and would be lost"]),
    "a file": ([*FIT[:-1], "d.json"], ["d.json is read and would be replaced"]),
    "somebody's file": ([*FIT[:-1], "junk.nc"], ["junk.nc is a file"]),
    "this folder": ([*FIT[:-1], "."], ["p.stan lies in . and would be lost"]),
    "the root": ([*FIT[:-1], "/"], ["would be lost"]),
    "a device": ([*FIT[:-1], "/dev/null"], ["/dev/null is a file"]),
    "below a file": ([*FIT[:-1], "d.json/out"], ["can't write"]),
    "a name too long": ([*FIT[:-1], "x" * 300], ["File name too long"]),
    "somebody's folder": ([*FIT[:-1], "mine"], ["holds other files (notes.txt)"]),
    "a folder that looks like a fit": ([*FIT[:-1], "only"], ["no fit.json, so nothing of ours"]),
    "the folder of the program": (
        ["fit", "only/program.stan", "--output", "only"],
        ["only/program.stan lies in only and would be lost"],
    ),
    # program and data
    "no data": (["fit", "p.stan", "--output", "out"], ["`J`", "Add them to the data"]),
    "data twice": (["fit", "p.stan", "d.json", "d.json", "--output", "out"], ["is given twice"]),
    "program and data exchanged": (["fit", "d.json", "p.stan", "--output", "out"], ["d.json:1:1: unexpected"]),
    "a folder as program": (["fit", "mine", "d.json", "--output", "out"], ["mine: it is a folder"]),
    "a folder as data": (["fit", "p.stan", "mine", "--output", "out"], ["mine: it is a folder"]),
    "a pattern of nothing": (["fit", "p.stan", "*.none", "--output", "out"], ["no file matches *.none"]),
    "nothing at all": (["fit"], ["MODEL.stan"]),
    "an empty program": (["fit", "none.stan", "--output", "out"], ["there is nothing to infer"]),
    "an empty program, inspected": (["inspect", "none.stan"], ["there is nothing to infer"]),
    "comments alone": (["inspect", "comments.stan"], ["there is nothing to infer"]),
    "quantities alone": (["inspect", "quantities.stan"], ["there is nothing to infer"]),
    "parameters without entries": (["inspect", "empty.stan"], ["there is nothing to infer"]),
    "crossed bounds": (["inspect", "crossed.stan", "crossed.json"], ["lower=a = 3 is not below upper=b = 0"]),
    "a fit of crossed bounds": (["fit", "crossed.stan", "crossed.json", "--output", "out"], ["is not below"]),
    "a flat posterior": (["inspect", "flat.stan"], ["improper", "constrains `x`"]),
    "a fit of a flat posterior": (["fit", "flat.stan", "--output", "out"], ["improper", "constrains `x`"]),
    "a flat line": (["inspect", "line.stan"], ["improper", "tells `x`, `y` apart"]),
    "no finite density": (["inspect", "impossible.stan"], ["not finite at any", "no room"]),
    # inspect
    "a folder as picture": (["inspect", "p.stan", "d.json", "--plot", "mine"], ["mine is a folder"]),
    "a picture on the data": (["inspect", "p.stan", "d.json", "--plot", "d.json"], ["would be replaced"]),
    "a picture on the program": (["inspect", "p.stan", "d.json", "--plot", "p.stan"], ["would be replaced"]),
    "a picture that is no PNG": (["inspect", "p.stan", "d.json", "--plot", "x.pdf"], ["ends in .png"]),
    "two programs": (["inspect", "p.stan", "p.stan"], ["p.stan is a Stan program, and data were expected"]),
    "--learning-rate 1e300": ([*FIT, "--learning-rate", "1e300"], ["learning_rate=1e+300: 100 is the most"]),
    "a picture below a file": (["inspect", "p.stan", "d.json", "--plot", "d.json/x.png"], ["can't write"]),
    "a picture nowhere": (["inspect", "p.stan", "d.json", "--plot", ""], ["is a folder"]),
    "a seed to inspect": (["inspect", "p.stan", "d.json", "--seed", "-1"], ["--seed"]),
    "no level to inspect": (["inspect", "p.stan", "d.json", "--level", ""], ["level=''"]),
    # compare
    "no methods": ([*COMPARE, "--methods", ""], ["empty name"]),
    "a comma": ([*COMPARE, "--methods", ","], ["empty name"]),
    "a method twice": ([*COMPARE, "--methods", "avi,avi"], ["'avi' is named twice"]),
    "a method under two names": ([*COMPARE, "--methods", "avi,avi:mlp(64)"], ["are the same method"]),
    "a competitor twice": ([*COMPARE, "--methods", "pathfinder,pathfinder"], ["is named twice"]),
    "auto twice among methods": ([*COMPARE, "--methods", "auto,auto"], ["is named twice"]),
    "no reference": ([*COMPARE, "--reference", ""], ["unknown reference ''"]),
    "a reference that is none": ([*COMPARE, "--reference", "nuts2"], ["Did you mean 'nuts'"]),
    "JSON as reference": ([*COMPARE, "--reference", "d.json"], ["d.json is one JSON object", "looks like data"]),
    "junk as reference": ([*COMPARE, "--reference", "junk.nc"], ["can't read the reference junk.nc"]),
    "a folder as reference": ([*COMPARE, "--reference", "mine"], ["the folder mine is no zarr group"]),
    "a missing reference": ([*COMPARE, "--reference", "gone.nc"], ["unknown reference 'gone.nc'"]),
    "options of no reference": ([*COMPARE, "--reference-draws", "50"], ["Name one of them"]),
    "--repeats 0": ([*COMPARE, "--repeats", "0"], ["--repeats"]),
    "--repeats 10^6": ([*COMPARE, "--repeats", str(10**6)], ["repeats=1000000: 1000 is the most"]),
    "--reference-draws 1": ([*COMPARE, "--reference-draws", "1"], ["--reference-draws"]),
    "--reference-draws 10^12": ([*COMPARE, "--reference-draws", str(10**12)], ["reference_draws", "is the most"]),
    "--reference-draws 10^8": (
        [*COMPARE, "--reference", "nuts", "--reference-draws", str(10**8)],
        ["A reference of 4 chains", "of memory at least"],
    ),
    "--reference-chains 10^6": ([*COMPARE, "--reference-chains", str(10**6)], ["1000 is the most"]),
    "--reference-warmup 10^12": ([*COMPARE, "--reference-warmup", str(10**12)], ["is the most"]),
    "draws of a comparison": ([*COMPARE, "--draws", str(10**9)], ["draws=1000000000 would take", "of memory"]),
    "no variables": ([*COMPARE, "--variables", ""], ["no variable ''"]),
    "half a variable": ([*COMPARE, "--variables", "theta["], ["Did you mean 'theta'"]),
    "an entry beyond all": ([*COMPARE, "--variables", "theta[99]"], ["Sizes of theta: 8"]),
    "an entry of a number": ([*COMPARE, "--variables", "mu[1]"], ["it is a single number"]),
    "a missing executable": ([*COMPARE, "--cmdstan-exe", "gone"], ["gone", "is not there"]),
    "a file that can't be run": ([*COMPARE, "--cmdstan-exe", "d.json"], ["d.json", "can't be run"]),
    "a report on the program": (["compare", "p.stan", "d.json", "--output", "."], ["would be lost"]),
    "a report in somebody's folder": (["compare", "p.stan", "d.json", "--output", "only"], ["holds other files"]),
    "an ELBO of one draw": ([*COMPARE, "--elbo-draws", "1"], ["elbo_draws=1"]),
    # predict
    "no fit": (["predict", "gone", "d.json", "--output", "out"], ["gone is not a saved fit"]),
    "a folder without a fit": (["predict", "mine", "d.json", "--output", "out"], ["mine is not a saved fit"]),
    "a file as fit": (["predict", "d.json", "d.json", "--output", "out"], ["d.json is not a saved fit"]),
    "draws on the new data": (["predict", "mine", "d.json", "--output", "d.json"], ["would be replaced"]),
    "draws in the fit": (["predict", "mine", "d.json", "--output", "mine/new.nc"], ["lies in the fit mine"]),
    "draws without end": (
        ["predict", "mine", "d.json", "--output", "out", "--draws", str(10**12)],
        ["1000000000 is the most"],
    ),
    "no draws": (["predict", "mine", "d.json", "--output", "out", "--draws", "0"], ["--draws"]),
    "a seed of draws": (["predict", "mine", "d.json", "--output", "out", "--seed", "-1"], ["--seed"]),
    # sbc
    "no simulator": (["sbc", "p.stan", "--output", "out"], ["SIMULATOR.stan"]),
    "data as simulator": (["sbc", "p.stan", "d.json", "--output", "out"], ["d.json:1:1: unexpected"]),
    "a missing simulator": (["sbc", "p.stan", "gone.stan", "d.json", "--output", "out"], ["no Stan file gone.stan"]),
    "the program as simulator": (["sbc", "p.stan", "p.stan", "d.json", "--output", "out"], ["simulates no parameter"]),
    "--simulations 5": ([*SBC, "--simulations", "5"], ["--simulations"]),
    "--simulations 10^9": ([*SBC, "--simulations", str(10**9)], ["1000000 is the most"]),
    "sbc --draws 3": ([*SBC, "--draws", "3"], ["--draws"]),
    "sbc --draws 10^9": ([*SBC, "--draws", str(10**9)], ["draws=1000000000: 100000 is the most"]),
    "--entries 0": ([*SBC, "--entries", "0"], ["--entries"]),
    "--entries 10^9": ([*SBC, "--entries", str(10**9)], ["1000000 is the most"]),
    "--probability 1": ([*SBC, "--probability", "1"], ["probability=1.0: give a number between 0 and 1"]),
    "--probability nan": ([*SBC, "--probability", "nan"], ["probability=nan"]),
    "sbc of no method": ([*SBC, "--method", "nope"], ["unknown method 'nope'"]),
    "sbc of many steps": ([*SBC, "--steps", HUGE], ["1000000000 is the most"]),
    "a calibration on the program": (["sbc", "p.stan", "simulator.stan", "--output", "."], ["would be lost"]),
    # models
    "an example that is none": (["models", "nope"], ["no bundled example 'nope'"]),
    "no example": (["models", ""], ["no bundled example ''"]),
    "nearly an example": (["models", "eight_school"], ["Did you mean 'eight_schools'"]),
    "two examples": (["models", "linear", "digits"], ["unexpected extra argument"]),
    "no command": (["inspekt", "p.stan"], ["inspekt"]),
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a program, data and odd files, in which nothing may be trained."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(SCHOOLS / "eight_schools.stan", tmp_path / "p.stan")
    shutil.copy(SCHOOLS / "data.json", tmp_path / "d.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SharedStarts, "prepared", _never)
    return tmp_path


def _never(*_, **__):
    raise AssertionError("a fit has begun")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(("arguments", "helpful"), CALLS.values(), ids=CALLS)
def test_an_odd_call_is_one_message_and_leaves_everything_as_it_was(arguments, helpful, here):
    before = contents(here)
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.lower().startswith("error:")]) == 1
    said = " ".join(result.stderr.split())
    for words in helpful:
        assert words in said
    assert contents(here) == before


def test_the_table_is_large_enough():
    assert len(CALLS) >= 140
