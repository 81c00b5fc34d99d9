"""Keys and normals in numpy are those of JAX."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avistan.density.common_numbers import (
    fold,
    fold_in,
    inverse_erf,
    key_words,
    make_key,
    normals_at,
    normals_in_numpy,
)


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**32 - 1, 2**32, 2**53 + 7])
def test_a_key_is_that_of_jax(seed):
    expected = jax.random.key_data(jax.random.key(seed))
    assert np.asarray(jax.random.key_data(make_key(seed))).tolist() == expected.tolist()


@pytest.mark.parametrize("number", [0, 3, 1000, 2**31 + 5])
def test_a_folded_key_is_that_of_jax(number):
    key = jax.random.key(77)
    expected = jax.random.key_data(jax.random.fold_in(key, np.uint32(number))).tolist()
    assert list(fold(key_words(key), number)) == expected
    assert jax.random.key_data(fold_in(key, number)).tolist() == expected


def test_another_kind_of_key_stays_of_its_kind():
    key = jax.random.key(5, impl="rbg")
    expected = jax.random.key_data(jax.random.fold_in(key, 2)).tolist()
    assert jax.random.key_data(fold_in(key, 2)).tolist() == expected


@pytest.mark.parametrize("made_by", [normals_at, normals_in_numpy])
def test_normals_by_number_are_those_of_jax(made_by):
    key, shape = jax.random.key(9), (300, 1777)
    expected = np.asarray(jax.random.normal(key, shape, dtype=jnp.float64))
    assert np.abs(expected).max() > 4.5  # where other polynomials serve
    numbers = np.arange(300 * 1777).reshape(shape)
    np.testing.assert_allclose(made_by(key_words(key), numbers), expected, atol=4e-15, rtol=4e-15)
    some = numbers[3::5, ::-7]
    np.testing.assert_array_equal(made_by(key_words(key), some), made_by(key_words(key), numbers)[3::5, ::-7])


def test_the_handler_makes_normals_of_large_numbers_as_numpy_does():
    numbers = np.array([0, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**53])
    words = (2**32 - 1, 12345)
    np.testing.assert_allclose(normals_at(words, numbers), normals_in_numpy(words, numbers), rtol=4e-15)


def test_the_inverse_error_function_inverts_it_and_is_that_of_jax_to_the_ends():
    x = np.linspace(-0.999, 0.999, 101)
    np.testing.assert_allclose([math.erf(value) for value in inverse_erf(x)], x, rtol=1e-13, atol=1e-16)
    far = np.concatenate([1 - 2.0 ** -np.arange(1, 53), [1e-300, np.nextafter(-1.0, 0.0)]])
    np.testing.assert_allclose(inverse_erf(far), jax.scipy.special.erfinv(jnp.asarray(far)), rtol=1e-13)
