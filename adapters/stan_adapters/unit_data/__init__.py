"""Which data belong to a unit: the data of a subset of units (slicing), and what feeds a unit's score (inputs)."""

from stan_adapters.unit_data.inputs import DataInputs as DataInputs
from stan_adapters.unit_data.inputs import find_data_inputs as find_data_inputs
from stan_adapters.unit_data.parts import make_part as make_part
from stan_adapters.unit_data.parts import rebind as rebind
from stan_adapters.unit_data.slicing import Slicing as Slicing
from stan_adapters.unit_data.slicing import SlicingRefusal as SlicingRefusal
from stan_adapters.unit_data.slicing import find_slicing as find_slicing
