"""What autograd overwrites in a real run, as torch's profiler sees it, is no tensor more in the tally."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from saccade.measurement.memory.tally import Tally

SIDE = 64
BYTES = SIDE * SIDE * 4

ONES = torch.ones(SIDE, SIDE)
PLACES = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE).mul(7).remainder(SIDE)
ROWS = PLACES[0]


class _Counting(Tally):
    """Counts the additions that are taken for in place."""

    count = 0

    def _hand_over(self, old: Tensor, new: Tensor) -> None:
        self.count += 1
        super()._hand_over(old, new)


def branches(x: Tensor) -> Tensor:
    """Two additions, both in place."""
    y = x.sin()
    return ((y @ ONES) * (ONES @ y) * y.cos()).sum()


def shortcut(x: Tensor) -> Tensor:
    y = x.sin()
    z = y + (y @ ONES).sin()
    return (z + (z @ ONES).sin()).sin().sum()


def held_by_somebody(x: Tensor) -> Tensor:
    """A hook keeps the gradients, so that the first may not be overwritten; its sum with the second may."""
    y = x.sin()
    kept: list[Tensor] = []
    branched = ONES @ y, y @ ONES, y.cos()
    for one in branched:
        one.grad_fn.register_hook(lambda inputs, outputs: kept.extend(inputs))
    return (branched[0] * branched[1] * branched[2]).sum()


def through_views(x: Tensor) -> Tensor:
    """The first gradient is a view, and shares its memory."""
    y = x.sin()
    return (y.reshape(-1) * ONES.reshape(-1)).sum() + (y.T @ ONES).sin().sum()


def spread(x: Tensor) -> Tensor:
    """The gradient of a sum is one number, seen as many."""
    y = x.sin()
    return y.cos().sum() + y.sum()


class _Adding(torch.autograd.Function):
    """Adds in its own backward, in Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2 + gradient * 3


def by_somebody_s_own(x: Tensor) -> Tensor:
    return _Adding.apply(x.sin()).sin().sum()


class _Picking(torch.autograd.Function):
    """Spreads into zeros in its own backward, in Python, and not in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.gather(1, PLACES)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient).scatter_add(1, PLACES, gradient)


def picked_by_somebody_s_own(x: Tensor) -> Tensor:
    return _Picking.apply(x.sin()).sin().sum()


def gathered(x: Tensor) -> Tensor:
    return x.sin().gather(1, PLACES).sin().sum()


def indexed(x: Tensor) -> Tensor:
    return x.sin()[ROWS].sin().sum()


def masked(x: Tensor) -> Tensor:
    return x.sin()[PLACES > SIDE // 2].sin().sum()


def selected(x: Tensor) -> Tensor:
    return x.sin().index_select(1, ROWS).sin().sum()


def largest(x: Tensor) -> Tensor:
    return x.sin().topk(5, dim=1).values.sin().sum()


ALL = [
    branches,
    shortcut,
    held_by_somebody,
    through_views,
    spread,
    by_somebody_s_own,
    picked_by_somebody_s_own,
    gathered,
    indexed,
    masked,
    selected,
    largest,
]

IN_PLACE = {"aten::add_", "aten::index_add_", "aten::_index_put_impl_", "aten::scatter_", "aten::scatter_add_"}


@pytest.mark.parametrize("loss_of", ALL, ids=lambda one: one.__name__)
def test_gradients_are_taken_as_overwritten_where_autograd_overwrites_them(loss_of: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(SIDE, SIDE, requires_grad=True)
    loss = loss_of(x)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        loss.backward()
    written = {id(event) for event in seen.events() if event.name in IN_PLACE}
    # Some are made of others.
    really = sum(id(event) in written and id(event.cpu_parent) not in written for event in seen.events())
    loss = loss_of(x.detach().requires_grad_())
    with _Counting() as counting:
        loss.backward()
    assert counting.count == really


def test_some_are_overwritten_and_some_are_not() -> None:
    counts = {}
    for loss_of in ALL:
        loss = loss_of(torch.randn(SIDE, SIDE, requires_grad=True))
        with _Counting() as counting:
            loss.backward()
        counts[loss_of] = counting.count
    assert counts[branches] == 2
    assert counts[held_by_somebody] == 1
    assert counts[by_somebody_s_own] == counts[picked_by_somebody_s_own] == 0
    assert all(counts[one] == 1 for one in (gathered, indexed, masked, selected, largest))


@pytest.mark.parametrize("without_values", [False, True])
def test_no_tensor_more_is_counted_and_what_was_taken_is_given_back(without_values: bool) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) if without_values else nullcontext():
        x = torch.randn(SIDE, SIDE, requires_grad=True)
        one, other = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
        with Tally() as tally:
            y = x.sin()
            # Two gradients meet at y, each a product with what is held anyway.
            loss = (y * one).sum() + (y * other).sum()
            loss.backward()
            del loss, y
    # What was there when they met: what autograd keeps, the two, and not their sum beside them.
    assert tally.peak_bytes < 5 * BYTES
    assert [stored.size for stored in tally.there(tally.moment)] == [BYTES], "x's gradient"


def test_what_torch_adds_within_a_forward_pass_is_a_tensor_more() -> None:
    with torch.no_grad(), _Counting() as counting:
        nn.functional.cross_entropy(ONES, torch.zeros(SIDE, dtype=torch.long), reduction="none", label_smoothing=0.1)
    assert counting.count == 0


def test_nothing_is_overwritten_where_gradients_are_differentiated() -> None:
    x = torch.randn(SIDE, SIDE, requires_grad=True)
    loss = branches(x)
    with _Counting() as counting:
        torch.autograd.grad(loss, x, create_graph=True)
    assert counting.count == 0
