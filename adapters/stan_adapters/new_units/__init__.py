"""Whether new units can be predicted by themselves: what a program computes from all units at once."""

from stan_adapters.new_units.alone import entries_of_all_units as entries_of_all_units
from stan_adapters.new_units.constants import with_constants as with_constants
from stan_adapters.new_units.quantities import quantities_of_all_units as quantities_of_all_units
