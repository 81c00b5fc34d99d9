"""Which data belong to a unit: the data of a subset of units (slicing), and what feeds a unit's score (inputs)."""

from .alone import entries_of_all_units as entries_of_all_units
from .inputs import DataInputs as DataInputs
from .inputs import find_data_inputs as find_data_inputs
from .parts import make_part as make_part
from .parts import rebind as rebind
from .quantities import quantities_of_all_units as quantities_of_all_units
from .slicing import Slicing as Slicing
from .slicing import SlicingRefusal as SlicingRefusal
from .slicing import find_slicing as find_slicing
