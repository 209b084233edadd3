"""Attention cores by several hands: saccade's and those of the packages that have the same function, on one input."""

from __future__ import annotations

import gc
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saccade.attention import TABLE
from saccade.attention.base import Attention, MultiHead
from saccade.attention.initial import seeded
from saccade.measurement.allocator import trim
from saccade.measurement.benching.layer import Core, LayerSubject, kernel, subject_from
from saccade.measurement.benching.layer_worker import Forward, ForwardBackward, normal
from saccade.measurement.memory.scale import Highest, scale_for
from saccade.measurement.timed import Timed

MEMORIES = ("forward_peak", "kept", "peak")
"""What is weighed: the most of a forward pass without gradients; what is there between forward and backward, the output
included; the most of both."""

# Of outputs and gradients: a function that agrees with another on all of them is the same one.
DIRECTIONS = 4

OURS = "saccade"


def same(values: Tensor) -> Tensor:
    return values


@dataclass
class Contestant:
    """Somebody's code, ready to be called.

    Attributes:
        module: what is called.
        inputs: what it is called with, in the layout that it takes.
        code: whose it is, with the version.
        as_ours: an output, or the gradient of an input, in our layout.
        scales: what an input was multiplied by, and its gradient must be, to make the functions one.
    """

    module: nn.Module
    inputs: list[Tensor]
    code: str
    as_ours: Callable[[Tensor], Tensor] = same
    scales: Sequence[float] = (1.0, 1.0, 1.0)


Given = tuple[Attention, list[Tensor]]
"""Our layer, and the inputs in our layout."""


@dataclass(frozen=True)
class Reach:
    """How much better than the best peer we want to be at forward with backward.

    Attributes:
        faster: how many times.
        leaner: how many times, where that is wanted.
        of: which memory has to be leaner, of `MEMORIES`.
    """

    faster: float = 1.0
    leaner: float | None = None
    of: str = "peak"


@dataclass(frozen=True)
class Case:
    """One function, and who computes it.

    Attributes:
        attention: our written form.
        peers: whose code, by name.
        layout: of the input: "heads" for q, k and v of (B, H, N, e), "packed" for all three of all heads in one
            (B, N, 3 D), as a projection puts them out; "layer" for tokens (B, N, D) and a layer with its projections.
        sides: of the square grids, each with the number of images.
        dim: width of a token.
        heads: into which it is divided.
        reach: what we want.
        alike_heads: every head of every image has the same q, k and v.
        at: the attention on grids of this side, where another is needed.
    """

    attention: str
    peers: Mapping[str, Callable[[Given], Contestant]]
    layout: Literal["heads", "packed", "layer"]
    sides: Mapping[int, int] = field(default_factory=lambda: {28: 4, 56: 4})
    dim: int = 512
    heads: int = 8
    reach: Reach = Reach()
    alike_heads: bool = False
    at: Mapping[int, str] = field(default_factory=dict)


class OnHeads(nn.Module):
    """A function of q, k and v."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The function."""
        return self.function(q, k, v)


class OnPacked(nn.Module):
    """Our core on what the projection of queries, keys and values puts out, heads side by side as they go on."""

    def __init__(self, layer: MultiHead) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Takes it apart, mixes, puts the heads side by side."""
        q, k, v = (one.unflatten(-1, (self.layer.num_heads, -1)).transpose(1, 2) for one in x.chunk(3, dim=-1))
        return self.layer.mix(q, k, v, None).transpose(1, 2).flatten(2)


class Third(nn.Module):
    """In place of one projection: its share of what is packed."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        """Its third of the channels."""
        return x.chunk(3, dim=-1)[self.place]


def by_performer_pytorch(given: Given) -> Contestant:
    """Its FastAttention with our random features."""
    layer, inputs = given
    module = _package("performer_pytorch").FastAttention(layer.head_dim, nb_features=layer.features)
    module.projection_matrix.copy_(layer.omega)
    return Contestant(module, inputs, _code("performer-pytorch"))


def by_performers_product(given: Given) -> Contestant:
    """performer-pytorch's product of features, with elu + 1 as the features."""
    product = _package("performer_pytorch.performer_pytorch").linear_attention

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return product(nn.functional.elu(q) + 1, nn.functional.elu(k) + 1, v)

    return Contestant(OnHeads(attention), given[1], _code("performer-pytorch"))


