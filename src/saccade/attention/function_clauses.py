"""The clauses of the contract on what a layer computes: each is a function that a layer passes, or raises `Broken`.

One that asks nothing of a layer says why in what it returns.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from saccade.attention import attention_class
from saccade.attention.base import Attention, Shared
from saccade.attention.flops import counted_flops
from saccade.attention.initial import seeded
from saccade.attention.made import (
    COUNTS,
    HALF_TOLERANCES,
    Broken,
    Made,
    distance,
    enlivened,
    norm_distance,
    on_rounded,
    outcome,
    require_near,
    rounded,
)
from saccade.attention.softmax import Softmax
from saccade.attention.tokens import Tokens

# What is no rounding error in float64, relative to the largest value.
_DIFFERENT = 1e-6


def shape_and_dtype(made: Made) -> None:
    """The output has the shape and the dtype of the input."""
    for tokens, ids in made.cases():
        patches = None if ids is None else ids.shape[1]
        x = made.images(tokens, patches)
        y = made.layer(tokens, patches)(x, ids)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise Broken(f"{_at(tokens, ids)}: expected {tuple(x.shape)} {x.dtype}, saw {tuple(y.shape)} {y.dtype}")


def equals_reference(made: Made) -> None:
    """`forward` equals `reference`, outputs and gradients, whole or in part, with prefix or without."""
    for tokens, ids in made.cases():
        patches = None if ids is None else ids.shape[1]
        layer = made.layer(tokens, patches)
        x = made.images(tokens, patches).requires_grad_()
        expected = outcome(layer, layer.reference(x, ids), x)
        for name, values in outcome(layer, layer(x, ids), x).items():
            require_near(values, expected[name], f"{_at(tokens, ids)}: {name} of forward against reference's")


def all_ids_mean_none(made: Made) -> None:
    """All ids given are the same as none given."""
    layer, x = made.layer(), made.images()
    every = torch.arange(made.tokens.patches).expand(len(x), -1)
    require_near(layer(x, every), layer(x), "all ids against patches=None")


def ids_belong_to_tokens(made: Made) -> None:
    """Each image has ids of its own; where order is free, tokens and ids permuted together permute the output."""
    layer, x, ids = made.layer(patches=made.visible), made.images(patches=made.visible), made.ids()
    together = layer(x, ids)
    for i in range(len(x)):
        alone = layer(x[i : i + 1], ids[i : i + 1])
        require_near(together[i : i + 1], alone, f"image {i} with its ids in a batch, against alone")
    if layer.order_free:
        order = _shuffled(made.visible)
        moved = layer(_permuted(x, order, made.tokens), ids[:, order])
        expected = _permuted(together, order, made.tokens)
        require_near(moved, expected, "order_free says True: visible patches and ids permuted together")


def order_free_is_true(made: Made) -> None:
    """`order_free` says whether permuting the patches of the whole grid permutes the output, either way."""
    layer, x = made.layer(), made.images()
    order = _shuffled(made.tokens.patches)
    error = distance(layer(_permuted(x, order, made.tokens), None), _permuted(layer(x), order, made.tokens))
    if layer.order_free and not error <= 1e-9:
        raise Broken(f"order_free says True, but with permuted patches the output differs by {error:.2g}")
    if not layer.order_free and error <= _DIFFERENT:
        raise Broken("order_free says False, but permuting the patches permutes the output: say True")


def facts_are_true(made: Made) -> None:
    """The facts in the class body are there, and true at the default options."""
    cls = attention_class(made.written.name)
    for fact, kind in _FACTS.items():
        if not isinstance(getattr(cls, fact, None), kind):
            raise Broken(
                f"the class body must say {fact} = ..., a {kind.__name__}; saw {getattr(cls, fact, 'nothing')!r}"
            )
    everywhere = all(cls(made.dim, made.num_heads, tokens).refusal(patches) is None for tokens, patches in COUNTS)
    tall, wide = (Tokens(grid, prefix=1) for grid in ((8, 15), (15, 8)))
    layer = enlivened(cls(made.dim, made.num_heads, tall), tall.patches)
    turned = enlivened(cls(made.dim, made.num_heads, wide), wide.patches)
    x = made.images(tall, batch=1)
    seen = {
        "any_length": everywhere,
        "free_of_order": layer.order_free,
        "needs_grid": _shapes(layer) != _shapes(turned) or distance(layer(x), turned(x)) > _DIFFERENT,
    }
    for fact, value in seen.items():
        if getattr(cls, fact) is not value:
            raise Broken(f"the class says {fact} = {not value}, but at its default options it is {value}")
    if cls.exact_when == "never" and cls.softmax_limit(tall) is not None:
        raise Broken('exact_when says "never", but softmax_limit names options')


def reach_is_true(made: Made) -> None:
    """`reach` says which token influences which, part by part, and the parts sum to the output."""
    for patches in (made.tokens.patches, made.visible):
        ids = None if patches == made.tokens.patches else made.ids(batch=1)
        # A feature that is zero on one image, as relu's are, is not on all of them.
        layer, x = made.layer(patches=patches), made.images(patches=patches, batch=4)
        ids = None if ids is None else ids.expand(len(x), -1)
        where = _at(made.tokens, ids)
        parts = layer.parts(x, ids)
        require_near(sum(parts.values(), torch.zeros(())), layer(x, ids), f"{where}: the sum of the parts")
        for part in {"all", *parts}:
            _require_reach(layer, x, ids, part, where)


def _require_reach(layer: Attention, x: Tensor, ids: Tensor | None, part: str, where: str) -> None:
    claimed = layer.reach(None if ids is None else ids[0], part)
    x = x.clone().requires_grad_()
    y = layer(x, ids) if part == "all" else layer.parts(x, ids)[part]
    probe = torch.linspace(1, 2, x.shape[2], dtype=x.dtype)
    rows = [torch.autograd.grad((row * probe).sum(), x, retain_graph=True)[0].abs().amax((0, 2)) for row in y.unbind(1)]
    influence = torch.stack(rows)
    reached = influence > 1e-12 * influence.max()
    if claimed.shape != reached.shape:
        raise Broken(f"{where}: reach of part {part!r} must be {tuple(reached.shape)}, saw {tuple(claimed.shape)}")
    if (wrong := (claimed != reached).nonzero()).numel():
        i, j = wrong[0].tolist()
        does = "reaches" if reached[i, j] else "does not reach"
        raise Broken(
            f"{where}: reach of part {part!r} is wrong for {len(wrong)} of {reached.numel()} pairs; "
            f"token {j} {does} output {i}"
        )


def images_do_not_mix(made: Made) -> None:
    """In eval mode an image's output does not depend on the other images of its batch."""
    layer, x = made.layer(), made.images(batch=3)
    # Mates of another size show what is divided by the largest of the batch.
    x = x * torch.tensor([1.0, 10.0, 0.1], dtype=x.dtype)[:, None, None]
    together = layer(x)
    for i in range(len(x)):
        require_near(together[i : i + 1], layer(x[i : i + 1]), f"image {i} in a batch, against alone")


