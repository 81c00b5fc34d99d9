"""Steps of training as benchmarks time them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from avistan.runtime.types import FloatArray
from avistan.training.steps import Chunk, Training


class TimedSteps:
    """A family's steps with the state that they move. Arguments as of `Training`."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.training = Training(*given, **options)
        self.state = self.training.start()

    def run(self, rates: FloatArray) -> Chunk:
        """A chunk of steps, done when this returns."""
        self.state, chunk = self.training.run(self.state, np.asarray(rates))
        jax.block_until_ready(self.state.step)
        return chunk
