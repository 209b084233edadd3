"""Writes what a machine can know into the documents: `python docs/generate.py`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.attention.facts import Facts, listing
from saccade.attention.written import Written

if TYPE_CHECKING:
    from saccade.originals import Listed
    from saccade.originals.original import Original
    from saccade.reports.fairness.rule import Rule

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- map: python docs/generate.py -->", "<!-- end of map -->"


def module_map() -> str:
    """Every module of the package beside the first line of its docstring, in the order of the imports."""
    package = ROOT / "src" / "saccade"
    lines = ["```text"]
    for path in sorted(package.rglob("*.py"), key=_place):
        name = path.relative_to(package).as_posix().replace("/__init__.py", "/")
        lines.append(f"{name:<32} {_first_line(path)}")
    return "\n".join([*lines, "```"])


def with_map(text: str) -> str:
    """The document with the map between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{module_map()}\n{END}{after}"


def attentions() -> str:
    """docs/attentions.md: every mechanism of the table, from its docstring and its declared facts."""
    found = listing()
    shared = [facts for facts in found if facts.shared]
    return "\n\n".join([_INTRODUCTION, _overview(found), _shared(shared), *map(_section, found)]) + "\n"


_INTRODUCTION = """# The attention mechanisms

What each one computes, what it costs and what it needs. `python docs/generate.py` writes this page from the docstrings
and the declared facts of `src/saccade/attention/`, which `saccade attentions` prints too; [adding.md](adding.md) says
how to add one's own. An attention is written as its name, with the options that differ from the defaults:
`nystrom(landmarks=16)`.

N tokens, D width, H heads, e = D / H the width of a head, B images; other letters are the mechanism's options. The cost
is that of the mixing, without projections. "Any N?": it works on every number of tokens from 1. "Order-free?": it sees
a set, not a sequence. "Grid?": it needs to know the rows and columns of the patches. All facts hold at the default
options."""


def _overview(found: Iterable[Facts]) -> str:
    header = ("name", "what it does", "paper", "cost O()", "any N?", "order-free?", "grid?", "equals softmax")
    rows = []
    for facts in found:
        said = ("yes" if fact else "no" for fact in (facts.any_length, facts.free_of_order, facts.needs_grid))
        link = f"[{facts.name}](#{facts.name})"
        rows.append((link, facts.title, _linked(facts.paper), facts.cost, *said, facts.exact_when))
    return _table(header, rows)


def _shared(takers: Sequence[Facts]) -> str:
    first = takers[0]
    names = ", ".join(f"`{facts.name}`" for facts in takers)
    return f"## Shared options\n\nWhat {names} take beside their own.\n\n{_options(first, first.shared)}"


def _section(facts: Facts) -> str:
    own = [option for option in facts.options if option not in facts.shared]
    written = Written(facts.name, tuple((option, facts.options[option]) for option in own))
    also = "the [shared options](#shared-options)"
    takes = f"`{written}`" + (f" and {also}" if facts.shared else "")
    parts = [
        f"## {facts.name}",
        _plain(facts.title),
        _plain(facts.text),
        f"Source: {_linked(facts.paper)}. Written {takes}.",
    ]
    if own:
        parts.append(_options(facts, own))
    return "\n\n".join(filter(None, parts))


def _options(facts: Facts, options: Iterable[str]) -> str:
    rows = ((f"`{option}`", f"`{facts.options[option]!r}`", facts.meanings[option]) for option in options)
    return _table(("option", "default", "what it means"), rows)


