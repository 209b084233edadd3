"""The clauses of the contract on what a layer is as a torch module: its state, its start, its grid, its compilation."""

from __future__ import annotations

import io

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from saccade.attention.base import Attention
from saccade.attention.initial import seeded
from saccade.attention.made import Broken, Made, outcome, require_near
from saccade.attention.tokens import Tokens


def saves_and_loads(made: Made) -> None:
    """A layer loaded from the saved state is the same function, bit by bit."""
    layer, x = made.layer(), made.images()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        other = made.build(made.tokens, made.tokens.patches).double().eval()
    other.reset_parameters(seeded(3))
    other.load_state_dict(torch.load(file, weights_only=True))
    if not torch.equal(other(x), layer(x)):
        raise Broken(
            "a layer with the loaded state gives another output: what defines the function must be a parameter "
            "or a buffer of the state dict"
        )


def reset_is_complete(made: Made) -> None:
    """Built on the meta device, emptied and reset, a layer equals one built on the CPU and reset by the same seed."""
    built = made.build(made.tokens, made.tokens.patches)
    built.reset_parameters(seeded(5))
    with torch.device("meta"):
        layer = made.build(made.tokens, made.tokens.patches)
    layer.to_empty(device="cpu")
    expected = _state(built)
    for name, values in _state(layer).items():
        _spoil(values, expected[name])
    layer.reset_parameters(seeded(5))
    for name, values in _state(layer).items():
        if not torch.equal(values, expected[name]):
            raise Broken(
                f"after torch.device('meta'), to_empty and reset_parameters, {name} differs from that of a layer built "
                "on the CPU: reset_parameters must refill it"
            )
    x = made.images().float()
    if not torch.equal(layer.eval()(x), built.eval()(x)):
        raise Broken("built on the meta device and reset, the layer computes something else than one built on the CPU")


def start_is_seeded(made: Made) -> None:
    """What a parameter starts from is f(seed, its name): twice the same, and nothing else is drawn from."""
    layer = made.build(made.tokens, made.tokens.patches)
    names = set(_state(layer))
    state = torch.random.get_rng_state()
    starts = []
    for seed in (7, 7, 8):
        asked = _Asked(seed)
        layer.reset_parameters(asked)
        starts.append({name: values.clone() for name, values in _state(layer).items()})
        if unknown := asked.names - names:
            raise Broken(
                f"reset_parameters asks for {', '.join(sorted(unknown))}: no parameter or buffer has that name"
            )
    if not torch.equal(state, torch.random.get_rng_state()):
        raise Broken("reset_parameters draws from torch's global generator: draw from generator_of(name)")
    for name, values in starts[0].items():
        if not torch.equal(values, starts[1][name]):
            raise Broken(f"{name} starts from two values at one seed: draw it from generator_of({name!r})")
        if name in asked.names and torch.equal(values, starts[2][name]):
            raise Broken(f"{name} asks for a generator, but starts from the same values at two seeds")


def regrids(made: Made) -> None:
    """`regrid` gives a layer that works on another grid, and leaves the old one as it was."""
    layer, x = made.layer(), made.images()
    before = layer(x)
    rows, columns = made.tokens.grid
    wider = Tokens((rows + 1, columns + 2), made.tokens.prefix)
    other = layer.regrid(wider)
    if other is layer or other.tokens != wider:
        raise Broken(f"regrid must return a new layer whose tokens are {wider}, saw {other.tokens}")
    y = made.images(wider)
    require_near(other(y), other.reference(y), f"after regrid to {wider}: forward against reference")
    require_near(layer(x), before, "the old layer after regrid, against before")
    require_near(layer.regrid(made.tokens)(x), before, "regrid to the same grid, against the layer itself", 1e-6)
    try:
        layer.regrid(Tokens(wider.grid, made.tokens.prefix + 1))
    except ValueError:
        return
    raise Broken("regrid to another prefix must raise a ValueError: there are no parameters for the new tokens")


def recomputes(made: Made) -> None:
    """Activation checkpointing, which runs forward twice, changes neither gradients nor state."""
    plain, again, x = made.layer().train(), made.layer().train(), made.images().requires_grad_()
    expected = outcome(plain, plain(x), x)
    for name, values in outcome(again, checkpoint(again, x, use_reentrant=False), x).items():
        require_near(values, expected[name], f"{name} with checkpointing against without")
    for name, values in _state(again).items():
        if not torch.equal(values, _state(plain)[name]):
            raise Broken(f"{name} differs after a checkpointed step: the recomputation in backward changed it again")


def compiles(made: Made) -> None:
    """torch.compile takes it whole (fullgraph, backend aot_eager), with equal outputs and gradients."""
    whole, part = made.layer(), made.layer(patches=made.visible)
    _require_compiled(whole, made.images(), None, None, "all patches")
    _require_compiled(part, made.images(patches=made.visible), made.ids(), None, "some patches")
    _require_compiled(whole, made.images(), None, slice(0, 1), "one row")


def _require_compiled(layer: Attention, x: Tensor, ids: Tensor | None, outputs: slice | None, what: str) -> None:
    torch.compiler.reset()
    x = x.requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    expected = outcome(layer, layer(x, ids, outputs), x)
    for name, values in outcome(layer, compiled(x, ids, outputs), x).items():
        require_near(values, expected[name], f"{what}: {name} compiled against eager")


class _Asked:
    """A `generator_of` that notes the names it is asked for."""

    def __init__(self, seed: int) -> None:
        self.generator_of = seeded(seed)
        self.names: set[str] = set()

    def __call__(self, name: str) -> torch.Generator:
        self.names.add(name)
        return self.generator_of(name)


def _state(layer: Attention) -> dict[str, Tensor]:
    """Parameters and buffers, those too that are not saved."""
    return {name: values.detach() for name, values in (*layer.named_parameters(), *layer.named_buffers())}


def _spoil(values: Tensor, expected: Tensor) -> None:
    """Fills with what is certainly wrong."""
    if values.is_floating_point():
        values.fill_(torch.nan)
    else:
        values.copy_(~expected if expected.dtype == torch.bool else expected - 1)
