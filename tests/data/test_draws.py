"""Random numbers are functions of their names, and are random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.data.draws import bits, permutation, uniform

INDEX = torch.arange(2000)
MASK = (1 << 64) - 1


def splitmix(state: int) -> int:
    """SplitMix64's output function in Python's whole numbers, as its authors print it."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_mixing_is_splitmix64(number):
    from saccade.data.draws import _mixed

    assert _mixed(torch.tensor([number])).item() & MASK == splitmix(number)


def test_the_mixing_gives_the_published_sequence():
    # The first outputs of SplitMix64 from state 0, as in java.util.SplittableRandom and the reference C code.
    step = 0x9E3779B97F4A7C15
    assert [splitmix(step * k) for k in (1, 2, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_numbers_do_not_depend_on_the_batch():
    whole = uniform(0, 3, INDEX, "flip", 2)
    order = torch.randperm(len(INDEX))
    assert torch.equal(uniform(0, 3, INDEX[order], "flip", 2), whole[order])
    assert torch.equal(uniform(0, 3, INDEX[7:8], "flip", 2), whole[7:8])


def test_a_number_does_not_depend_on_how_many_are_drawn():
    assert torch.equal(uniform(0, 0, INDEX, "crop", 5)[:, :2], uniform(0, 0, INDEX, "crop", 2))


@pytest.mark.parametrize("other", [(1, 0, "crop"), (0, 1, "crop"), (0, 0, "flip")])
def test_seed_epoch_and_purpose_each_matter(other):
    one, two = uniform(0, 0, INDEX, "crop", 1), uniform(*other[:2], INDEX, other[2], 1)
    assert torch.corrcoef(torch.cat([one, two], 1).T)[0, 1].abs() < 0.08
    assert (one != two).float().mean() > 0.99


def test_numbers_are_uniform():
    drawn = uniform(1, 2, torch.arange(200_000), "crop", 1)[:, 0]
    counts = torch.histc(drawn, bins=100, min=0, max=1)
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # 99 degrees of freedom: 40 and 180 lie beyond the 1e-6 quantiles on either side.
    assert 40 < chi_squared < 180


def test_numbers_of_one_image_and_of_neighbours_are_unrelated():
    drawn = uniform(1, 2, torch.arange(50_000), "crop", 3)
    table = torch.cat([drawn[:-1], drawn[1:]], dim=1)
    assert (torch.corrcoef(table.T) - torch.eye(6)).abs().max() < 0.025


def test_half_of_the_bits_are_set():
    drawn = bits(5, 6, torch.arange(20_000), "order", 1)
    shares = torch.stack([(drawn >> place & 1).float().mean() for place in range(64)])
    assert (shares - 0.5).abs().max() < 0.02


def test_an_order_is_a_permutation_and_changes_with_seed_and_epoch():
    orders = [permutation(seed, epoch, 1000) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_known_numbers_stay_as_they_are():
    # Results are stored with a seed alone: these numbers must never change.
    assert permutation(0, 0, 10).tolist() == [0, 5, 1, 6, 3, 2, 9, 7, 4, 8]
    assert bits(0, 0, torch.tensor([0, 1]), "crop", 2).tolist() == [
        [4028384700583602191, 941193253473855019],
        [-4785319576058122526, -4083186609481998938],
    ]


@pytest.mark.parametrize("n", [0, 1])
def test_orders_of_nothing_and_of_one(n):
    assert permutation(0, 0, n).tolist() == list(range(n))
