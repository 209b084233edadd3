"""The race of cores: both sides run one function, a difference ends it, and the report divides what it should."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CASES = ("performer", "nystrom", "orthoformer", "lambda", "linear", "efficient", "linformer", "fourier")

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("core_rivals", "attention_cores", "vit_step"):
        sys.modules.pop(name, None)


def subject_of(case, side=4):
    import core_rivals
    from saccade.measurement.benching.layer import LayerSubject
    from saccade.measurement.terms import Terms

    one = core_rivals.CASES[case]
    small = {64: 4, 256: 24}
    attention = one.attention
    for large, few in small.items():
        attention = attention.replace(f"={large}", f"={few}")
    return LayerSubject(attention=attention, dim=16, num_heads=2, grid=(side, side), terms=Terms(batch_size=2))


def fingerprint_of(case, rival, subject=None):
    import core_rivals

    one = core_rivals.CASES[case]
    made = core_rivals.contestant(case, rival, subject or subject_of(case))
    return core_rivals.fingerprint(made, 2 if one.alike_heads else None)


def test_every_mechanism_with_a_peer_has_a_race():
    import core_rivals

    assert set(core_rivals.CASES) == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_both_sides_compute_one_function(case):
    import core_rivals
    from vit_step import difference

    ours = fingerprint_of(case, core_rivals.OURS)
    for rival in core_rivals.CASES[case].peers:
        theirs = fingerprint_of(case, rival)
        assert theirs.keys() == ours.keys()
        for part, values in ours.items():
            assert len(values) == core_rivals.DIRECTIONS
            assert difference(theirs[part], values) < 1e-5


@pytest.mark.parametrize("case", ["performer", "nystrom", "linformer", "orthoformer"])
def test_another_function_is_seen(case):
    import core_rivals
    from vit_step import difference

    subject = subject_of(case)
    name = core_rivals.CASES[case].attention.partition("(")[2].partition("=")[0]
    other = replace(subject, attention=f"{case}({name}=5)")
    ours = fingerprint_of(case, core_rivals.OURS, subject)
    assert any(difference(fingerprint_of(case, core_rivals.OURS, other)[part], ours[part]) > 1e-2 for part in ours)


@pytest.mark.parametrize("case", CASES)
def test_each_side_is_timed_and_says_whose_code_it_is(case):
    from dataclasses import asdict

    import core_rivals

    subject = asdict(subject_of(case))
    for rival in (core_rivals.OURS, *core_rivals.CASES[case].peers):
        timed = core_rivals.timed_core(case, rival, subject)
        for act in timed.acts.values():
            act()
        assert set(timed.acts) == {"forward", "forward_backward"}
        assert timed.facts()["code"].startswith("saccade ") == (rival == core_rivals.OURS)


def test_motionformers_loop_chooses_each_query_least_similar_to_those_before():
    import core_rivals

    q = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for head, seen in zip(q, core_rivals.motionformers_landmarks(q, 4), strict=True):
        unit = torch.nn.functional.normalize(head, dim=-1)
        chosen = [int(head.norm(dim=-1).argmax())]
        while len(chosen) < 4:
            largest = (unit @ unit[chosen].T).abs().amax(1)
            largest[chosen] = 2
            chosen.append(int(largest.argmin()))
        torch.testing.assert_close(seen, head[sorted(chosen)])


class Answered:
    """A side that is ready."""

    def __init__(self, function, error=None):
        self.conditions, self.error = {"function": function}, error


def test_sides_that_differ_do_not_race():
    import attention_cores

    sides, ours = ["saccade", "theirs"], {"output": [1.0, -2.0], "gradient 0": [3.0]}
    ready = [Answered(ours), Answered(ours)]
    attention_cores.check_functions("nystrom", sides, ready)
    assert [one.conditions for one in ready] == [{}, {"function_difference": 0.0}]
    for wrong in ([3.001], [float("nan")], [3.0, 3.0]):
        ready = [Answered(ours), Answered({**ours, "gradient 0": wrong})]
        with pytest.raises(SystemExit, match="nystrom: theirs does not compute what saccade does: gradient 0"):
            attention_cores.check_functions("nystrom", sides, ready)
    with pytest.raises(SystemExit, match="theirs did not get ready: killed"):
        attention_cores.check_functions("nystrom", sides, [Answered(ours), Answered(None, "killed")])


@pytest.mark.parametrize(
    ("rival", "least", "most"),
    [
        # One tensor like the queries is the output; the formula keeps features, outputs of elu and a product besides.
        ("saccade", (1, 1, 4), (2.2, 1.2, 6)),
        ("fast-transformers", (3, 5, 7), (6, 7, 11)),
    ],
)
def test_memory_is_of_forward_of_what_it_leaves_and_of_both(rival, least, most, monkeypatch):
    import attention_cores
    import core_rivals
    from saccade.measurement.benching.layer import LayerSubject
    from saccade.measurement.terms import Terms

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "benchmarks"), prepend=os.pathsep)
    subject = LayerSubject(attention="linear", dim=256, num_heads=4, grid=(32, 32), terms=Terms(batch_size=8))
    record = attention_cores._weighed("linear", rival, subject, {}, "ours")
    assert record.error is None
    queries_bytes = 4 * 8 * 32 * 32 * 256
    for memory, low, high in zip(core_rivals.MEMORIES, least, most, strict=True):
        assert low <= record.values[f"{memory}_bytes"] / queries_bytes <= high, memory


@pytest.mark.parametrize("memory", ["forward_peak", "kept", "peak"])
def test_the_report_names_the_memory_that_is_to_be_smaller(memory):
    import attention_cores
    from core_rivals import Reach

    column = {"forward_peak": "forward", "kept": "kept", "peak": "both"}[memory]
    assert attention_cores._wanted(Reach(1.5, 2, of=memory)) == f"1.5 ×, 2 × leaner: {column}"
    assert attention_cores._wanted(Reach(2)) == "2 ×"


def test_the_report_divides_theirs_by_ours():
    import attention_cores

    subject = subject_of("performer")
    machine = {"processor": "P", "cores": 2, "torch": "2", "commit": "c"}

    def record(kind, side, value):
        values = {f"{act}_seconds": [value] * 5 for act in attention_cores.ACTS}
        if kind == "memory":
            values = {
                "forward_peak_bytes": int(1e6 * value),
                "kept_bytes": int(3e6 * value**2),
                "peak_bytes": int(1e7 * value**3),
                "method": "VmHWM",
            }
        conditions = {"code": f"{side} 1", "busy": False}
        return attention_cores._record(
            kind, "performer", side, subject, machine, conditions, values, None, "one" if kind == "seconds" else None
        )

    times = {"saccade": 2.0, "performer-pytorch": 3.0}
    records = [record(kind, side, value) for kind in ("seconds", "memory") for side, value in times.items()]
    text = attention_cores.report(records, "python benchmarks/attention_cores.py")
    assert (
        "| performer-pytorch over performer | 16 | 1.50 (1.50 .. 1.50) | 1.50 (1.50 .. 1.50) | 1.50 | 2.25 | 3.38 "
        "| 1.5 ×, 5 × leaner: both |" in text
    )
    assert "| performer | 16, 2 | saccade 1 | 2.00 s | 2.00 s | 2.00 MB | 12.0 MB | 80.0 MB |" in text
    assert "method VmHWM" in text
    assert "not to be trusted" not in text
