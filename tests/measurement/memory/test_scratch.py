"""What operations copy is what they are seen to take beside what they make, by the kernel's own count of pages."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils._python_dispatch import TorchDispatchMode

from saccade.measurement.allocator import trim
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


def side_by_side() -> Tensor:
    """Maps whose channels lie last, with a gap between one and the next."""
    return torch.ones(32, 64 * 64 + 1, 64)[:, 1:].mT.unflatten(2, (64, 64))


def convolved(x: Tensor) -> Tensor:
    return torch.nn.functional.conv2d(x, torch.ones(64, 1, 3, 3), padding=1, groups=64)


def convolved_backward(gradient: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    weight, ones = torch.ones(64, 1, 3, 3), [1, 1]
    return aten.convolution_backward(gradient, x, weight, [64], ones, ones, ones, False, [0, 0], 64, [True, True, True])


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


def factors(dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Matrices of `BYTES`, a batch of them and one, as they may lie."""
    numbers = BYTES // dtype.itemsize
    columns = numbers // 256 // 512

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=dtype)

    return {
        "a batch": lambda: ones(256, 512, columns),
        "a batch, turned": lambda: ones(256, columns, 512).mT,
        "a batch with gaps between rows": lambda: ones(256, 512, columns + 32)[..., :columns],
        "a batch with gaps between matrices": lambda: ones(256, 600, columns)[:, :512],
        "a batch, turned, with gaps": lambda: ones(256, columns, 600)[..., :512].mT,
        "a batch of the same": lambda: ones(1, 512, columns).expand(256, -1, -1),
        "one": lambda: ones(256 * 512, columns),
        "one, turned": lambda: ones(columns, 256 * 512).T,
        "one with gaps between rows": lambda: ones(256 * 512, columns + 32)[:, :columns],
        "one with gaps between columns": lambda: ones(256 * 512, 2 * columns)[:, ::2],
    }


IN_BF16 = {
    "a batch with gaps between rows",
    "a batch with gaps between matrices",
    "a batch, turned, with gaps",
    "a batch of the same",
}
ALWAYS = {"one with gaps between columns"}

# Where oneDNN multiplies in bf16.
COMPILES = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()

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
    "convolved, channels last": (convolved, [channels_last], 0),
    "convolved, with gaps": (convolved, [side_by_side], 1),
    "convolution's gradient, channels last": (convolved_backward, [channels_last, channels_last], 0),
    "convolution's gradient, with gaps": (convolved_backward, [side_by_side, channels_last], 1),
    "convolution's gradient, of one with gaps": (convolved_backward, [channels_last, side_by_side], 1),
    "convolution's gradient, both with gaps": (convolved_backward, [side_by_side, side_by_side], 2),
    "convolution's gradient, in the other order": (convolved_backward, [plain, channels_last], 1),
    "transformed": (transformed(2), [complex_numbers], 0),
    "transformed, over the middle": (transformed(1), [complex_numbers], 1),
    "transformed, over all but one": (transformed(1), [lambda: complex_numbers().reshape(32, -1, 1)], 0),
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
@pytest.mark.parametrize("name", factors(torch.float32))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_product_copies_what_it_cannot_read_as_it_lies(dtype: torch.dtype, name: str) -> None:
    if dtype == torch.bfloat16 and not COMPILES:
        pytest.skip("oneDNN does not multiply in bf16 here")
    left = factors(dtype)[name]()
    right = torch.ones(*left.shape[:-2], left.shape[-1], 8, dtype=dtype)
    copied = name in ALWAYS | (IN_BF16 if dtype == torch.bfloat16 else set())
    assert_copied(torch.matmul, [left, right], int(copied), first=lambda one: one)