def by_fast_transformers_formula(given: Given) -> Contestant:
    """Linear attention as its authors write it (idiap/fast-transformers, attention/linear_attention.py), by token."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = nn.functional.elu(q) + 1, nn.functional.elu(k) + 1
        state = torch.einsum("nshd,nshm->nhmd", k, v)
        scale = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + 1e-6)
        return torch.einsum("nlhd,nhmd,nlh->nlhm", q, state, scale).contiguous()

    inputs = [one.transpose(1, 2).contiguous() for one in given[1]]
    code = f"fast-transformers' formula in torch {version('torch')}"
    return Contestant(OnHeads(attention), inputs, code, as_ours=lambda x: x.transpose(1, 2))


def by_linear_attention_transformer(given: Given) -> Contestant:
    """Its linear_attn, which divides the queries by √e once more: our values are multiplied by it here."""
    linear_attn = _package("linear_attention_transformer.linear_attention_transformer").linear_attn
    q, k, v = given[1]
    root = q.shape[-1] ** 0.5
    return Contestant(
        OnHeads(linear_attn), [q, k, root * v], _code("linear-attention-transformer"), scales=(1.0, 1.0, root)
    )


def by_nystrom_attention(given: Given) -> Contestant:
    """Its layer without projections.

    Its pseudo-inverse starts from the largest sum of all heads and images, ours from each head's own: one function
    where all heads are alike.
    """
    from nystrom_attention import NystromAttention

    layer, inputs = given
    module = NystromAttention(
        layer.dim,
        dim_head=layer.head_dim,
        heads=layer.num_heads,
        num_landmarks=layer.landmarks,
        pinv_iterations=layer.iterations,
        residual=False,
    )
    module.to_qkv, module.to_out = nn.Identity(), nn.Identity()
    return Contestant(module, inputs, _code("nystrom-attention"))


def by_linformer(given: Given) -> Contestant:
    """Its layer without projections to queries, keys and values, with our E and F."""
    from linformer import LinformerSelfAttention

    layer, inputs = given
    module = LinformerSelfAttention(layer.dim, layer.tokens.patches, k=layer.k, heads=layer.num_heads)
    module.to_q, module.to_k, module.to_v, module.to_out = Third(0), Third(1), Third(2), nn.Identity()
    with torch.no_grad():
        module.proj_k.copy_(layer.E.T)
        module.proj_v.copy_(layer.F.T)
    return Contestant(module, inputs, _code("linformer"))


def by_lambda_networks(given: Given) -> Contestant:
    """Its layer over the whole grid, on images of channels as it takes them."""
    from lambda_networks import LambdaLayer

    layer, (x,) = given
    side = layer.tokens.grid[0]
    module = LambdaLayer(layer.dim, dim_k=layer.k, n=side, heads=layer.num_heads, dim_u=layer.u)
    q, k, v = layer.qkv.weight.detach().split(layer.widths)
    with torch.no_grad():
        for conv, weight in ((module.to_q, q), (module.to_k, k), (module.to_v, v)):
            conv.weight.copy_(weight[:, :, None, None])

        module.rel_pos_emb.copy_(layer.E.permute(2, 3, 0, 1))
    images = x.mT.unflatten(2, (side, side)).contiguous()
    return Contestant(module, [images], _code("lambda-networks"), as_ours=lambda maps: maps.flatten(2).mT)


def by_fnets_formula(given: Given) -> Contestant:
    """The real part of torch's transform over tokens and channels, as FNet writes it."""

    class FNet(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fftn(x, dim=(1, 2)).real

    return Contestant(FNet(), given[1], f"FNet's formula in torch {version('torch')}")


def by_motionformers_loop(given: Given) -> Contestant:
    """Orthoformer with its landmarks chosen as Motionformer does: no package has it."""
    landmarks = given[0].landmarks

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape, scale = q.shape, q.shape[-1] ** -0.5
        q, k, v = (one.flatten(0, 1) for one in (q, k, v))
        marks = motionformers_landmarks(q, landmarks)
        to_marks = (scale * q @ marks.mT).softmax(-1)
        return (to_marks @ ((scale * marks @ k.mT).softmax(-1) @ v)).view(shape)

    return Contestant(OnHeads(attention), given[1], "a loop of the form of Motionformer's")


@torch.no_grad()
def motionformers_landmarks(q: Tensor, landmarks: int) -> Tensor:
    """Queries one after the other, each the least similar to those before, with a table of all similarities.

    The published loop begins at random; here it begins with the longest query, as ours does.
    """
    heads = torch.arange(len(q))
    unit = nn.functional.normalize(q, dim=-1)
    similar = q.new_empty(*q.shape[:2], landmarks)
    chosen = torch.zeros(q.shape[:2], dtype=torch.bool, device=q.device)
    last = q.norm(dim=-1).argmax(1)
    for done in range(landmarks):
        chosen[heads, last] = True
        if done + 1 < landmarks:
            similar[:, :, done] = torch.einsum("gne,ge->gn", unit, unit[heads, last]).abs()
            table = similar[:, :, : done + 1]
            # More than any cosine, so that none is chosen twice.
            table[chosen] = 10.0
            last = table.amax(-1).argmin(-1)
    return q[chosen].view(len(q), landmarks, q.shape[-1])


CASES = {
    "performer": Case(
        "performer(features=256)", {"performer-pytorch": by_performer_pytorch}, "heads", reach=Reach(1.5, 5)
    ),
    # Its package pads where the landmarks do not divide the tokens: another function there.
    "nystrom": Case(
        "nystrom(landmarks=64)",
        {"nystrom-attention": by_nystrom_attention},
        "packed",
        reach=Reach(2),
        alike_heads=True,
        at={28: "nystrom(landmarks=56)"},
    ),
    "orthoformer": Case(
        "orthoformer(landmarks=64)", {"Motionformer": by_motionformers_loop}, "heads", reach=Reach(2.2)
    ),
    "lambda": Case(
        'lambda(position="table",qkv_bias=False)',
        {"lambda-networks": by_lambda_networks},
        "layer",
        # Two images at 56: for a single one the package's gradient, by torch 2.13, is not that of its own output.
        sides={32: 4, 56: 2},
        dim=128,
        heads=4,
        reach=Reach(3, 10),
    ),
    # Output and three gradients are four of five tensors at the peak: what can be halved is what a layer keeps.
    "linear": Case(
        "linear",
        {"performer-pytorch": by_performers_product, "fast-transformers": by_fast_transformers_formula},
        "heads",
        reach=Reach(1, 2, of="kept"),
    ),
    "efficient": Case("efficient", {"linear-attention-transformer": by_linear_attention_transformer}, "heads"),
    "linformer": Case("linformer(k=64)", {"linformer": by_linformer}, "packed"),
    "fourier": Case('fourier(norm="backward")', {"FNet": by_fnets_formula}, "layer"),
}
"""Every race. The attention's name is the first word of its written form."""

# A mechanism that is being written has no race yet.
CASES = {name: case for name, case in CASES.items() if name in TABLE}


def contestant(case: str, rival: str, subject: LayerSubject) -> Contestant:
    """The code of one side on the inputs of the case, which are the same for all."""
    one = CASES[case]
    layer, inputs = subject.built(), inputs_of(one, subject)
    if rival != OURS:
        made = one.peers[rival]((layer, inputs))
        return replace(made, module=made.module.to(inputs[0]))
    modules = {"heads": Core, "packed": OnPacked, "layer": same}
    return Contestant(modules[one.layout](layer), inputs, f"saccade {version('saccade')}")


def inputs_of(case: Case, subject: LayerSubject) -> list[Tensor]:
    """Normal numbers in our layout."""
    what = "layer" if case.layout == "layer" else "core"
    inputs = normal(subject.shapes(what), subject.dtype(what), subject.terms)
    if case.alike_heads:
        inputs = [one[:1, :1].expand_as(one).contiguous() for one in inputs]
    if case.layout == "packed":
        return [torch.cat([one.transpose(1, 2).flatten(2) for one in inputs], dim=-1)]
    return inputs


def output_shape(case: str, rival: str, subject: LayerSubject) -> tuple[int, ...]:
    """Of what is computed, in the layout of that side."""
    batch, count = subject.terms.batch_size, subject.tokens.count
    if rival == "fast-transformers":
        return (batch, count, subject.num_heads, subject.dim // subject.num_heads)
    if CASES[case].layout == "heads":
        return subject.shapes("core")[0]
    if case == "lambda" and rival != OURS:
        return (batch, subject.dim, *subject.grid)
    return (batch, count, subject.dim)


def timed_core(case: str, rival: str, subject: dict[str, Any]) -> Timed:
    """One side in a process of its own; its facts say whose code it is and what function it computes."""
    one = subject_from(subject)
    made = contestant(case, rival, one)
    facts = {
        "code": made.code,
        "kernel_asked": None,
        "kernel_run": "eager",
        "function": fingerprint(made, one.num_heads if CASES[case].alike_heads else None),
    }
    if rival == OURS:
        facts |= kernel(one)
    acts = {
        "forward": Forward(made.module, made.inputs, one.terms),
        "forward_backward": ForwardBackward(made.module, made.inputs, one.terms, output_shape(case, rival, one)),
    }
    return Timed(acts, one.terms, facts)


def fingerprint(made: Contestant, alike_heads: int | None = None) -> dict[str, list[float]]:
    """Output and gradients by the inputs, each seen from a few random directions.

    Args:
        made: what is called.
        alike_heads: how many heads lie side by side in its output, where all are to be alike; None where not.
    """
    leaves = [one.detach().clone().requires_grad_() for one in made.inputs]
    y = made.as_ours(made.module.train()(*leaves))
    dy = torch.randn(y.shape, generator=seeded(0)("dy")).to(y)
    if alike_heads:
        dy = dy[:1, :, : y.shape[2] // alike_heads].repeat(len(y), 1, alike_heads)
    slopes = torch.autograd.grad(y, leaves, dy)
    seen = {"output": y.detach()}
    for place, (slope, scale) in enumerate(zip(slopes, made.scales, strict=False)):
        seen[f"gradient {place}"] = scale * made.as_ours(slope)
    return {name: _directions(name, values) for name, values in seen.items()}


class CoreMemory:
    """One side whose forward and backward pass is weighed, above its inputs and weights."""

    def __init__(self, case: str, rival: str, subject: dict[str, Any]) -> None:
        self.case, self.rival, self.subject = case, rival, subject_from(subject)
        self.scale = scale_for(torch.device(self.subject.terms.device))

    def measure(self) -> dict[str, Any]:
        """One image first, for what any pass leaves behind; then the batch that counts.

        Weights, inputs and the gradient of the output are there before. What is kept is what the process holds then,
        not what autograd says it has saved: an own backward may hold more, and one that recomputes less.
        """
        self._weigh(1)
        return {**self._weigh(self.subject.terms.batch_size), "method": self.scale.method}

    def _weigh(self, batch_size: int) -> dict[str, int | None]:
        one = replace(self.subject, terms=replace(self.subject.terms, batch_size=batch_size))
        made = contestant(self.case, self.rival, one)
        forward = Forward(made.module, made.inputs, one.terms)
        both = ForwardBackward(made.module, made.inputs, one.terms, output_shape(self.case, self.rival, one))
        before = self._rest()
        forward()
        forward_peak = self.scale.peak() - before
        before = self._rest()
        y = made.module.train()(*made.inputs)
        risen = self.scale.peak()
        # The highest ever tells nothing of now.
        kept = None if isinstance(self.scale, Highest) else self.scale.start() - before
        torch.autograd.grad(y, both.leaves, both.dy, allow_unused=True)
        peak = max(risen, self.scale.peak()) - before
        return {"forward_peak_bytes": forward_peak, "kept_bytes": kept, "peak_bytes": peak}

    def _rest(self) -> int:
        """Bytes of the process with all given back that nobody holds; from there on the highest counts."""
        gc.collect()
        trim()
        return self.scale.start()


def _directions(name: str, values: Tensor) -> list[float]:
    generator = seeded(0)(f"directions of {name}")
    drawn = (torch.randn(values.shape, generator=generator) for _ in range(DIRECTIONS))
    return [float((values * one.to(values)).sum()) for one in drawn]


def _package(name: str) -> ModuleType:
    """A package that warns of old ways when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _code(package: str) -> str:
    return f"{package} {version(package)}"
