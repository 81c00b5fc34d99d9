"""CSV files that a real CmdStan executable, prophet's, writes for its own program."""

import subprocess
from pathlib import Path

from prophet_series import executable
from stan_adapters.bound.bound_model import BoundModel


def write_all(prophet, model: BoundModel, folder: Path) -> None:
    """Two chains of NUTS, one with its warm-up and thinned, ADVI, Pathfinder, optimization and Laplace."""
    data = folder / "data.json"
    data.write_text(model.data.to_json())

    def run(file: str, *arguments: str) -> None:
        output = ["output", f"file={folder / file}", "sig_figs=12", f"profile_file={folder / 'profile.txt'}"]
        command = [str(executable(prophet)), *arguments, "data", f"file={data}", "random", "seed=1", *output]
        subprocess.run(command, check=True, capture_output=True)

    for chain in (1, 2):
        run(f"nuts_{chain}.csv", "sample", "num_samples=200", "num_warmup=200", f"id={chain}")
    run("warm.csv", "sample", "num_samples=201", "num_warmup=150", "save_warmup=1", "thin=2")
    run("advi.csv", "variational", "output_samples=300")
    run("pathfinder.csv", "pathfinder", "num_psis_draws=300")
    run("optimum.csv", "optimize", "jacobian=1")
    run("laplace.csv", "laplace", f"mode={folder / 'optimum.csv'}", "draws=300")
