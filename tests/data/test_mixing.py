"""Mixing two images into one."""

import math

import pytest
import torch

from saccade.data.draws import uniform
from saccade.data.mixing import DRAWS, beta_quantile, mixed, mixed_targets

U = torch.linspace(0, 1, 1001)[:-1]


@pytest.mark.parametrize(
    ("alpha", "cumulated"),
    [
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
        (3.0, lambda x: 10 * x**3 - 15 * x**4 + 6 * x**5),
        (0.5, lambda x: 2 / math.pi * x.sqrt().asin()),
    ],
)
def test_quantiles_of_beta_are_those_of_its_closed_forms(alpha, cumulated):
    assert (cumulated(beta_quantile(U, alpha).double()) - U.double()).abs().max() < 1e-4


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.8, 1.0, 4.0, 32.0])
def test_shares_have_the_mean_and_deviation_of_beta(alpha):
    share = beta_quantile(uniform(0, 0, torch.arange(100_000), "mix", 1)[:, 0], alpha).double()
    expected = torch.distributions.Beta(alpha, alpha)
    assert abs(share.mean() - 0.5) < 5e-3
    assert abs(share.std() - expected.stddev) < 5e-3
    assert share.min() >= 0
    assert share.max() <= 1


def test_quantiles_rise():
    assert (beta_quantile(U, 0.2).diff() >= 0).all()


def images(n=200):
    return (
        torch.full((n, 3, 8, 10), 100.0),
        torch.full((n, 3, 8, 10), 200.0),
        uniform(0, 0, torch.arange(n), "mix", DRAWS),
    )


def test_mixup_adds_the_two_by_their_shares():
    one, other, drawn = images()
    made, share = mixed(one, other, drawn, mixup=0.8, cutmix=0.0)
    assert torch.equal(share, beta_quantile(drawn[:, 1], 0.8))
    assert torch.allclose(made, (100 * share + 200 * (1 - share))[:, None, None, None].expand_as(made))


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    one, other, drawn = images()
    made, share = mixed(one, other, drawn, mixup=0.0, cutmix=1.0)
    pasted = made == 200
    assert ((made == 100) | pasted).all()
    assert torch.allclose(share, 1 - pasted[:, 0].float().mean(dim=(1, 2)))
    for mask in pasted[:, 0]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) if len(rows) else 0
        assert mask.sum() == box
    assert 0.2 < (1 - share).mean() < 0.5


def test_with_both_a_coin_decides():
    one, other, drawn = images(2000)
    made, _ = mixed(one, other, drawn, mixup=1.0, cutmix=1.0)
    added = ((made != 100) & (made != 200)).flatten(1).any(dim=1)
    assert abs(added.float().mean() - 0.5) < 0.05


def test_targets_are_shares_of_two_classes():
    target = mixed_targets(torch.tensor([0, 2]), torch.tensor([1, 2]), torch.tensor([0.75, 0.5]), 3)
    assert target.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
