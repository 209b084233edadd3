"""The contract that every attention mechanism keeps: its clauses, `check`, and `gate`, which goes before any timing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from saccade.attention import build, function_clauses, module_clauses, parse
from saccade.attention.initial import seeded
from saccade.attention.made import (
    HALF_TOLERANCES,
    Broken,
    Made,
    enlivened,
    norm_distance,
    on_rounded,
    outcome,
    rounded,
)
from saccade.attention.tokens import Tokens
from saccade.attention.written import Written

CLAUSES: dict[str, Callable[[Made], str | None]] = {
    clause.__name__: clause
    for clause in (
        function_clauses.shape_and_dtype,
        function_clauses.equals_reference,
        function_clauses.all_ids_mean_none,
        function_clauses.ids_belong_to_tokens,
        function_clauses.order_free_is_true,
        function_clauses.facts_are_true,
        function_clauses.reach_is_true,
        function_clauses.images_do_not_mix,
        function_clauses.flops_are_counted,
        function_clauses.outputs_are_rows,
        function_clauses.softmax_at_its_limit,
        function_clauses.finite_and_deterministic,
        function_clauses.bf16_is_near,
        module_clauses.saves_and_loads,
        module_clauses.reset_is_complete,
        module_clauses.start_is_seeded,
        module_clauses.regrids,
        module_clauses.recomputes,
        module_clauses.compiles,
    )
}
"""Every clause by name; the first line of its docstring says what it demands."""


def demand(clause: str) -> str:
    """What the clause of that name demands, in one sentence."""
    return (CLAUSES[clause].__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True)
class Verdict:
    """What one clause found.

    Attributes:
        clause: its name.
        ok: whether the layer keeps it.
        sentence: what the clause demands where it is kept, why it asks nothing of this layer where it was not checked,
            else what was expected and what was seen.
        checked: False where the clause asks nothing of this layer.
    """

    clause: str
    ok: bool
    sentence: str
    checked: bool = True


def check(attention: str | Written, clauses: Iterable[str] = tuple(CLAUSES)) -> list[Verdict]:
    """Runs the clauses on one attention; a clause that raises anything is broken.

    Args:
        attention: a name of the table or anybody's `my.module:Mine`, with options.
        clauses: names of `CLAUSES`.

    Raises:
        ValueError: no such attention, option or clause, or one that is refused at every size the clauses know.
    """
    made = Made(parse(attention) if isinstance(attention, str) else attention)
    if unknown := set(clauses) - set(CLAUSES):
        raise ValueError(f"there is no clause {', '.join(sorted(unknown))}: the clauses are {', '.join(CLAUSES)}")
    made.tokens  # noqa: B018
    return [_verdict(name, made) for name in clauses]


def gate(
    attention: str | Written,
    dim: int,
    num_heads: int,
    tokens: Tokens,
    patches: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    layer: int = 0,
) -> None:
    """Checks outputs and gradients of one layer against its reference, at this very size, dtype and device.

    It costs one forward and backward pass of the reference, which for some mechanisms is of N² H numbers.

    Raises:
        Broken: they differ; nothing measured on this layer would mean anything.
        ValueError: the layer is refused.
    """
    patches = tokens.patches if patches is None else patches
    made = enlivened(build(attention, dim, num_heads, tokens, layer=layer, patches=patches), patches)
    # What is measured sees the rounded values; so does what it is held against.
    made = made.to(device, dtype)
    exact = copy.deepcopy(made).float()
    x = torch.randn(1, tokens.prefix + patches, dim, generator=seeded(0)("images")).to(device, dtype)
    order = torch.randperm(tokens.patches, generator=seeded(0)("ids"))[:patches].sort().values
    ids = None if patches == tokens.patches else order[None].to(device)
    forward, reference = (made, exact.reference) if dtype.itemsize >= 4 else (on_rounded(made)[0], on_rounded(exact)[1])
    fast = (x if dtype.itemsize >= 4 else rounded(made, x)).requires_grad_()
    slow = fast.detach().float().requires_grad_()
    seen = outcome(made, forward(fast, ids), fast)
    expected = outcome(exact, reference(slow, ids), slow)
    # A gradient far below the others is the rounding of one that is zero.
    least = 0.01 * max(float(values.detach().norm()) for values in expected.values())
    tolerance = HALF_TOLERANCES["gradient"] if dtype.itemsize < 4 else 1e-3
    for name, values in expected.items():
        error = norm_distance(seen[name], values, least)
        if not error <= tolerance:
            raise Broken(
                f"{attention} on {tokens}, {patches} patches, width {dim}, {num_heads} heads, {dtype}, {device}: "
                f"{name} is {error:.2g} from the reference's, allowed {tolerance:g}"
            )


def _verdict(name: str, made: Made) -> Verdict:
    try:
        unasked = CLAUSES[name](made)
    except Broken as broken:
        return Verdict(name, False, str(broken))
    except Exception as error:
        # Somebody's class may raise anything, and the other clauses still have something to say.
        first_line = (str(error) or "no message").splitlines()[0]
        return Verdict(name, False, f"raised {type(error).__name__}: {first_line}")
    if unasked is not None:
        return Verdict(name, True, f"not checked: {unasked}", checked=False)
    return Verdict(name, True, demand(name))
