"""What the compiled handler offers beside the operations."""

import numpy as np
import pytest

from avistan.density import handler
from density_models import REJECTS, Model, require_native


def test_the_c_loop_times_bare_gradients(model):
    require_native()
    arguments = (model.log_density_gradient_address, model.free_error_address, model.handles(1)[0])
    assert handler.gradient_loop(*arguments, np.zeros(model.dim), 100) > 0.0
    rejecting = Model(REJECTS)
    arguments = (
        rejecting.log_density_gradient_address,
        rejecting.free_error_address,
        rejecting.handles(1)[0],
    )
    with pytest.raises(ValueError, match="rejects this theta"):
        handler.gradient_loop(*arguments, np.array([2.0, 0.0]), 100)
