"""Visual attention against torch's own convolutions, put together as in the paper, and against a crop of the grid."""

import pytest
import torch
from tests.attention.agreement import images, lively, slopes, visible
from torch import nn
from torch.testing import assert_close

from saccade.attention import Tokens, build

DIM, HEADS = 12, 3


class VAN(nn.Module):
    """The paper's attention on images (b, channels, rows, columns), with a large kernel of 21 x 21."""

    def __init__(self, near=5, far=7, gap=3):
        super().__init__()
        self.proj_1 = nn.Conv2d(DIM, DIM, 1)
        self.conv0 = nn.Conv2d(DIM, DIM, near, padding="same", groups=DIM)
        self.conv_spatial = nn.Conv2d(DIM, DIM, far, padding="same", groups=DIM, dilation=gap)
        self.conv1 = nn.Conv2d(DIM, DIM, 1)
        self.proj_2 = nn.Conv2d(DIM, DIM, 1)

    def forward(self, x):
        u = nn.GELU()(self.proj_1(x))
        return x + self.proj_2(u * self.conv1(self.conv_spatial(self.conv0(u))))


def van_of(layer, **sides):
    """The paper's, with our weights."""
    theirs = VAN(**sides).double()
    theirs.load_state_dict(
        {name: value.view_as(theirs.get_parameter(name)) for name, value in layer.state_dict().items()}
    )
    return theirs


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ("", {}),
        ("(kernel=7)", {"far": 3}),
        ("(kernel=14,dilation=5)", {"near": 9, "far": 3, "gap": 5}),
        ("(kernel=5,dilation=1)", {"near": 1, "far": 5, "gap": 1}),
    ],
)
@pytest.mark.parametrize("grid", [(4, 4), (9, 8), (1, 5)])
def test_it_is_the_papers_attention(grid, options, sides):
    layer = lively(f"visual{options}", DIM, HEADS, Tokens(grid))
    theirs, x = van_of(layer, **sides), images(2, grid[0] * grid[1], DIM).requires_grad_()
    y, expected = layer(x), theirs(x.mT.unflatten(2, grid)).flatten(2).mT
    assert_close(y, expected)
    names = list(layer.state_dict())
    found = slopes(y, [x, *map(layer.get_parameter, names)])
    wanted = slopes(expected, [x, *map(theirs.get_parameter, names)])
    for ours, other in zip(found, wanted, strict=True):
        assert_close(ours, other.view_as(ours))


def test_a_hidden_patch_is_a_place_beyond_the_edge():
    """The visible patches fill a corner of a large grid: the same numbers as a grid that ends there."""
    large, small = Tokens((9, 10), prefix=1), Tokens((5, 6), prefix=1)
    layer, alone = lively("visual", DIM, HEADS, large), lively("visual", DIM, HEADS, small)
    alone.load_state_dict(layer.state_dict())
    ids = torch.arange(90).view(9, 10)[4:, 4:].reshape(1, -1).expand(2, -1)
    x = images(2, 31, DIM).requires_grad_()
    assert_close(layer(x, ids), alone(x))
    assert_close(slopes(layer(x, ids), [x]), slopes(alone(x), [x]))


@pytest.mark.parametrize("prefix", [0, 2])
def test_sums_are_over_the_visible_patches_alone(prefix):
    tokens = Tokens((6, 7), prefix)
    layer = lively("visual(kernel=9)", DIM, HEADS, tokens)
    ids, x = visible(2, tokens, 17), images(2, prefix + 17, DIM)
    u = nn.functional.gelu(layer.proj_1(x))
    around = u.clone()
    for image, own in enumerate(ids.tolist()):
        for conv, middle, gap in ((layer.conv0, 2, 1), (layer.conv_spatial, 1, 3)):
            before = around[image].clone()
            for n, place in enumerate(own):
                total = conv.bias.clone()
                for m, other in enumerate(own):
                    down, right = other // 7 - place // 7, other % 7 - place % 7
                    if down % gap == 0 and right % gap == 0 and max(abs(down), abs(right)) <= middle * gap:
                        tap = conv.weight[:, 0, down // gap + middle, right // gap + middle]
                        total = total + tap * before[prefix + m]
                around[image, prefix + n] = total
    assert_close(layer(x, ids), x + layer.proj_2(u * layer.conv1(around)))


def test_a_prefix_token_gets_the_projections_alone_and_reaches_nothing():
    tokens = Tokens((3, 4), prefix=2)
    layer = lively("visual", DIM, HEADS, tokens)
    x = images(2, 14, DIM)
    first = x[:, :2]
    u = nn.functional.gelu(layer.proj_1(first))
    assert_close(layer(x)[:, :2], first + layer.proj_2(u * layer.conv1(u)))
    alone = lively("visual", DIM, HEADS, Tokens((3, 4)))
    alone.load_state_dict(layer.state_dict())
    assert_close(layer(x)[:, 2:], alone(x[:, 2:]))


def test_only_what_the_first_convolution_writes_to_visible_places_goes_on():
    """Patch 4 of a row reaches patch 0 by way of 3 (or 6, off its end); where 3 is hidden it does not."""
    layer = lively("visual(kernel=9)", DIM, HEADS, Tokens((1, 5)))
    assert layer.reach(torch.tensor([0, 3, 4]))[0].tolist() == [True, True, True]
    assert layer.reach(torch.tensor([0, 4]))[0].tolist() == [True, False]
    x, ids = images(1, 2, DIM).requires_grad_(), torch.tensor([[0, 4]])
    assert torch.autograd.grad(layer(x, ids)[0, 0].sum(), x)[0][0, 1].abs().max() == 0


@pytest.mark.parametrize(("dim", "count"), [(768, 1_830_144), (64, 3 * 64**2 + 79 * 64)])
def test_it_has_as_many_parameters_as_published(dim, count):
    layer = build("visual", dim, 4, Tokens((7, 7), 1))
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


def test_it_multiplies_as_often_as_published():
    layer = build("visual", 64, 4, Tokens((7, 7)))
    assert layer.flops(49) == 2 * 49 * (3 * 64**2 + 74 * 64)


def test_it_starts_as_the_authors_do():
    torch.manual_seed(0)
    layer = build("visual", 256, 4, Tokens((7, 7)))
    for module, std in (
        (layer.proj_1, (2 / 256) ** 0.5),
        (layer.conv1, (2 / 256) ** 0.5),
        (layer.conv0, 2**0.5 / 5),
        (layer.conv_spatial, 2**0.5 / 7),
    ):
        assert module.weight.std().item() == pytest.approx(std, rel=0.03)
        assert not module.bias.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("kernel=12", "kernel / dilation, rounded up, is 4, and must be odd and at least 3"),
        ("kernel=3", "kernel / dilation, rounded up, is 1, and must be odd and at least 3"),
        ("kernel=0", "kernel must be a whole number of at least 1"),
        ("dilation=0", "dilation must be a whole number of at least 1"),
    ],
)
def test_a_kernel_without_a_middle_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(f"visual({options})", DIM, HEADS, Tokens((3, 4)))
