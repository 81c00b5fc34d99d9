"""Programs in which transformed data have become data, proven to be the same density."""

from stan_adapters.derived.derivation import Derivation as Derivation
from stan_adapters.derived.derivation import derive as derive
from stan_adapters.derived.derivation import derive_with_number as derive_with_number
from stan_adapters.derived.values import ComputedData as ComputedData
