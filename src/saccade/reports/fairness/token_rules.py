"""The doctor's rules on what reaches a mechanism: tokens in which order, and how many."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.reports.built import order_matters
from saccade.reports.fairness.case import Case
from saccade.reports.fairness.finding import listed
from saccade.reports.fairness.needs import ORDER, PADDING
from saccade.reports.fairness.rule import Rule, Seen


def shuffled_tokens(case: Case) -> Iterator[Seen]:
    """A mechanism that depends on the order of its tokens, given visible ones in random order.

    Originals 000 and 001: visible patches arrived in random order; landmarks were means of strangers, and the 9 x 9
    kernel slid over a strip of patches from anywhere.
    """
    shuffled = [one for one in case.records if one.conditions.get("token_order") == "random"]
    names = {one.attention_resolved: one.attention for one in shuffled}
    harmed = [name for resolved, name in names.items() if order_matters(resolved)]
    if harmed:
        yield Seen(
            f"these depend on the order of their tokens, and were given visible ones in random order: {listed(harmed)}"
            "; what was measured is another mechanism"
        )


def padded_tokens(case: Case) -> Iterator[Seen]:
    """A mechanism that worked on more tokens than there are.

    Original 000: "linformer" padded 13 visible tokens to the 50 it was built for, and did more work than softmax.
    """
    padded = {
        one.attention: f"{one.attention} (on {worked} where there are {there})"
        for one in case.records
        if (worked := one.conditions.get("padded_tokens")) and (there := one.conditions.get("tokens"))
        if worked > there
    }
    if padded:
        yield Seen(f"these worked on more tokens than there are: {listed(padded.values())}; softmax did not")


TOKEN_RULES = (
    Rule(
        "shuffled tokens",
        shuffled_tokens,
        ("error",),
        (ORDER,),
        "give the visible tokens in raster order, with their places",
    ),
    Rule("padded tokens", padded_tokens, ("error",), (PADDING,), "build the layer for the tokens that it sees"),
)
