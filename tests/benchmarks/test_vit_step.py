"""The race of ViTs: all run one function, a difference ends it, and the report divides what it should."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    yield
    for name in ("rivals", "vit_step"):
        sys.modules.pop(name, None)


def facts_of(code: str) -> dict:
    import rivals
    import vit_step

    attention = "softmax(qkv_bias=False)" if code in vit_step.NO_QKV_BIAS else "softmax"
    subject = {"model": "vit_micro_patch4_32", "attention": attention, "options": {"depth": 2, "img_size": [16, 24]}}
    one = rivals.timed_rival(code, subject | {"batch_size": 2, "inference_batch": 2})
    for act in one.acts.values():
        act()
    return one.facts()


def test_every_rival_computes_what_it_races_against():
    import vit_step

    functions = {code: facts_of(code)["function"] for code in vit_step.RIVALS}
    for ours, theirs in vit_step.RACES:
        for code in theirs:
            assert vit_step.difference(functions[code], functions[ours]) < 1e-5
    assert vit_step.difference(functions["timm"], functions["vit-pytorch"]) > vit_step.SAME_WITHIN


@pytest.mark.parametrize(
    ("code", "name", "kernel"),
    [
        ("saccade", "saccade", "sdpa"),
        ("timm, explicit", "timm", "explicit"),
        ("vit-pytorch", "vit-pytorch", "explicit"),
    ],
)
def test_a_rival_says_whose_code_it_is(code, name, kernel):
    facts = facts_of(code)
    assert facts["code"].startswith(f"{name} ")
    assert facts["kernel_run"] == kernel


class Answered:
    """A rival that is ready."""

    def __init__(self, function, error=None):
        self.conditions, self.error = {"function": function}, error


def test_rivals_that_differ_do_not_race():
    import vit_step

    ready = [Answered([1.0, -2.0]) for _ in vit_step.RIVALS]
    vit_step.check_functions(ready)
    assert [one.conditions for one in ready[:2]] == [{}, {"function_difference": 0.0}]
    ready = [Answered([1.0, -2.0]) for _ in vit_step.RIVALS]
    ready[-1] = Answered([1.0, -2.001])
    with pytest.raises(SystemExit, match="vit-pytorch does not compute what saccade, no qkv bias does"):
        vit_step.check_functions(ready)
    ready[-1] = Answered(None, "failed: no such module")
    with pytest.raises(SystemExit, match="no such module"):
        vit_step.check_functions(ready)


def test_the_report_divides_the_faster_of_theirs_by_ours():
    import vit_step
    from saccade.measurement.subject import Subject
    from saccade.record import Record

    seconds = {"saccade": 2.0, "timm": 3.0, "timm, explicit": 5.0, "saccade, no qkv bias": 1.0, "vit-pytorch": 4.0}
    subject = Subject(model="vit_micro_patch2_32")
    records = [
        Record(
            kind="seconds",
            **subject.about(),
            values={f"{what}_seconds": [value] * 5 for what in vit_step.WHAT},
            conditions={
                **subject.conditions(),
                "rival": code,
                "code": code,
                "kernel_run": "sdpa",
                "busy": code == "timm",
            },
            machine={"processor": "P", "cores": 2, "torch": "2", "commit": "c"},
            round="one",
        )
        for code, value in seconds.items()
    ]
    text = vit_step.report(records, "python benchmarks/vit_step.py")
    assert "| timm / timm, explicit over saccade | 1.50 (1.50 .. 1.50) | 1.50 (1.50 .. 1.50) |" in text
    assert "| vit-pytorch over saccade, no qkv bias | 4.00 (4.00 .. 4.00) |" in text
    assert "| timm (timm) | sdpa | 3000 | 3000 |" in text
    assert "not to be trusted" in text
