import pytest
import torch

from saccade.training.device import choose_device, peak_bytes, same_bits

CPU = torch.device("cpu")


def with_accelerator(monkeypatch, kind, count=1):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("kind", "asked", "chosen"),
    [
        (None, "auto", "cpu"),
        (None, "cpu", "cpu"),
        ("mps", "auto", "mps"),
        ("mps", "mps", "mps"),
        ("cuda", "auto", "cuda:0"),
        ("cuda", "cuda", "cuda:0"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cuda", "cpu", "cpu"),
    ],
)
def test_the_device_asked_for_is_the_device_taken(monkeypatch, kind, asked, chosen):
    with_accelerator(monkeypatch, kind, count=2)
    assert choose_device(asked) == torch.device(chosen)


@pytest.mark.parametrize(
    ("kind", "asked", "there"),
    [
        (None, "cuda", "cpu"),
        (None, "mps", "cpu"),
        ("mps", "cuda:0", "mps, cpu"),
        ("cuda", "cuda:2", "cuda:0, cuda:1, cpu"),
        ("cuda", "gpu", "cuda:0, cuda:1, cpu"),
        (None, "", "cpu"),
    ],
)
def test_a_device_that_is_not_there_is_never_replaced(monkeypatch, kind, asked, there):
    with_accelerator(monkeypatch, kind, count=2)
    with pytest.raises(ValueError, match=f"--device {asked}: this machine has {there}; "):
        choose_device(asked)


def test_memory_in_use_is_bytes():
    assert 2**20 < peak_bytes(CPU) < 2**40


def test_torchs_settings_and_generator_come_back():
    torch.manual_seed(3)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state())
    with same_bits(CPU, threads=2):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        torch.manual_seed(5)
        torch.rand(3)
    after = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_they_come_back_after_an_error_too():
    with pytest.raises(KeyError), same_bits(CPU):
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="--threads 0"), same_bits(CPU, threads=0):
        pass
