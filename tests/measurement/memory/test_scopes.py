"""Every operation of a step belongs to a module, and the modules do not notice."""

import pytest
import torch
from torch import nn
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from saccade.measurement.memory.scopes import Scopes


class Doubled(torch.autograd.Function):
    """2 x by an operation that nobody else here calls; its gradient by another."""

    @staticmethod
    def forward(ctx, x):
        return torch.mul(x, 2)

    @staticmethod
    def backward(ctx, dy):
        return torch.add(dy, dy)


class Inner(nn.Module):
    def forward(self, x):
        return Doubled.apply(x.sin()).sinh()


class Outer(nn.Module):
    def __init__(self, again=False):
        super().__init__()
        self.first, self.second, self.again = Inner(), Inner(), again

    def forward(self, x):
        x = self.first(x).cos()
        return checkpoint(self.second, x, use_reentrant=False) if self.again else self.second(x)


class Heard(TorchDispatchMode):
    """The scope of every operation."""

    def __init__(self, scopes):
        super().__init__()
        self.scopes, self.heard = scopes, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (name := func.overloadpacket.__name__) != "detach":
            self.heard.append((name, self.scopes()))
        return func(*args, **(kwargs or {}))


def heard(model, forward_only=False):
    x = torch.ones(3, requires_grad=True)
    with Scopes(model) as scopes, Heard(scopes) as told:
        y = model(x).exp()
        if not forward_only:
            told.heard.clear()
            y.backward(torch.ones(3))
    return told.heard


def test_an_operation_forward_is_the_innermost_module_s():
    assert heard(Outer(), forward_only=True) == [
        ("sin", "first"),
        ("mul", "first"),
        ("sinh", "first"),
        ("cos", "Outer"),
        ("sin", "second"),
        ("mul", "second"),
        ("sinh", "second"),
        ("exp", "loss"),
    ]


def test_an_operation_backward_is_that_of_the_module_whose_gradient_it_computes():
    told = heard(Outer())
    assert ("add", "first") in told
    assert ("add", "second") in told
    # The gradients of cos and exp.
    assert {scope for name, scope in told if name in ("sin", "neg")} == {"Outer"}
    assert {scope for name, scope in told if name in ("cos", "cosh")} == {"first", "second"}
    assert {scope for _, scope in told} == {"first", "second", "Outer", "loss"}


def test_what_runs_again_in_backward_is_the_module_s_that_runs():
    told = heard(Outer(again=True))
    assert ("sin", "second") in told
    assert ("mul", "second") in told


def test_nothing_is_left_behind():
    model = Outer()
    before = dict(vars(model.first))
    heard(model)
    assert vars(model.first) == before
    assert not modules._global_forward_hooks
    assert not modules._global_forward_pre_hooks


def test_a_model_that_fails_leaves_nothing_behind():
    model = Outer()
    model.second = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), Scopes(model) as scopes:
        model(torch.ones(3))
    assert scopes() == "loss"
    assert not modules._global_forward_hooks


def test_other_models_have_no_name():
    model, other = Outer(), Outer()
    with Scopes(model) as scopes, Heard(scopes) as told:
        other(torch.ones(3))
    assert {scope for _, scope in told.heard} == {"loss"}
