"""Block layouts: which block of patches (row) sees which (column), in the four families that DeepSpeed brought."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from saccade.attention.written import Written, parse

_DEFAULTS: dict[str, dict[str, object]] = {
    "bigbird": {"random": 1, "slide": 3, "global": 1},
    "bslongformer": {"slide": 3, "global": (0,)},
    "fixed": {"local": 4, "global": 1, "horizontal": False},
    "variable": {"windows": (4,), "global": (0,), "random": 0, "horizontal": False},
}


@dataclass(frozen=True)
class Layout:
    """A layout for any number of blocks; every block sees itself.

    Attributes:
        written: the family with all of its options.
        steps: blocks beside a block's own that it sees on either side; -1 where windows do not slide.
        windows: lengths of consecutive windows within which all blocks see each other; the last one repeats.
        columns: blocks that every block sees; negative ones count from the end.
        last: how many blocks at the end of each window every block sees.
        rows: whether the blocks that all see, see all.
        random: how many blocks drawn for it a block sees besides; one may be seen already.
    """

    written: Written
    steps: int = -1
    windows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    last: int = 0
    rows: bool = True
    random: int = 0

    @property
    def variants(self) -> int:
        """How many layouts the heads can take in turn: which blocks of a window are seen by all."""
        return self.windows[-1] // self.last if self.last else 1

    def certain(self, count: int, variant: int = 0) -> Bool[Tensor, "n n"]:
        """The part that is not drawn, for so many blocks."""
        row, column = torch.arange(count, device="cpu")[:, None], torch.arange(count, device="cpu")[None, :]
        seen = (row - column).abs() <= self.steps
        if self.windows:
            window = _windows(count, self.windows)
            seen = window[:, None] == window[None, :]
        for by_all in self._seen_by_all(count, variant):
            seen = seen | (column == by_all)
            if self.rows:
                seen = seen | (row == by_all)
        return seen

    def _seen_by_all(self, count: int, variant: int) -> set[int]:
        """The blocks that every block sees."""
        named = {block % count for block in self.columns if -count <= block < count}
        if not self.last:
            return named
        [length] = self.windows
        # A window cut short gives its blocks at the same place, or else its last ones.
        starts = (
            min(start + length - (1 + variant % self.variants) * self.last, count - self.last)
            for start in range(0, count, length)
        )
        return {max(start, 0) + offset for start in starts for offset in range(min(self.last, count))}

    def drawn(self, count: int, heads: int, generator: torch.Generator | None) -> Bool[Tensor, "h n n"]:
        """The layout of each head; `generator` is needed where blocks are random."""
        layout = torch.stack([self.certain(count, head) for head in range(heads)])
        if not self.random:
            return layout
        numbers = torch.rand(heads, count, count, generator=generator, device="cpu")
        return layout.scatter(2, numbers.argsort(dim=2)[:, :, : self.random], True)

    def full_rows(self, count: int, heads: int) -> list[int]:
        """The blocks that see all, in every head and at every draw."""
        full = torch.stack([self.certain(count, head).all(1) for head in range(heads)]).all(0)
        return full.nonzero().flatten().tolist()

    def longest(self, count: int, heads: int) -> int:
        """How many blocks one sees that does not see all, at most."""
        sizes = torch.stack([self.certain(count, head).sum(1) for head in range(heads)]).amax(0)
        sizes[self.full_rows(count, heads)] = 0
        return min(int(sizes.max()) + self.random, count)

    def density(self, count: int) -> float:
        """The share of all pairs of blocks that see each other, on average over the draws."""
        sizes = self.certain(count).sum(1).double()
        random = min(self.random, count)
        return float((sizes + random * (count - sizes) / count).mean() / count)


def parse_layout(text: str) -> Layout:
    """Reads "bigbird(random=1,slide=3,global=1)" and its like; options left out take the family's defaults.

    Raises:
        ValueError: no such family, no such option of it, or a value that makes no sense.
    """
    given = parse(text)
    if given.name not in _DEFAULTS:
        raise ValueError(f"layout={text!r}: there is no layout {given.name!r}: known are {', '.join(_DEFAULTS)}")
    defaults = _DEFAULTS[given.name]
    for key, _ in given.options:
        if key not in defaults:
            raise ValueError(
                f"layout={text!r}: {given.name} has no option {key!r}: its options are {', '.join(defaults)}"
            )
    options = {**defaults, **dict(given.options)}
    for key, value in options.items():
        if isinstance(defaults[key], tuple) and not isinstance(value, tuple):
            options[key] = (value,)
    for key, value in options.items():
        _require(text, key, value, defaults[key])
    written = Written(given.name, tuple(sorted(options.items())))
    return _FAMILIES[given.name](written, text, options)


def _require(text: str, key: str, value: object, default: object) -> None:
    """Checks the kind of an option by that of its default."""
    if isinstance(default, bool):
        allowed, right = "True or False", isinstance(value, bool)
    elif isinstance(default, int):
        least = 0 if key == "random" else 1
        allowed, right = f"a whole number of at least {least}", type(value) is int and value >= least
    else:
        items = value if isinstance(value, tuple) else ()
        whole = all(type(item) is int for item in items)
        if key == "windows":
            allowed, right = "lengths of at least 1", whole and bool(items) and all(item >= 1 for item in items)
        else:
            allowed, right = "numbers of blocks", whole
    if not right:
        raise ValueError(f"layout={text!r}: {key} must be {allowed}")


def _sliding(written: Written, text: str, options: dict) -> Layout:
    slide, by_all = options["slide"], options["global"]
    if slide % 2 == 0:
        raise ValueError(f"layout={text!r}: slide must be odd: a block and as many on either side")
    columns = tuple(range(by_all)) if isinstance(by_all, int) else by_all
    return Layout(written, steps=slide // 2, columns=columns, random=options.get("random", 0))


def _fixed(written: Written, text: str, options: dict) -> Layout:
    local, last = options["local"], options["global"]
    if local % last:
        raise ValueError(f"layout={text!r}: global must divide local, the length of a window")
    return Layout(written, windows=(local,), last=last, rows=options["horizontal"])


def _variable(written: Written, text: str, options: dict) -> Layout:
    return Layout(
        written,
        windows=options["windows"],
        columns=options["global"],
        rows=options["horizontal"],
        random=options["random"],
    )


_FAMILIES = {"bigbird": _sliding, "bslongformer": _sliding, "fixed": _fixed, "variable": _variable}


def layout_of(mask: Bool[Tensor, "*s m n"], block: int) -> Bool[Tensor, "*s r c"]:
    """The blocks in which a mask allows anything; a last block may be shorter."""
    pad = [-size % block for size in mask.shape[-2:]]
    whole = torch.nn.functional.pad(mask, (0, pad[1], 0, pad[0]))
    return whole.unflatten(-1, (-1, block)).any(-1).unflatten(-2, (-1, block)).any(-2)


def _windows(count: int, lengths: tuple[int, ...]) -> Tensor:
    """The window of each block."""
    numbers: list[int] = []
    window = 0
    while len(numbers) < count:
        numbers += [window] * lengths[min(window, len(lengths) - 1)]
        window += 1
    return torch.tensor(numbers[:count], device="cpu")
