"""Pattern attention: a union of rules about two patches' places, some of them drawn by chance."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Bool
from torch import Tensor

from saccade.attention import predicates
from saccade.attention.base import Shared
from saccade.attention.initial import GeneratorOf, unseeded
from saccade.attention.listed import Kernel, Listed, most
from saccade.attention.parts import coordinates
from saccade.attention.tokens import Tokens


class Pattern(Listed):
    """A union of rules says which patch sees which: softmax(QKᵀ/√e) V over the pairs that any of the rules allows.

    A patch always sees itself and the prefix, and the prefix sees all and is seen by all. What is drawn is drawn once,
    for all heads and images, and saved with the weights; a visible subset keeps the pairs of its ids. The default is
    the pattern of xFormers' sparse Vision Transformer, of which a fifth of all pairs is left at 14 x 14.

    Dense patterns save nothing: by default only lists shorter than a 40th of the tokens are gathered, and otherwise
    every score is computed and most are dropped. The declared FLOPs are of what runs. The lists have a fixed length,
    which a draw exceeds less than once in a million rows; that row loses its last patches. Another grid gets another
    draw.

    Args:
        of: rules with | between them. "axial": in one row or column; "local(distance)": nearer than that, as the crow
            flies; "square(radius)": at most so many rows and columns away; "window(side, shift)": in one window, shift
            may be left out; "dilated(step)": a whole number of steps away; "random(share)": each pair with this
            probability; "gaussian(sigma, share)": this share of all pairs, drawn without replacement with weights
            exp(-distance² / 2 sigma²).
        kernel: how the one function is computed. "gather" copies each patch's keys and values together, "dense"
            computes every score and drops those that are not allowed (all of softmax's FLOPs), "auto" takes what is
            faster: "gather" where the list is shorter than a 40th of the tokens.
    """

    paper = "Lefaudeux et al. 2022, https://github.com/facebookresearch/xformers"
    cost = "N² D"
    any_length = True
    free_of_order = False
    needs_grid = True
    exact_when = "a rule allows every pair"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: Tokens,
        *,
        layer: int = 0,
        of: str = "axial|local(2)|random(0.01)|gaussian(5,0.03)",
        kernel: Kernel = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        self.of = of
        self.rules = parse_rules(of)
        super().__init__("pattern", dim, num_heads, tokens, layer=layer, kernel=kernel, **shared)
        self.reset_parameters(unseeded)

    def pairs(self, generator_of: GeneratorOf) -> Bool[Tensor, "l l"]:
        """What is certain, and one draw after the other."""
        seen = self._certain()
        drawn = [rule for rule in self.rules if rule.name in _DRAWS]
        generator = generator_of("keys") if drawn else None
        for rule in drawn:
            seen = seen | _DRAWS[rule.name][0](self.tokens, generator, *rule.values)
        return seen

    def longest(self) -> int:
        """The fullest row of what is certain, and nearly never more than so many draws."""
        mean = sum(_DRAWS[rule.name][1](self.tokens, *rule.values) for rule in self.rules if rule.name in _DRAWS)
        return min(int(self._certain().sum(1).max()) + most(float(mean)), self.tokens.patches)

    def _certain(self) -> Bool[Tensor, "l l"]:
        """The pairs allowed at every draw."""
        y, x = coordinates(self.tokens, torch.arange(self.tokens.patches, device="cpu"))
        seen = torch.eye(self.tokens.patches, dtype=torch.bool, device="cpu")
        for rule in self.rules:
            if rule.name in _PLACES:
                seen = seen | _PLACES[rule.name](y, x, *rule.values)
        return seen

    def refusal(self, patches: int) -> str | None:
        """Every pair allowed is softmax."""
        if self.tokens.patches == 1 or not self._certain().all():
            return None
        return (
            f'pattern(of="{self.of}") on a grid of {self.tokens.grid[0]} x {self.tokens.grid[1]} allows every pair: '
            "softmax under another name; take rules that leave pairs out"
        )

    @classmethod
    def options_for(cls, tokens: Tokens, patches: int) -> dict[str, object]:
        """On narrow grids, the four neighbours."""
        return {"of": "local(1.2)"}

    @classmethod
    def softmax_limit(cls, tokens: Tokens) -> dict[str, object]:
        """A square that holds the grid."""
        return {"of": f"square({max(tokens.grid)})"}


@dataclass(frozen=True)
class Rule:
    """One rule of a pattern: its name, and its numbers in the order in which they are written."""

    name: str
    values: tuple[int | float, ...] = ()


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Reads "axial|local(2)|random(0.01)"; numbers are Python literals, and nothing is evaluated.

    Raises:
        ValueError: no such rule, or numbers that it does not take.
    """
    return tuple(_parse_rule(piece.strip(), text) for piece in text.split("|"))


def _parse_rule(piece: str, text: str) -> Rule:
    match = re.fullmatch(r"([^\s()]+)\s*(?:\((.*)\))?", piece)
    if match is None:
        raise ValueError(
            f'pattern(of="{text}"): {piece!r} is no rule: write rules with | between them, as in "axial|local(2)"'
        )
    name, inside = match[1], (match[2] or "").strip()
    if name not in _NUMBERS:
        near = difflib.get_close_matches(name, _NUMBERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f'pattern(of="{text}"): there is no rule {name!r}: {hint}known are {", ".join(_NUMBERS)}')
    known, optional = _NUMBERS[name], _OPTIONAL.get(name, 0)
    try:
        values = ast.literal_eval(f"({inside},)") if inside else ()
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = (None,)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise ValueError(f'pattern(of="{text}"): {piece!r}: {name} takes plain numbers: {_form(name)}')
    if not len(known) - optional <= len(values) <= len(known):
        raise ValueError(f'pattern(of="{text}"): {piece!r} has {len(values)} numbers: write {_form(name)}')
    for key, value in zip(known, values, strict=False):
        allowed, right = _ALLOWED[key]
        if not right(value):
            raise ValueError(f'pattern(of="{text}"): {piece!r}: {key} must be {allowed}')
    return Rule(
        name, tuple(value if key in _COUNTS else float(value) for key, value in zip(known, values, strict=False))
    )


def _form(name: str) -> str:
    return f"{name}({', '.join(_NUMBERS[name])})" if _NUMBERS[name] else name


_NUMBERS: dict[str, tuple[str, ...]] = {
    "axial": (),
    "local": ("distance",),
    "square": ("radius",),
    "window": ("side", "shift"),
    "dilated": ("step",),
    "random": ("share",),
    "gaussian": ("sigma", "share"),
}
_OPTIONAL = {"window": 1}
_COUNTS = ("radius", "side", "shift", "step")


def _whole(least: int) -> tuple[str, Callable[[float], bool]]:
    return f"a whole number of at least {least}", lambda value: type(value) is int and value >= least


_ALLOWED: dict[str, tuple[str, Callable[[float], bool]]] = {
    "distance": ("above 1: nearer is the patch itself alone", lambda value: value > 1),
    "radius": _whole(1),
    "side": _whole(1),
    "shift": _whole(0),
    "step": _whole(2),
    "share": ("above 0 and below 1", lambda value: 0 < value < 1),
    "sigma": ("above 0", lambda value: value > 0),
}

_PLACES: dict[str, Callable[..., Tensor]] = {
    "axial": predicates.same_row_or_column,
    "local": predicates.nearer_than,
    "square": predicates.within_square,
    "window": predicates.same_window,
    "dilated": predicates.same_phase,
}


def _random(tokens: Tokens, generator: torch.Generator, share: float) -> Bool[Tensor, "l l"]:
    """Each pair with one probability."""
    count = tokens.patches
    return torch.rand(count, count, generator=generator, device="cpu") < share


def _random_mean(tokens: Tokens, share: float) -> float:
    """Pairs of a row."""
    return share * tokens.patches


def _gaussian(tokens: Tokens, generator: torch.Generator, sigma: float, share: float) -> Bool[Tensor, "l l"]:
    """A share of all pairs, drawn without replacement: those for which log weight and a Gumbel number sum to most.

    Kool et al. 2019, https://arxiv.org/abs/1903.06059. torch.multinomial takes at most 2^24 pairs.
    """
    y, x = coordinates(tokens, torch.arange(tokens.patches, device="cpu"))
    squared = (y[:, None] - y[None, :]).square() + (x[:, None] - x[None, :]).square()
    uniform = torch.rand(squared.shape, generator=generator, device="cpu", dtype=torch.float64)
    numbers = -squared / (2 * sigma**2) - (-uniform.log()).log()
    chosen = numbers.flatten().topk(int(tokens.patches**2 * share)).indices
    return torch.zeros(squared.numel(), dtype=torch.bool, device="cpu").scatter(0, chosen, True).view_as(squared)


def _gaussian_mean(tokens: Tokens, sigma: float, share: float) -> float:
    """Pairs of the fullest row on average, that of the patch in the middle.

    Drawing by weight w until enough are drawn is waiting for exponential clocks of rate w until a time t: a pair is in
    with probability 1 - exp(-t w), and t is such that these sum to what is drawn.
    """
    wanted = int(tokens.patches**2 * share)
    if not wanted:
        return 0.0
    rows, columns = tokens.grid
    across, along = torch.arange(rows, device="cpu"), torch.arange(columns, device="cpu")
    # How many pairs of patches lie so many rows, and so many columns, apart.
    pairs_across, pairs_along = (2 * (length - steps) for length, steps in ((rows, across), (columns, along)))
    pairs_across[0], pairs_along[0] = rows, columns
    pairs = (pairs_across[:, None] * pairs_along[None, :]).double()
    logs = -(across[:, None].square() + along[None, :].square()).double() / (2 * sigma**2)
    low, high = -60.0, 60.0 - float(logs.min())
    for _ in range(100):
        middle = (low + high) / 2
        drawn = float((pairs * -torch.expm1(-(logs + middle).exp())).sum())
        low, high = (middle, high) if drawn < wanted else (low, middle)
    from_middle = logs[(across - rows // 2).abs()][:, (along - columns // 2).abs()]
    return float(-torch.expm1(-(from_middle + high).exp()).sum())


_DRAWS: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "random": (_random, _random_mean),
    "gaussian": (_gaussian, _gaussian_mean),
}
