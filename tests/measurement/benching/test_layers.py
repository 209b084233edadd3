"""Grids from numbers of patches, and softmax beside every attention."""

import pytest

from saccade.measurement.benching.layer import LayerSubject
from saccade.measurement.benching.layers import SOFTMAX, is_softmax, layer_subjects, square, with_softmax


@pytest.mark.parametrize("patches", [1, 4, 196, 12544])
def test_a_square_is_a_grid(patches):
    rows, columns = square(patches)
    assert rows == columns
    assert rows * columns == patches


@pytest.mark.parametrize(
    ("patches", "says"),
    [
        (200, r"tokens=200: .* as 196 \(14 x 14\) or 225 \(15 x 15\)"),
        (2, r"1 \(1 x 1\) or 4 \(2 x 2\)"),
        (0, r"as 1 \(1 x 1\)$"),
        (-4, r"as 1 \(1 x 1\)$"),
    ],
)
def test_a_number_that_is_no_square_is_refused_with_the_nearest(patches, says):
    with pytest.raises(ValueError, match=says):
        square(patches)


def test_softmax_is_always_in_by_both_kernels():
    assert with_softmax(["softmax", "linear", " linear", SOFTMAX[1]]) == [*SOFTMAX, "linear"]
    base = LayerSubject(attention="softmax", dim=16, num_heads=2, grid=(2, 3))
    assert [(one.attention, one.grid) for one in layer_subjects(["linear"], base)] == [
        (name, (2, 3)) for name in (*SOFTMAX, "linear")
    ]


def test_softmax_by_any_kernel_is_the_baseline_and_with_other_options_is_not():
    assert all(map(is_softmax, ("softmax", *SOFTMAX)))
    others = ("linear", "softmax(qk_norm=True)", "softmax*2,linear*1", "softmax at depth=1")
    assert not any(map(is_softmax, others))
