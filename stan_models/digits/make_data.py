"""The images of scikit-learn's handwritten digits as data for digits.stan. Run as a script, it rewrites data.json.

scikit-learn is needed for this alone: the package does not depend on it.
"""

import json
from pathlib import Path
from typing import Any


def make_data(D: int = 2, H: int = 32) -> dict[str, Any]:
    """Stan data of all 1797 images, in scikit-learn's order, with a latent dimension and a hidden width."""
    from sklearn.datasets import load_digits

    images = load_digits().data.astype(int)
    return {"N": len(images), "P": images.shape[1], "x": images.tolist(), "D": D, "H": H}


if __name__ == "__main__":
    text = json.dumps(make_data(), separators=(",", ":"))
    Path(__file__).with_name("data.json").write_text(text + "\n")
