"""The MLP in tiles is the plain MLP: values, gradients, precisions, and where the plain formula must run."""

import pytest
import torch
from tests.peers import timm  # noqa: F401
from torch.testing import assert_close

from saccade.attention.initial import seeded
from saccade.models import mlp
from saccade.models.mlp import Mlp, SwiGLU, tiled_mlp


@pytest.fixture
def tiny_tiles(monkeypatch):
    """Tiles of seven rows, so that the last one is smaller."""
    monkeypatch.setattr(mlp, "TILE_ROWS", 7)
    monkeypatch.setattr(mlp, "TILE_BYTES", 1)
    monkeypatch.setattr(mlp, "PLAIN_BYTES", 0)


def plain(layer: Mlp, x: torch.Tensor) -> torch.Tensor:
    return layer.fc2(torch.nn.functional.gelu(layer.fc1(x)))


def gradients(y: torch.Tensor, x: torch.Tensor, layer: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return torch.autograd.grad((y * weights).sum(), (x, *layer.parameters()))


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize("shape", [(1, 6), (7, 6), (3, 8, 6), (2, 1, 6), (0, 5, 6)])
def test_in_tiles_values_and_gradients_are_those_of_the_plain_formula(shape):
    layer = Mlp(6, 10).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert_close(layer(x), plain(layer, x))
    assert_close(gradients(layer(x), x, layer), gradients(plain(layer, x), x, layer))


@pytest.mark.usefixtures("tiny_tiles")
def test_gradients_in_tiles_are_those_of_finite_differences():
    layer = Mlp(3, 4).double()
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    parameters = (layer.fc1.weight, layer.fc1.bias, layer.fc2.weight, layer.fc2.bias)
    assert torch.autograd.gradcheck(tiled_mlp, (x, *parameters))


@pytest.mark.usefixtures("tiny_tiles")
def test_without_gradients_the_values_stay(monkeypatch):
    layer = Mlp(6, 10).double().eval()
    x = torch.randn(20, 6, dtype=torch.float64)
    calls = []
    forward_tiles = mlp._forward_tiles
    monkeypatch.setattr(mlp, "_forward_tiles", lambda *given: calls.append(given[0]) or forward_tiles(*given))
    with torch.no_grad():
        assert_close(layer(x), plain(layer, x))
    assert calls == [None], "nothing is kept for a backward that does not come"


@pytest.mark.usefixtures("tiny_tiles")
def test_bf16_gradients_are_as_near_to_float32_as_the_plain_formula_s():
    layer = Mlp(16, 64)
    x = torch.randn(210, 16)
    rounded = Mlp(16, 64).bfloat16()
    rounded.load_state_dict(layer.state_dict())
    x16, x32 = x.bfloat16().requires_grad_(), x.requires_grad_()
    truth = gradients(plain(layer, x32), x32, layer)

    def error(found):
        return max(((one.float() - true).norm() / true.norm()).item() for one, true in zip(found, truth, strict=True))

    assert error(gradients(rounded(x16), x16, rounded)) <= 1.2 * error(gradients(plain(rounded, x16), x16, rounded))


@pytest.mark.usefixtures("tiny_tiles")
def test_under_autocast_it_computes_in_the_dtype_of_autocast():
    layer = Mlp(6, 10)
    x = torch.randn(20, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = layer(x), plain(layer, x)
    assert ours.dtype == expected.dtype == torch.bfloat16
    assert_close(ours, expected)
    found = gradients(ours, x, layer)
    assert {gradient.dtype for gradient in found} == {torch.float32}
    assert_close(found, gradients(expected, x, layer), rtol=0.05, atol=0.01)


@pytest.mark.parametrize(("training", "drop"), [(True, 0.5), (False, 0.0)])
def test_dropout_and_gradients_in_eval_mode_take_the_plain_formula(monkeypatch, training, drop):
    monkeypatch.setattr(mlp, "tiled_mlp", None)
    layer = Mlp(6, 10, drop).train(training)
    assert layer(torch.randn(5, 6, requires_grad=True)).shape == (5, 6)


def test_in_eval_mode_gradients_of_gradients_exist():
    layer = Mlp(3, 4).double().eval()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_dropout_acts_behind_the_gelu_and_behind_the_second_product():
    layer = Mlp(4, 1000, drop=0.5)
    for linear in (layer.fc1, layer.fc2):
        torch.nn.init.ones_(linear.weight)
    y = layer(torch.ones(64, 4)) - 2 * layer.fc2.bias
    assert 0.3 < (y == -2 * layer.fc2.bias).float().mean() < 0.7
    assert len(y[y > 100].unique()) > 20


@pytest.mark.parametrize(("ours", "theirs"), [(Mlp, "Mlp"), (SwiGLU, "SwiGLU")])
def test_weights_and_values_are_those_of_timm(ours, theirs):
    from timm import layers

    peer = getattr(layers, theirs)(8, 12).double()
    layer = ours(8, 12).double()
    layer.load_state_dict(peer.state_dict())
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    assert_close(layer(x), peer(x))
    assert_close(gradients(layer(x), x, layer), gradients(peer(x), x, peer))


def test_a_gate_starts_open():
    layer = SwiGLU(8, 200)
    layer.reset_parameters(seeded(0))
    assert torch.equal(layer.fc1_g.bias, torch.ones(200))
    assert layer.fc1_g.weight.std() < 1e-5
    assert layer.fc1_x.weight.std() > 0.05


def test_flops_are_two_for_each_weight_of_each_row():
    assert Mlp(8, 12).flops(5) == 2 * 5 * 2 * 96
    assert SwiGLU(8, 12).flops(5) == 2 * 5 * 3 * 96


def test_few_hidden_values_take_the_plain_formula(monkeypatch):
    layer = Mlp(6, 10)
    asked = []
    monkeypatch.setattr(mlp, "tiled_mlp", lambda x, *weights: asked.append(len(x)) or x)
    monkeypatch.setattr(mlp, "PLAIN_BYTES", 8 * 10 * 4)
    for rows in (7, 8):
        layer(torch.randn(rows, 6))
    assert asked == [8]