def flops_are_counted(made: Made) -> None:
    """`flops` is what torch counts: exactly on the whole grid, at least on a part, wanted rows included."""
    for tokens, ids in made.cases():
        patches = tokens.patches if ids is None else ids.shape[1]
        layer, x = made.layer(tokens, patches), made.images(tokens, patches, batch=1)
        own = None if ids is None else ids[:1]
        for rows in (None, 1):
            outputs = None if rows is None else slice(0, rows)
            counted, declared = counted_flops(partial(layer, x, own, outputs)), layer.flops(patches, rows)
            asked = f"{_at(tokens, ids)}, {'all rows' if rows is None else 'one row'}"
            if ids is None and declared != counted:
                raise Broken(f"{asked}: flops says {declared:,}, torch counts {counted:,}")
            if not counted <= declared <= layer.flops(tokens.patches, rows):
                raise Broken(
                    f"{asked}: flops says {declared:,}, expected at least the {counted:,} that torch counts and at "
                    f"most the {layer.flops(tokens.patches, rows):,} of the whole grid"
                )


def outputs_are_rows(made: Made) -> None:
    """`outputs` gives those rows of the whole output."""
    for ids in (None, made.ids()):
        patches = made.tokens.patches if ids is None else made.visible
        layer, x = made.layer(patches=patches), made.images(patches=patches)
        whole = layer(x, ids)
        for rows in (slice(0, 1), slice(1, None), slice(3, 7)):
            require_near(layer(x, ids, rows), whole[:, rows], f"{_at(made.tokens, ids)}: outputs={rows}")


