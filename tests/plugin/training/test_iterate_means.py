"""Means over blocks of iterates are means of what was added, through saves too."""

import numpy as np
import pytest

from avistan.training.iterate_means import BlockMeans


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_means_of_blocks_are_means_of_what_was_added(chunks):
    values = np.random.default_rng(3).normal(size=(100, 4))
    means = BlockMeans(8, chunks)
    for number, value in enumerate(values, start=1):
        means.add([value[:3], value[3:]])
        assert means.count <= 16
        assert number == means.count * means.chunks + means.partial
        if number % 7 == 0:  # a save and what comes back from it
            means = BlockMeans.of(8, means.arrays())
        whole = means.count * means.chunks
        for blocks in range(1, means.count + 1):
            for before in range(means.count - blocks + 1):
                stop = whole - before * means.chunks
                expected = values[stop - blocks * means.chunks : stop].mean(axis=0)
                np.testing.assert_allclose(np.concatenate(means.last(blocks, before)), expected, rtol=1e-12)
