"""What is compiled is compiled for its shape from nothing, and what that took is told, or why it could not be."""

import subprocess
import sys

import pytest
import torch

from saccade.measurement import step, timed
from saccade.measurement.compiling import compiled, first_call
from saccade.measurement.subject import Subject
from saccade.measurement.terms import Terms

CPU = torch.device("cpu")


def test_nothing_is_compiled_unasked():
    assert compiled(abs, Terms()) is abs


def test_each_shape_is_compiled_by_itself_from_nothing_and_by_no_other_process(monkeypatch):
    import torch._inductor.config as inductor

    asked = []
    monkeypatch.setattr(torch, "compile", lambda act, **options: asked.append((act, options)) or max)
    for name, value in {"force_disable_caches": False, "compile_threads": 8}.items():
        monkeypatch.setattr(inductor, name, value)
    assert compiled(abs, Terms(compile=True)) is max
    assert asked == [(abs, {"dynamic": False})]
    assert (inductor.force_disable_caches, inductor.compile_threads) == (True, 1)


def test_training_step_and_forward_pass_are_compiled_where_asked(monkeypatch):
    called = []
    monkeypatch.setattr(
        step, "compiled", lambda act, terms: lambda images: called.append((terms.compile, len(images))) or act(images)
    )
    subject = {"model": "vit_nano_patch1_8", "batch_size": 3, "inference_batch": 2, "compile": True}
    monkeypatch.setattr(timed, "pass_the_gate", lambda model, subject: None)
    acts = timed.timed_subject(subject).acts
    acts["step"]()
    acts["inference"]()
    assert called == [(True, 3), (True, 2)]


def test_the_first_call_is_before_the_warm_up_and_told_apart(monkeypatch):
    calls = []
    one = timed.Timed({"step": lambda: calls.append(1)}, Terms(compile=True), {})
    monkeypatch.setattr(
        timed,
        "first_call",
        lambda act, device: calls.append("compiling") or {"compile_seconds": 3.5, "graph_breaks": 1},
    )
    warm = one.warm_up("step")
    assert calls[0] == "compiling"
    assert (warm["compile_seconds"], warm["graph_breaks"]) == (3.5, 1)
    assert warm["laps"]
    assert "compile_seconds" not in timed.Timed(one.acts, Terms(), {}).warm_up("step")


def test_who_does_not_compile_says_why():
    from torch._dynamo.exc import Unsupported

    def act():
        raise Unsupported("a loop over values\nand a page about it")

    assert first_call(act, CPU) == {"does_not_compile": "Unsupported: a loop over values"}
    one = timed.Timed({"step": act}, Terms(compile=True), {})
    assert one.warm_up("step") == {"does_not_compile": "Unsupported: a loop over values"}


def test_other_failures_of_the_first_call_stay_what_they_are():
    def act():
        raise MemoryError

    with pytest.raises(MemoryError):
        first_call(act, CPU)


# The tests' shape checks stand in the way of a compiler: a process of its own has none.
BROKEN = """
import torch
from saccade.measurement.compiling import first_call

def broken(x):
    torch._dynamo.graph_break()
    return x + 1

act, x = torch.compile(broken, backend="eager"), torch.ones(2)
print(first_call(lambda: act(x), torch.device("cpu"))["graph_breaks"])
whole = torch.compile(lambda x: x + 1, backend="eager")
print(first_call(lambda: whole(x), torch.device("cpu"))["graph_breaks"])
"""


def test_places_at_which_compiled_code_goes_back_to_python_are_counted():
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_nano_patch1_8", "mae_nano_patch1_8"])
def test_a_model_is_really_compiled_for_training_and_inference(model):
    from saccade.measurement.seconds import time_rivals

    subject = Subject(model=model, batch_size=2, inference_batch=2, clock="cpu", compile=True)
    (record,) = time_rivals([subject], repeats=1, what=["step", "inference"])
    assert record.error is None
    for act in ("step", "inference"):
        assert record.values[f"warmup_{act}_compile_seconds"] > 10 * record.values[f"{act}_seconds"][0]
