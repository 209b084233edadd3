"""Who else is at work is found where the system says it, and nobody is suspected where it does not."""

import pytest
import torch

from saccade.measurement import quiet


@pytest.fixture
def machine(monkeypatch):
    """Says how busy it is."""

    def say(pressure, load, cores=4):
        for name, value in {"pressure_avg10": pressure, "load_1min": load, "cores": cores}.items():
            monkeypatch.setattr(quiet, name, lambda value=value: value)

    return say


@pytest.mark.parametrize(
    ("pressure", "load", "threads", "says"),
    [
        (0.3, 9.0, 2, None),
        (34.0, 0.0, 2, "34 % of the last ten seconds"),
        # Where there is no /proc/pressure.
        (None, 0.2, 4, None),
        (None, 1.2, 2, None),
        (None, 3.1, 2, "no room for 2 on 4 cores"),
        # Where nothing is known.
        (None, None, 2, None),
    ],
)
def test_a_busy_processor_is_found_by_what_there_is(machine, pressure, load, threads, says):
    machine(pressure, load)
    why = quiet.why_busy("cpu", threads)
    assert why is None if says is None else says in why
    if says:
        with pytest.raises(ValueError, match="without --quiet-only"):
            quiet.require_quiet("cpu", threads)
    else:
        quiet.require_quiet("cpu", threads)


@pytest.mark.parametrize(
    ("free", "computing", "busy"),
    [
        (9_000_000_000, 40, True),
        (1_000_000_000, 0, False),
        # NVIDIA's library is not there: what others hold tells them.
        (1_000_000_000, None, True),
        (9_500_000_000, None, False),
    ],
)
def test_a_busy_accelerator_is_found_by_what_torch_can_tell(machine, monkeypatch, free, computing, busy):
    def utilization(device):
        if computing is None:
            raise ModuleNotFoundError("pynvml")
        return computing

    machine(0.0, 0.0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10_000_000_000))
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    told = quiet.others_on("cuda:0")
    assert told == {
        "accelerator_used_bytes": 10_000_000_000 - free,
        "accelerator_percent": computing,
        "accelerator_busy": busy,
    }
    assert (quiet.why_busy("cuda:0", 1) is not None) is busy


def test_a_processor_is_no_accelerator():
    assert quiet.others_on("cpu") == {}
