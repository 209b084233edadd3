"""Tracked: what the memory of a training step or a forward pass is for, tensor by tensor, be they real or fake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from saccade.attention.base import Attention
from saccade.measurement.memory.scopes import Scopes
from saccade.measurement.memory.scratch import Scratch
from saccade.measurement.memory.tally import Stored, Tally
from saccade.measurement.step import Forward, Step

Module = TypeVar("Module", bound=nn.Module)

# AdamW's moments are there from the end of the first step on: only the second has them beside all gradients.
STEPS = 2

WITHIN = 0.02


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a step takes above what was in the process before the model, at the moment when most is taken.

    Attributes:
        peak_bytes: of tensors, and what is known of what tensors and operations take beside their values.
        tensors_bytes: of tensors alone, when they were most.
        weights_bytes: of weights and buffers, at the peak, as all that follow.
        gradients_bytes: of the weights' gradients, in the optimiser's type too.
        optimiser_bytes: of moments and of float32 masters.
        inputs_bytes: of what the step is given.
        activations_bytes: of everything else that is a tensor.
        attention_bytes: of the activations those made in attention layers.
        by_module: the activations by the module that made them, the largest first; "loss" for what none did.
        kept_bytes: activations kept between forward and backward pass; 0 without a backward pass.
        kept_by_module: the same by the module.
        scratch_bytes: what tensors and operations take beside their values; included in `peak_bytes`.
        within: the share of `peak_bytes` by which the truth may differ.
    """

    peak_bytes: int
    tensors_bytes: int
    weights_bytes: int
    gradients_bytes: int
    optimiser_bytes: int
    inputs_bytes: int
    activations_bytes: int
    attention_bytes: int
    by_module: Mapping[str, int]
    kept_bytes: int
    kept_by_module: Mapping[str, int]
    scratch_bytes: int
    within: float

    def parts(self) -> dict[str, Any]:
        """What the peak is made of, as a record holds it."""
        told = asdict(self)
        return {name: value for name, value in told.items() if name not in ("peak_bytes", "tensors_bytes", "within")}


def track_training(model: Module, step_of: Callable[[Module], Step]) -> Memory:
    """What training takes: `STEPS` steps, of which the first makes the moments.

    Args:
        model: in float32, as a step is given it.
        step_of: makes the step, and casts the model.
    """
    with _following(model) as (tally, scratch):
        step = step_of(model)
        _name_what_is_there(tally, model, step)
        kept: list[Stored] = []
        for _ in range(STEPS):
            kept = _follow(tally, model, step)
    return _told(tally, scratch, model, kept)


def track_step(model: nn.Module, step: Step) -> Memory:
    """The same by one step, of an optimiser whose moments have been made; it can take another one afterwards.

    Args:
        model: of the step.
        step: ready for it.
    """
    state = step.optimiser.torch.state
    with _following(model) as (tally, scratch):
        moments = [value for master in step.optimiser.masters for value in state[master].values()]
        tally.add([*step.optimiser.masters, *moments])
        tally.name(moments, "optimiser")
        _name_what_is_there(tally, model, step)
        kept = _follow(tally, model, step, unused=lambda master: tally.forget(state[master].values()))
    return _told(tally, scratch, model, kept)


def track_inference(model: nn.Module, forward: Forward) -> Memory:
    """What a forward pass without gradients takes.

    Args:
        model: in the type in which it is used.
        forward: the pass.
    """
    with _following(model) as (tally, scratch):
        tally.add(_given(forward.images))
        tally.name(_given(forward.images), "inputs")
        forward()
    return _told(tally, scratch, model, [])


def _name_what_is_there(tally: Tally, model: nn.Module, step: Step) -> None:
    tally.name(step.optimiser.masters, "optimiser")
    # Float32 weights are their own masters.
    tally.name(_state(model), "weights")
    tally.add(_given(step.images))
    tally.name(_given(step.images), "inputs")


def _follow(
    tally: Tally, model: nn.Module, step: Step, unused: Callable[[Tensor], None] = lambda master: None
) -> list[Stored]:
    """Takes the step.

    Args:
        unused: is told of each master whose weight gets no gradient.

    Returns:
        What was there between the forward and the backward pass.
    """
    optimiser = step.optimiser
    loss = step.forward()
    kept = tally.moment
    loss.backward()
    # Nobody keeps it.
    del loss
    for weight, master in zip(optimiser.weights, optimiser.masters, strict=True):
        if weight.grad is None:
            unused(master)
    tally.name((weight.grad for weight in model.parameters()), "gradients")
    hook = optimiser.torch.register_step_pre_hook(
        lambda *_: tally.name((master.grad for master in optimiser.masters), "gradients")
    )
    tally.part = "optimiser"
    step.update()
    tally.part = None
    hook.remove()
    return tally.there(kept)


@contextmanager
def _following(model: nn.Module) -> Iterator[tuple[Tally, Scratch]]:
    """A tally that knows the model's modules and begins with its weights."""
    scratch = Scratch()
    with Scopes(model) as scopes, Tally(scope_of=scopes, held=scratch.held, within=scratch.within) as tally:
        tally.add(_state(model))
        tally.name(_state(model), "weights")
        yield tally, scratch


def _told(tally: Tally, scratch: Scratch, model: nn.Module, kept: list[Stored]) -> Memory:
    there = tally.there(tally.needed_moment)
    of = Counter[str | None]()
    for one in there:
        of[one.part] += one.size
    by_module = _by_module(there)
    inside = [name for name, module in model.named_modules() if isinstance(module, (Attention, nn.MultiheadAttention))]
    prefixes = tuple(f"{name}." for name in inside)
    mixed = {name for name in by_module if name in inside or name.startswith(prefixes)}
    kept_by_module = _by_module(kept)
    peak_bytes = tally.needed_bytes + scratch.kept_bytes
    return Memory(
        peak_bytes=peak_bytes,
        tensors_bytes=tally.peak_bytes,
        weights_bytes=of["weights"],
        gradients_bytes=of["gradients"],
        optimiser_bytes=of["optimiser"],
        inputs_bytes=of["inputs"],
        activations_bytes=of[None],
        attention_bytes=sum(by_module[name] for name in mixed),
        by_module=by_module,
        kept_bytes=sum(kept_by_module.values()),
        kept_by_module=kept_by_module,
        scratch_bytes=peak_bytes - sum(of.values()),
        within=WITHIN + scratch.doubt_bytes / peak_bytes,
    )


def _by_module(stored: Iterable[Stored]) -> dict[str, int]:
    """Bytes of the activations among these by the module that made them, the largest first."""
    counted = Counter[str]()
    for one in stored:
        if one.part is None:
            counted[one.scope] += one.size
    return dict(counted.most_common())


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _given(inputs: Any) -> list[Tensor]:
    return [one for one in tree_leaves(inputs) if isinstance(one, Tensor)]
