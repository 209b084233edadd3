"""A few rows of softmax attention without keys and values: the same rows, the same gradients, less work."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from saccade.attention import Tokens, build
from saccade.attention.softmax import Softmax

TOKENS = Tokens((3, 5), prefix=2)


class Doubled(Softmax):
    """Somebody's own mixing."""

    def mix(self, q, k, v, patches):
        return 2 * super().mix(q, k, v, patches)


def made(options: str = "", cls: type[Softmax] | None = None) -> Softmax:
    torch.manual_seed(0)
    layer = (cls(24, 2, TOKENS) if cls else build(f"softmax({options})", 24, 2, TOKENS)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def images() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, TOKENS.count, 24, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("options", ["", "bias=False", "qkv_bias=False", "qk_norm=True", "rope=True"])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 8), slice(-2, None)])
def test_wanted_rows_and_their_gradients_are_those_of_the_whole(options, rows):
    layer, x = made(options), images()
    found, expected = layer(x, outputs=rows), layer(x)[:, rows]
    assert_close(found, expected)
    parts = (x, *layer.parameters())
    weights = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad((found * weights).sum(), parts), torch.autograd.grad((expected * weights).sum(), parts)
    )


def test_rows_of_visible_patches_are_those_of_the_whole():
    layer, x = made(), images()
    ids = torch.tensor([[1, 4, 6]]).expand(3, -1)
    assert_close(layer(x[:, :5], ids, slice(0, 1)), layer.reference(x[:, :5], ids)[:, :1])


def test_only_plain_attention_of_few_rows_folds():
    assert made().folds(9, 17)
    assert not made().folds(10, 17)
    for options in ("qk_norm=True", "rope=True", 'kernel="sdpa"', 'kernel="explicit"'):
        assert not made(options).folds(1, 17), options


def test_somebody_s_own_mixing_is_not_passed_by():
    layer, x = made(cls=Doubled), images()
    assert_close(layer(x, outputs=slice(0, 1)), layer(x)[:, :1])


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_declared_flops_are_those_that_torch_counts(rows):
    layer = made()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(images().detach()[:1], outputs=slice(0, rows))
    assert (
        layer.flops(TOKENS.patches, rows)
        == counter.get_total_flops()
        < super(Softmax, layer).flops(TOKENS.patches, rows)
    )
