"""What operations copy is what they are seen to take beside what they make, by the kernel's own count of pages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils._python_dispatch import TorchDispatchMode

from saccade.measurement.memory.scale import emptied, scale_for
from saccade.measurement.memory.scratch import Scratch
from saccade.measurement.memory.tensors import tensors_in

aten = torch.ops.aten

SHAPE = 32, 64, 64, 64
BYTES = 4 * 32 * 64 * 64 * 64

# Of buffers per thread, and pages that the C library keeps.
SOME = 1_500_000


class _Noting(TorchDispatchMode):
    """Notes the most that an operation takes within itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch, self.most = Scratch(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.most = max(self.most, self.scratch.within(func, args, made))
        return made


def plain() -> Tensor:
    return torch.ones(SHAPE)


def channels_last() -> Tensor:
    return plain().to(memory_format=torch.channels_last)


def turned() -> Tensor:
    return plain().mT


def strided() -> Tensor:
    return torch.ones(32, 64, 64, 65)[..., 1:]


def pooled(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1)


def pooled_backward(gradient: Tensor, x: Tensor) -> Tensor:
    return aten.avg_pool2d_backward(gradient, x, [3, 3], [1, 1], [1, 1], False, True, None)


def softmax(x: Tensor) -> Tensor:
    return x.softmax(-1)


def softmax_backward(gradient: Tensor, y: Tensor) -> Tensor:
    return aten._softmax_backward_data(gradient, y, -1, torch.float32)


def fused_backward(gradient: Tensor, q: Tensor, y: Tensor, sums: Tensor) -> tuple[Tensor, ...]:
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(gradient, q, q, q, y, sums, 0.0, False)


def transformed(*dims: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.fft.fftn(x, dim=dims)


def transformed_half(x: Tensor) -> Tensor:
    return torch.fft.rfft(x, dim=1)


def transformed_back(*dims: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.fft.irfftn(x, dim=dims)


def halved(x: Tensor) -> Tensor:
    return torch.fft.rfft(x)


def by_token() -> Tensor:
    """All heads of one token after the other."""
    return plain().transpose(1, 2)


def complex_numbers() -> Tensor:
    return torch.ones(32, 64, 2048, dtype=torch.complex64)


def turned_complex_numbers() -> Tensor:
    return torch.ones(32, 2048, 64, dtype=torch.complex64).mT


def matrices() -> Tensor:
    return torch.ones(32, 64, 4096)


# Operation, what it is given, and how many times `BYTES` it copies.
CASES = {
    "softmax": (softmax, [plain], 0),
    "softmax, turned": (softmax, [turned], 1),
    "softmax's gradient": (softmax_backward, [plain, plain], 0),
    "softmax's gradient, turned": (softmax_backward, [turned, plain], 1),
    "softmax's gradient, both turned": (softmax_backward, [turned, turned], 2),
    "pooled": (pooled, [plain], 0),
    "pooled, channels last": (pooled, [channels_last], 0),
    "pooled, strided": (pooled, [strided], 1),
    "pooled's gradient": (pooled_backward, [plain, plain], 0),
    "pooled's gradient, channels last": (pooled_backward, [channels_last, channels_last], 0),
    "pooled's gradient, strided": (pooled_backward, [strided, plain], 1),
    "pooled's gradient, of strided": (pooled_backward, [plain, strided], 0),
    "pooled's gradient, of channels last": (pooled_backward, [plain, channels_last], 1),
    "transformed": (transformed(2), [complex_numbers], 0),
    "transformed, over the middle": (transformed(1), [complex_numbers], 1),
    "transformed, over both": (transformed(1, 2), [complex_numbers], 0),
    "transformed, turned": (transformed(2), [turned_complex_numbers], 1),
    "transformed, turned, over the middle": (transformed(1), [turned_complex_numbers], 0),
    "real numbers transformed": (halved, [matrices], 0),
    "real numbers transformed, over the middle": (transformed_half, [matrices], 1),
    "transformed back": (transformed_back(2), [complex_numbers], 0),
    "transformed back, over the middle": (transformed_back(1), [complex_numbers], 1),
    "transformed back, over both": (transformed_back(1, 2), [complex_numbers], 2),
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
@pytest.mark.parametrize(("operation", "given", "copies"), CASES.values(), ids=CASES)
def test_an_operation_copies_what_is_said(
    operation: Callable[..., Any], given: list[Callable[[], Tensor]], copies: int
) -> None:
    assert_copied(operation, [make() for make in given], copies)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
@pytest.mark.parametrize("queries", [plain, by_token])
@pytest.mark.parametrize(("gradient", "copies"), [(by_token, 0), (plain, 1), (turned, 1), (strided, 1)])
def test_fused_attention_copies_a_gradient_that_is_not_token_by_token(
    queries: Callable[[], Tensor], gradient: Callable[[], Tensor], copies: int
) -> None:
    q = queries()
    y, sums = aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)
    assert_copied(fused_backward, [gradient(), q, y, sums], copies)


def assert_copied(operation: Callable[..., Any], inputs: list[Tensor], copies: int) -> None:
    scale = scale_for(torch.device("cpu"))
    # What is read in the first time is no scratch.
    operation(*(one[:1] for one in inputs))
    before = emptied(scale)
    made = operation(*inputs)
    taken = scale.peak() - before - sum(one.untyped_storage().nbytes() for one in tensors_in((made,)))
    with _Noting() as noting:
        operation(*inputs)
    assert noting.most == copies * BYTES
    assert taken == pytest.approx(noting.most, abs=SOME)
