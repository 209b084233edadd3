"""What is done sooner than the fake mode does it has the shapes, strides and types that the fake mode gives it."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from saccade.measurement.memory import shortcuts
from saccade.measurement.memory.shortcuts import Shortcuts
from saccade.measurement.memory.tensors import tensors_in

aten = torch.ops.aten

# Of each what it may be asked: of (4, 6, 8), which lies in order, and of (8, 6, 4) turned round, which does not.
VIEWS = [
    (aten._unsafe_view.default, ([24, 8],)),
    (aten.alias.default, ()),
    (aten.as_strided.default, ([3, 2], [2, 1], 5)),
    (aten.detach.default, ()),
    (aten.expand.default, ([2, 4, 6, 8],)),
    (aten.permute.default, ([2, 0, 1],)),
    (aten.select.int, (1, 3)),
    (aten.slice.Tensor, (1, 1, 5, 2)),
    (aten.split.Tensor, (2, 1)),
    (aten.split_with_sizes.default, ([1, 5], 1)),
    (aten.transpose.int, (0, 2)),
    (aten.unbind.int, (1,)),
    (aten.unsqueeze.default, (-1,)),
    (aten.view.default, ([24, 8],)),
]


def facts(made):
    return [
        (one.shape, one.stride(), one.storage_offset(), one.dtype, one.device, one.untyped_storage().nbytes())
        for one in tensors_in([made])
    ]


def both(act):
    """What an act makes in the fake mode alone, and with shortcuts."""
    told = []
    for shortened in (False, True):
        with FakeTensorMode() as fake:
            if shortened:
                with Shortcuts(fake):
                    made = act()
            else:
                made = act()
        assert all(isinstance(one, FakeTensor) for one in tensors_in([made]))
        told.append(facts(made))
    return told


def test_all_shortcuts_are_looked_at():
    products = {aten.mm.default, aten.bmm.default, aten.t.default}
    assert {func for func, _ in VIEWS} | products == shortcuts._ANYWHERE


@pytest.mark.parametrize(("func", "asked"), VIEWS, ids=lambda one: str(one))
def test_a_view_is_that_of_the_fake_mode(func, asked):
    alone, shortened = both(lambda: func(torch.empty(4, 6, 8, dtype=torch.bfloat16), *asked))
    assert alone == shortened


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_fake_mode(dtype):
    def act():
        left, right = torch.empty(5, 3, 7, dtype=dtype), torch.empty(5, 7, 2, dtype=dtype)
        turned = aten.t.default(torch.empty(2, 7, dtype=dtype))
        return [aten.bmm.default(left, right), aten.mm.default(left[0], turned), aten.mm.default(left[:, 0], right[0])]

    alone, shortened = both(act)
    assert alone == shortened


def test_a_view_shares_what_it_is_a_view_of():
    with FakeTensorMode() as fake, Shortcuts(fake):
        x = torch.empty(4, 6)
        for made in (x.detach(), x.t(), x[1:], x.view(24)):
            assert made.untyped_storage() is x.untyped_storage() or (
                made.untyped_storage()._cdata == x.untyped_storage()._cdata
            )


def test_what_is_written_in_its_place_is_there_already():
    with FakeTensorMode() as fake, Shortcuts(fake):
        x = torch.empty(4, 6)
        assert x.add_(torch.empty(6)) is x
        assert x.mul_(2.0) is x
        assert x.copy_(torch.empty(4, 1, dtype=torch.bfloat16)) is x


@pytest.mark.parametrize("other", [(5,), (4, 6, 1), (3, 6)])
def test_what_does_not_spread_to_the_shape_is_refused_as_ever(other):
    with FakeTensorMode() as fake, Shortcuts(fake), pytest.raises((RuntimeError, ValueError)):
        torch.empty(4, 6).mul_(torch.empty(other))
