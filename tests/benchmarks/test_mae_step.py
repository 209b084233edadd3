"""The race of masked autoencoders: all run one function, a difference ends it, and the report says what it should."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "model": "mae_micro_patch4_32",
    "options": {"depth": 2, "in_chans": 3, "decoder_embed_dim": 32, "decoder_depth": 2, "norm_pix_loss": True},
    "batch_size": 2,
}


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    yield
    for name in ("rivals", "vit_step", "mae_rivals", "mae_step"):
        sys.modules.pop(name, None)


def test_every_rival_computes_what_saccade_does_and_takes_a_step():
    import mae_rivals
    import mae_step

    functions = {}
    for code in mae_rivals.RIVALS:
        timed = mae_rivals.timed_rival(code, SMALL)
        timed.acts["step"]()
        functions[code] = timed.facts()["function"]
        assert mae_step.difference(functions[code], functions["saccade"]) < 1e-5
    assert functions["saccade"][0] == pytest.approx(functions["fb"][0], abs=1e-6)
    for name, optimiser in (("fb as published", mae_rivals.PublishedAdamW), ("fb", mae_rivals.AdamW)):
        assert mae_rivals.optimiser_of(f"{name}{mae_rivals.AUTOCAST}") is optimiser
    codes = {code.removesuffix(mae_step.AUTOCAST) for peers in mae_step.PEERS.values() for code in peers}
    assert codes < set(mae_rivals.RIVALS)


def test_the_published_optimiser_takes_the_step_of_the_fused_one():
    import mae_rivals
    from saccade.measurement.subject import Subject

    subject, ends = Subject(**SMALL), []
    for code in ("fb", "fb as published"):
        model, loss, _ = mae_rivals.made(code, subject)
        step = mae_rivals.MaeStep(model, loss, subject, mae_rivals.optimiser_of(code))
        step()
        step.optimiser.step(1e-2, norm=backward(step), longest=0.0)
        assert all(weight.grad is None for weight in model.parameters())
        ends.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    start = torch.cat([weight.detach().flatten() for weight in mae_rivals.made("fb", subject)[0].parameters()])
    assert (ends[0] - start).abs().max() > 1e-3
    torch.testing.assert_close(*ends)


def backward(step):
    step.loss(step.images, step.noise).backward()
    return step.optimiser.take_gradients()


@pytest.mark.parametrize("code", ["saccade", "fb", "transformers"])
def test_checkpointing_changes_no_rival_s_function(code):
    import mae_rivals
    import mae_step
    from saccade.measurement.subject import Subject

    subject, seen = Subject(**SMALL), []
    for checkpointing in (False, True):
        model, loss, _ = mae_rivals.made(code, subject, checkpointing)
        seen.append(mae_rivals.fingerprint(model, loss, mae_rivals.random_images_of(subject)))
    assert mae_step.difference(*seen) < 1e-6


class Answered:
    """A rival that is ready."""

    def __init__(self, function, error=None):
        self.conditions, self.error = {"function": function}, error


def test_rivals_that_differ_do_not_race():
    import mae_step

    mae_step.check_functions({"saccade": Answered([1.0, -2.0]), "fb": Answered([1.0, -2.0])})
    with pytest.raises(SystemExit, match="fb does not compute what saccade does"):
        mae_step.check_functions({"saccade": Answered([1.0, -2.0]), "fb": Answered([1.0, -2.001])})
    with pytest.raises(SystemExit, match="no such module"):
        mae_step.check_functions({"saccade": Answered([1.0]), "fb": Answered(None, "failed: no such module")})


def test_the_report_divides_times_and_draws_the_line_of_memory():
    import mae_step
    from saccade.measurement.subject import Subject
    from saccade.record import Record

    machine = {"processor": "P", "cores": 2, "torch": "2", "commit": "c"}
    subject = Subject(**SMALL)
    terms = {**subject.conditions(), "code": "theirs", "busy": False, "race": "fp32"}
    records = [
        Record(
            kind="seconds",
            **subject.about(),
            values={"step_seconds": [seconds] * 5},
            conditions={**terms, "rival": code},
            machine=machine,
            round="one",
        )
        for code, seconds in (("saccade", 2.0), ("fb as published", 3.5), ("fb", 3.0), ("transformers", 2.5))
    ]
    records += [
        Record(
            kind="memory",
            **subject.about(),
            values={"peak_bytes": (100 + 3 * size) * 2**20},
            conditions={**terms, "rival": "saccade", "batch_size": size},
            machine=machine,
        )
        for size in (8, 24)
    ]
    text = mae_step.report(records, "python benchmarks/mae_step.py", 1000 * 2**20)
    assert "| fb (theirs) | 3000 | 1.50 (1.50 .. 1.50) |" in text
    assert "The goal counts against fb: 1.50." in text
    assert "| off | saccade | 3.00 | 100 | 300 |  |" in text
    assert "not to be trusted" not in text