def xformers() -> str:
    """docs/xformers.md: every class of the shim, from its docstring."""
    from saccade.compat.xformers import ATTENTION_REGISTRY, SUCCESSORS, MultiHeadDispatch

    rows, sections = [], []
    named = {**ATTENTION_REGISTRY, "build_multi_head_attention": MultiHeadDispatch}
    for name, cls in named.items():
        title, _, rest = (inspect.getdoc(cls) or "").partition("\n")
        computes, _, repaired = title.partition(" Repaired: ")
        become = f"[{SUCCESSORS[name]}](attentions.md#{SUCCESSORS[name]})" if name in SUCCESSORS else "every layer"
        link = f"[{cls.__name__}](#{cls.__name__.lower()})"
        rows.append((link, computes, repaired or "nothing to repair", f"`{name}`", become))
        text, _, arguments = rest.partition("\nArgs:\n")
        lines = re.sub(r"\n {8}", " ", f"\n{arguments}").split("\n")
        options = [re.sub(r"^ {4}(\w+): ", r"* `\1`: ", _plain(line)) for line in lines if line.strip()]
        sections.append("\n\n".join([f"## {cls.__name__}", _plain(title), _plain(text.strip()), "\n".join(options)]))
    table = _table(("class", "what it computes", "repaired", "name in a configuration", "saccade's own layer"), rows)
    return "\n\n".join([_XFORMERS, table, *sections]) + "\n"


_XFORMERS = """# xFormers' attentions

xFormers shipped a zoo of attentions until v0.0.28 and then deleted it. `saccade.compat.xformers` has them by their
names, with the same arguments and the same weights in the state dict; the mathematics is saccade's own, without the
faults that are listed here. `python docs/generate.py` writes this page from the docstrings.

```python
# from xformers.components.attention import NystromAttention, build_attention
# from xformers.components import MultiHeadDispatch, build_multi_head_attention
from saccade.compat.xformers import MultiHeadDispatch, NystromAttention, build_attention, build_multi_head_attention

attention = NystromAttention(dropout=0.0, num_heads=12, num_landmarks=32)
layer = MultiHeadDispatch(dim_model=768, num_heads=12, attention=attention)
y = layer(x)
```

An attention is called with q, k and v of (heads of images, N, e), as there, or of (images, heads, N, e). `att_mask` is
Boolean with True for what is kept, or added to the scores; it is (N, N), or one such for each image or for each head of
each image. Differences that hold for all:

* What cannot be done as asked is a ValueError that says what to do: a mask that an attention cannot heed, an option
  that was overlooked, an unknown one. Nothing becomes softmax silently.
* Nothing is random in evaluation, and what was drawn when the layer was built is in its state, or a function of a seed.
* A configuration for several attentions may name options that another of them takes, as there, but not `causal=True`
  for one that has no causal form, nor a name that none knows.

They see a sequence: no grid, no prefix tokens, no ids of visible patches. For images and masked autoencoders take
saccade's own layers, in the last column."""


def originals() -> str:
    """docs/originals.md: each of the five, what was wrong with it, and what finds that."""
    from saccade.originals import ORIGINALS, find_original

    return (
        "\n\n".join([_ORIGINALS, *(_original(listed, find_original(name)) for name, listed in ORIGINALS.items())])
        + "\n"
    )


_ORIGINALS = """# The five originals

saccade grew out of five small systems, each of which compared attention mechanisms in a Vision Transformer or a masked
autoencoder. Each contains a fault that decides what it found. `saccade reproduce` rebuilds their models, measures what
their tables measured on your machine, in their own form, sets both side by side, and lets the doctor examine what they
claimed. `python docs/generate.py` writes this page from `src/saccade/originals/`.

What needs no run is below: rows that are "yes: equal" must be. Times are never compared, for they are another
machine's."""