def softmax_at_its_limit(made: Made) -> str | None:
    """At the options that `softmax_limit` names it equals softmax, outputs and gradients."""
    cls = attention_class(made.written.name)
    limit = cls.softmax_limit(made.tokens)
    if limit is None:
        if cls.exact_when == "always":
            raise Broken('exact_when is "always", but softmax_limit is None: return {} there, so that it can be seen')
        return "softmax_limit names no options at which it would be softmax"
    shared: dict[str, Any] = {key: value for key, value in made.written.options if key in Shared.__annotations__}
    layer = made.layer(made.tokens, None, **limit)
    softmax = Softmax(made.dim, made.num_heads, made.tokens, **shared).double()
    own = layer.state_dict()
    if missing := set(softmax.state_dict()) - set(own):
        raise Broken(f"softmax_limit names options, but the layer has no {', '.join(sorted(missing))} to compare with")
    softmax.load_state_dict({name: own[name] for name in softmax.state_dict()})
    x = made.images().requires_grad_()
    seen, expected = layer(x), softmax(x)
    require_near(seen, expected, f"with {limit}: against softmax", 1e-5)
    slope, expected_slope = (torch.autograd.grad(y.square().sum(), x)[0] for y in (seen, expected))
    require_near(slope, expected_slope, f"with {limit}: gradient against softmax's", 1e-5)
    return None


def finite_and_deterministic(made: Made) -> None:
    """On 1, 2, 13, 50 and 197 tokens, one image: finite, and twice the same; or refused in a sentence."""
    for tokens, patches in COUNTS:
        reason = made.refusal(tokens, patches)
        if reason is not None:
            if not isinstance(reason, str) or len(reason.split()) < 4:
                raise Broken(f"{tokens}: a refusal must be a sentence that says why, saw {reason!r}")
            continue
        ids = None if patches == tokens.patches else made.ids(tokens, patches, batch=1)
        layer = made.layer(tokens, patches).float()
        normal = made.images(tokens, patches, batch=1).float()
        for kind, x in {"normal": normal, "zero": 0 * normal, "large": 30 * normal}.items():
            _require_finite(layer, x.requires_grad_(), ids, f"{_at(tokens, ids)}, float32, {kind} inputs")


def _require_finite(layer: Attention, x: Tensor, ids: Tensor | None, where: str) -> None:
    y = layer(x, ids)
    for name, values in outcome(layer, y, x).items():
        if not values.isfinite().all():
            raise Broken(f"{where}: {name} is not finite")
    if not torch.equal(y, layer(x, ids)):
        raise Broken(f"{where}: a second call in eval mode gives another output")


def bf16_is_near(made: Made) -> None:
    """In bf16, and under autocast, outputs and gradients are near those of float32 on the same values."""
    for tokens, ids in made.cases():
        patches = tokens.patches if ids is None else ids.shape[1]
        layer = made.layer(tokens, patches).bfloat16()
        half_x = rounded(layer, made.images(tokens, patches).bfloat16()).requires_grad_()
        # The same rounded values, computed with more digits.
        x = half_x.detach().float().requires_grad_()
        (half, _), (exact, _) = on_rounded(layer), on_rounded(copy.deepcopy(layer).float())
        expected = _with_gradient(exact(x, ids), x)
        with torch.autocast("cpu", torch.bfloat16):
            cast = exact(x, ids)
        # A gradient far below the output is the rounding of one that is zero.
        least = 0.01 * float(expected["output"].detach().norm())
        for kind, seen in (
            ("bf16", _with_gradient(half(half_x, ids), half_x)),
            ("autocast", _with_gradient(cast, x)),
        ):
            for name, tolerance in HALF_TOLERANCES.items():
                if not (error := norm_distance(seen[name], expected[name], least)) <= tolerance:
                    where = f"{_at(tokens, ids)}, {kind}: {name}"
                    raise Broken(f"{where}: expected within {tolerance:.0%} of float32's, saw {error:.1%}")


def _with_gradient(y: Tensor, x: Tensor) -> dict[str, Tensor]:
    return {"output": y, "gradient": torch.autograd.grad(y.sum(), x)[0]}


_FACTS: dict[str, type] = {
    "paper": str,
    "cost": str,
    "exact_when": str,
    "any_length": bool,
    "free_of_order": bool,
    "needs_grid": bool,
}


def _at(tokens: Tokens, ids: Tensor | None) -> str:
    seen = "all" if ids is None else f"{ids.shape[1]} of {tokens.patches}"
    return f"grid {tokens.grid[0]} x {tokens.grid[1]}, prefix {tokens.prefix}, {seen} patches"


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=seeded(0)("order"))


def _permuted(x: Tensor, order: Tensor, tokens: Tokens) -> Tensor:
    prefix, patches = x.tensor_split([tokens.prefix], dim=1)
    return torch.cat([prefix, patches[:, order]], dim=1)


def _shapes(layer: Attention) -> dict[str, torch.Size]:
    return {name: values.shape for name, values in layer.state_dict().items()}