def products() -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Small ones; such as have different kernels; and such as have those of the first of the latter."""

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.bfloat16)

    return {
        "small": [(ones(11, 13), ones(13, 17)), (ones(7, 3, 11), ones(7, 11, 13))],
        "different": [
            (ones(7, 37, 41), ones(7, 41, 43)),
            (ones(7, 37, 41), ones(7, 43, 41).mT),
            (ones(7, 41, 37).mT, ones(7, 41, 43)),
            (ones(8, 37, 41), ones(8, 41, 43)),
            (ones(137, 41), ones(41, 43)),
            (ones(137, 59)[:, :41], ones(41, 43)),
            (ones(41, 137).T, ones(41, 43)),
        ],
        # Copied into the order of the first, or read in it.
        "same": [
            (ones(7, 37, 59)[..., :41], ones(7, 41, 43)),
            (ones(7, 37, 41), ones(1, 41, 43).expand(7, -1, -1)),
            (ones(7, 59, 37)[:, :41].mT, ones(7, 41, 43)),
        ],
    }


def grown_by_products() -> dict[str, int]:
    """What this process has more after each, having multiplied another one before."""
    torch.ones(300, 300, dtype=torch.bfloat16) @ torch.ones(300, 300, dtype=torch.bfloat16)
    grown = {}
    for name, pairs in products().items():
        before = anonymous_bytes()
        for left, right in pairs:
            left @ right
        grown[name] = anonymous_bytes() - before
    return grown


@pytest.mark.skipif(sys.platform != "linux" or not COMPILES, reason="oneDNN does not multiply in bf16 here")
def test_a_kernel_is_compiled_for_what_lies_in_another_way_or_has_another_shape() -> None:
    said = {}
    with _Noting() as noting:
        torch.ones(2, 2) @ torch.ones(2, 2)
        for name, pairs in products().items():
            before = noting.scratch.kept_bytes
            for left, right in pairs:
                left @ right
            said[name] = noting.scratch.kept_bytes - before
    grown = in_a_process_of_its_own("grown_by_products()")
    assert grown["small"] == pytest.approx(said["small"], abs=100e3)
    assert grown["different"] == pytest.approx(said["different"], rel=0.2)
    assert grown["same"] == pytest.approx(said["same"], abs=100e3)
    assert said["different"] > 0


def grown_by_tensors(numbers: int) -> int:
    """What this process has more for 400 tensors of so many float32 numbers."""
    scale_for(torch.device("cpu"))
    before = anonymous_bytes()
    kept = [torch.ones(numbers) for _ in range(400)]
    grown = anonymous_bytes() - before
    del kept
    return grown


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what of a process is no file")
@pytest.mark.parametrize("numbers", [15_000, 17_000, 25_001])
def test_a_large_tensor_takes_whole_pages_and_a_small_one_its_bytes(numbers: int) -> None:
    grown = in_a_process_of_its_own(f"grown_by_tensors({numbers})")
    assert grown == pytest.approx(400 * Scratch().held(4 * numbers), rel=0.02)


def in_a_process_of_its_own(call: str) -> Any:
    """What a function of this file says where nothing was done before, whose memory could be had again."""
    code = f"import json, test_scratch; print(json.dumps(test_scratch.{call}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_doubt_is_a_third_of_the_kernels_beside_half_of_what_a_process_keeps_and_all_that_is_convolved() -> None:
    scratch = Scratch()
    assert scratch.kept_bytes == scratch.doubt_bytes == 0
    scratch.within(aten.mm.default, (torch.ones(2, 2), torch.ones(2, 2)), None)
    process = scratch.kept_bytes
    assert scratch.doubt_bytes == process / 2 > 0
    factors = torch.ones(32, 32, dtype=torch.bfloat16), torch.ones(32, 32, dtype=torch.bfloat16)
    scratch.within(aten.mm.default, factors, None)
    kernels = scratch.kept_bytes - process
    beside = ((process / 2) ** 2 + (kernels / 3) ** 2) ** 0.5
    assert scratch.doubt_bytes == pytest.approx(beside)
    for side in (16, 8):
        maps = torch.ones(2, 3, side, side)
        scratch.within(aten.convolution.default, (maps, torch.ones(3, 1, 3, 3)), None)
    assert scratch.doubt_bytes == pytest.approx(beside + 4 * 2 * 3 * 16 * 16)


def test_nothing_is_known_of_another_device() -> None:
    scratch = Scratch()
    factors = torch.ones(32, 32, dtype=torch.bfloat16, device="meta"), torch.ones(16, 32, 32, device="meta").mT[0]
    assert scratch.within(aten.mm.default, factors, None) == 0
    assert scratch.kept_bytes == scratch.doubt_bytes == 0


def anonymous_bytes() -> int:
    """What of this process is no file."""
    gc.collect()
    trim()
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024


def assert_copied(
    operation: Callable[..., Any],
    inputs: list[Tensor],
    copies: int,
    *,
    first: Callable[[Tensor], Tensor] = lambda one: one[:1],
) -> None:
    scale = scale_for(torch.device("cpu"))
    # What is read in the first time is no scratch.
    operation(*map(first, inputs))
    before = emptied(scale)
    made = operation(*inputs)
    taken = scale.peak() - before - sum(one.untyped_storage().nbytes() for one in tensors_in((made,)))
    with _Noting() as noting:
        operation(*inputs)
    assert noting.most == copies * BYTES
    assert taken == pytest.approx(noting.most, abs=SOME)