def _original(listed: Listed, one: Original) -> str:
    from saccade.attention.contract import demand
    from saccade.originals.reproduction import faults_found
    from saccade.reports.fairness import examine

    named = [clause for fault in one.faults for clause in fault.clauses]
    # Which figures a broken clause has seen may differ from machine to machine; what it demands does not.
    found = [
        replace(known, seen=" ".join(map(demand, known.fault.clauses))) if known.fault.clauses else known
        for known in faults_found(one, examine(one.claims()), dict.fromkeys(named))
    ]
    usual = ", ".join(f"`--{option.replace('_', '-')} {value}`" for option, value in one.usual.items())
    rows = [(row.what, row.theirs, row.ours, row.comparable) for row in one.counted().beside]
    faults = [(known.fault.what, known.by or "nothing", known.seen) for known in found]
    parts = [
        f"## {listed.id}: {listed.title}",
        one.was,
        f"Its figures were taken on {one.hardware}.",
        f"```console\n$ saccade reproduce {listed.id}    # or {listed.name}\n```",
        f"By default {usual}; what that makes smaller, it says." if usual else "",
        "What needs no run:",
        _table(("what", "original", "ours", "may they be compared?"), rows),
        "What was wrong, and what finds it:",
        _table(("what was wrong", "found by", "in its words"), faults),
        f"Its question, asked fairly:\n\n```console\n$ {one.instead}\n```",
    ]
    return "\n\n".join(filter(None, parts))


def doctor() -> str:
    """docs/doctor.md: every rule of the doctor, from its docstring and its line in the tuple of rules."""
    from saccade.reports.fairness import RULES

    header = ("rule", "severity", "what it looks for")
    rows = ((f"[{rule.name}](#{_anchor(rule.name)})", " or ".join(rule.severities), rule.what) for rule in RULES)
    return "\n\n".join([_DOCTOR, _table(header, rows), *map(_rule, RULES)]) + "\n"


_DOCTOR = """# The doctor

What makes a comparison of attention mechanisms unfair or pointless, a rule each. `saccade doctor DIR...` asks every
rule that the records of a folder have the facts for, whoever made them, and says which it could not ask: silence on
those is no clean bill. `saccade compare` asks the same rules of its plan, before anything runs, and of its records,
`saccade bench` of its own. `python docs/generate.py` writes this page from `src/saccade/reports/fairness/*_rules.py`.

An error: a conclusion would be wrong. A warning: it would rest on less than it seems. A note: a reader should know.
The originals 000 to 004 are five comparisons that were published with these faults in them; `saccade reproduce`
rebuilds them."""


def _rule(rule: Rule) -> str:
    severity = " or ".join(rule.severities).capitalize()
    needs = " and ".join(need.words for need in rule.needs)
    remedy = f" Remedy: {rule.remedy}." if rule.remedy else ""
    return "\n\n".join(
        [f"## {rule.name}", _plain(rule.what), _plain(rule.fault), f"*{severity}; needs {needs}.*{_plain(remedy)}"]
    )


def _anchor(name: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-")


def _linked(paper: str) -> str:
    """Authors and year as the text of the link."""
    return re.sub(r"([^;]+?), (https?://[^\s;,]+)", r"[\1](\2)", paper)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = ([_plain(cell).replace("|", r"\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *cells])


def _plain(text: str) -> str:
    """Stars and angles of formulas are no markup, but inside backticks nothing is."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece[:1] == "`" else re.sub(r"([*<])", r"\\\1", piece) for piece in pieces)


STATIONS = [
    "errors",
    "record",
    "attention",
    "compat",
    "models",
    "data",
    "training",
    "measurement",
    "reports",
    "comparison",
    "originals",
    "cli",
    "__init__",
    "__main__",
]
"""The stations of the journey: a module imports from stations before its own, and from its own."""


def _place(path: Path) -> tuple[int, bool, str]:
    parts = path.relative_to(ROOT / "src" / "saccade").with_suffix("").parts
    return STATIONS.index(parts[0]), parts[-1] != "__init__", path.as_posix()


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} does not say what it holds"
    return docstring.splitlines()[0]


if __name__ == "__main__":
    document = ROOT / "CONTRIBUTING.md"
    document.write_text(with_map(document.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "attentions.md").write_text(attentions(), encoding="utf-8")
    (ROOT / "docs" / "xformers.md").write_text(xformers(), encoding="utf-8")
    (ROOT / "docs" / "doctor.md").write_text(doctor(), encoding="utf-8")
    (ROOT / "docs" / "originals.md").write_text(originals(), encoding="utf-8")
