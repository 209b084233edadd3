"""Reversible blocks: two streams whose steps can be undone, so that backward makes activations anew and keeps none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from saccade.attention.parts import at_least_float32
from saccade.models.block import Block

CHECKPOINTING_REFUSED = (
    "grad_checkpointing with reversible=True: reversible blocks keep nothing that checkpointing could save; "
    "leave one of the two off"
)

Streams = tuple[Float[Tensor, "b n w"], Float[Tensor, "b n w"]]


def run_reversible(
    blocks: Iterable[Block],
    x: Float[Tensor, "b n w"],
    patches: Int[Tensor, "b p"] | None = None,
    outputs: slice | None = None,
    noise: Float[Tensor, "b u"] | None = None,
) -> Float[Tensor, "b m w"]:
    """Runs blocks on two copies of the tokens, and returns the mean of what becomes of them.

    A block makes y1 = x1 + attention(norm(x2)), then y2 = x2 + MLP(norm(y1)) (Gomez et al. 2017,
    https://arxiv.org/abs/1707.04585; Kitaev et al. 2020, https://arxiv.org/abs/2001.04451). Copies at the start and
    the mean at the end are those of xFormers' `reversible=True`
    (https://github.com/facebookresearch/xformers, v0.0.22, xformers/factory/model_factory.py).

    For backward the two streams behind the last block are kept, whatever the depth; x2 = y2 - MLP(norm(y1)) and
    x1 = y1 - attention(norm(x2)) are computed anew, which costs another forward pass. They are what they were up to
    rounding: the streams are float32 at least, in bf16 models too. Random draws (dropout) are repeated from torch's
    state before each branch, kept where a branch drew. torch.compile breaks its graph here, and fullgraph is refused.

    Args:
        blocks: made with `reversible=True`.
        x: prefix tokens, then patches.
        patches: as a block's.
        outputs: the rows that are wanted; then the last block computes these alone, and keeps what it needs for its
            backward, since its other rows are not there to be undone.
        noise: two numbers a block, as a block's, side by side.
    """
    streams = _copies(x)
    if outputs is None:
        return _mean(_through(_Steps([*blocks], patches, noise, x.dtype), streams), x.dtype)
    *earlier, last = blocks
    streams = _through(_Steps(earlier, patches, noise, x.dtype), streams)
    (y1, y2), of_last = streams, _noise_of(noise, len(earlier))
    y1 = y1[:, outputs] + last.attention_branch(y2.to(x.dtype), patches, outputs, of_last[0])
    y2 = y2[:, outputs] + last.mlp_branch(y1.to(x.dtype), of_last[1])
    return _mean((y1, y2), x.dtype)


def reversible_outputs(
    blocks: Iterable[Block], x: Float[Tensor, "b n w"], noise: Float[Tensor, "b u"] | None = None
) -> Iterator[Float[Tensor, "b n w"]]:
    """What `run_reversible` would return behind each block; for backward the streams behind each are kept."""
    streams = _copies(x)
    for layer, block in enumerate(blocks):
        mine = None if noise is None else noise[:, 2 * layer : 2 * layer + 2]
        streams = _through(_Steps([block], None, mine, x.dtype), streams)
        yield _mean(streams, x.dtype)


@dataclass
class _Steps:
    """What is done to the streams.

    Attributes:
        blocks: the first one first.
        patches: as a block's.
        noise: two numbers a block.
        dtype: in which branches are computed.
        states: the state of torch's generators before each branch that drew from them.
    """

    blocks: Sequence[Block]
    patches: Int[Tensor, "b p"] | None
    noise: Float[Tensor, "b u"] | None
    dtype: torch.dtype
    states: dict[int, _RandomState] = field(default_factory=dict)

    def branch(self, number: int) -> Callable[[Tensor], Tensor]:
        """The attention (of even number) or MLP (of odd) of a block."""
        block, of_block = self.blocks[number // 2], _noise_of(self.noise, number // 2)
        if number % 2:
            return lambda x: block.mlp_branch(x.to(self.dtype), of_block[1])
        return lambda x: block.attention_branch(x.to(self.dtype), self.patches, None, of_block[0])

    def parameters(self, layer: int) -> list[Tensor]:
        """Those of a block that are learned."""
        return [one for one in self.blocks[layer].parameters() if one.requires_grad]


def _through(steps: _Steps, streams: Streams) -> Streams:
    if not steps.blocks:
        return streams
    if torch.is_grad_enabled():
        parameters = (one for layer in range(len(steps.blocks)) for one in steps.parameters(layer))
        return cast(Streams, _Reversible.apply(steps, *streams, *parameters))
    for number in range(2 * len(steps.blocks)):
        streams = (streams[1], streams[0] + steps.branch(number)(streams[1]))
    return streams


class _Reversible(torch.autograd.Function):
    """After each branch the streams change places: x1 + f(x2) becomes the second one."""

    @staticmethod
    def forward(ctx: Any, steps: _Steps, x1: Tensor, x2: Tensor, *parameters: Tensor) -> Streams:
        ctx.steps, ctx.autocast = steps, _autocast(x1.device)
        with ctx.autocast():
            for number in range(2 * len(steps.blocks)):
                before = _RandomState.now(x1)
                x1, x2 = x2, x1 + steps.branch(number)(x2)
                if before.has_passed(x1):
                    steps.states[number] = before
        # The weights stand beside the streams so that torch notices where one was changed before backward.
        ctx.save_for_backward(x1, x2, *parameters)
        return x1, x2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx1: Tensor, dx2: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        steps: _Steps = ctx.steps
        x1, x2, *_ = ctx.saved_tensors
        slopes: list[Tensor | None] = []
        for layer in reversed(range(len(steps.blocks))):
            parameters = steps.parameters(layer)
            of_layer: list[Tensor | None] = [None] * len(parameters)
            for number in (2 * layer + 1, 2 * layer):
                random = steps.states.get(number)
                with torch.enable_grad(), ctx.autocast(), random.again(x1) if random else nullcontext():
                    given = x1.detach().requires_grad_()
                    added = steps.branch(number)(given)
                leaves = (given, *parameters)
                dgiven, *found = torch.autograd.grad(added, leaves, dx2.to(added.dtype), allow_unused=True)
                x1, x2 = x2 - added.detach(), x1
                dx1, dx2 = dx2, dx1 + dgiven
                of_layer = [_sum(one, other) for one, other in zip(of_layer, found, strict=True)]
            slopes = of_layer + slopes
        return None, dx1, dx2, *slopes


@dataclass(frozen=True)
class _RandomState:
    """A state of torch's generators: the processor's, and the accelerators' in use."""

    processor: Tensor
    devices: list[int]
    accelerators: list[Tensor]

    @classmethod
    def now(cls, x: Tensor) -> _RandomState:
        """The present one; x tells the accelerator."""
        return cls(torch.get_rng_state(), *get_device_states(x))

    def has_passed(self, x: Tensor) -> bool:
        """Whether anything was drawn since."""
        now = _RandomState.now(x)
        pairs = zip([self.processor, *self.accelerators], [now.processor, *now.accelerators], strict=True)
        return not all(torch.equal(one, other) for one, other in pairs)

    @contextmanager
    def again(self, x: Tensor) -> Iterator[None]:
        """Draws what was drawn from this state on, and leaves the present one as it was."""
        with torch.random.fork_rng(self.devices, device_type=x.device.type):
            torch.set_rng_state(self.processor)
            set_device_states(self.devices, self.accelerators, device_type=x.device.type)
            yield


def _autocast(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What makes the present autocast once more, in backward, too."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)
    # Without its cache: weights cast in forward, where nothing is recorded, would be taken for those of backward.
    return partial(torch.autocast, device.type, dtype, enabled, cache_enabled=False)


def _copies(x: Float[Tensor, "b n w"]) -> Streams:
    wide = at_least_float32(x)
    return wide, wide


def _mean(streams: Streams, dtype: torch.dtype) -> Float[Tensor, "b n w"]:
    return ((streams[0] + streams[1]) / 2).to(dtype)


def _noise_of(
    noise: Float[Tensor, "b u"] | None, layer: int
) -> tuple[Float[Tensor, " b"] | None, Float[Tensor, " b"] | None]:
    """That of a block's attention and that of its MLP."""
    return (None, None) if noise is None else (noise[:, 2 * layer], noise[:, 2 * layer + 1])


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
