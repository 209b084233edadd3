"""What a FLOP is: matrix products, convolutions and Fourier transforms, as torch's counter sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def fft_flops(values: int, lengths: Sequence[int], *, real: bool = False) -> int:
    """5 n log2 n a complex transform, half of it where the input or the output is real.

    Args:
        values: all values of the transformed tensor.
        lengths: its sizes along the transformed dimensions; n is their product.
        real: real values go in, or come out.
    """
    return round(5 * values * math.log2(math.prod(lengths)) / (2 if real else 1))


def counted_flops(run: Callable[[], object]) -> int:
    """The FLOPs of what `run` does, forward only, as torch counts them; softmax attention as its two products."""
    counter = FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


def _fft(shape: torch.Size, dims: list[int], *_: object, out_shape: object, **__: object) -> int:
    return fft_flops(shape.numel(), [shape[dim] for dim in dims])


def _fft_of_real(shape: torch.Size, dims: list[int], *_: object, out_shape: object, **__: object) -> int:
    return fft_flops(shape.numel(), [shape[dim] for dim in dims], real=True)


def _fft_to_real(shape: object, dims: list[int], *_: object, out_shape: torch.Size, **__: object) -> int:
    return fft_flops(out_shape.numel(), [out_shape[dim] for dim in dims], real=True)


def _flash_on_cpu(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


_aten = torch.ops.aten
_UNKNOWN_TO_TORCH: dict[Any, Callable[..., int]] = {
    _aten._fft_c2c: _fft,
    _aten._fft_r2c: _fft_of_real,
    _aten._fft_c2r: _fft_to_real,
    # For a layer that chooses the kernel itself.
    _aten._scaled_dot_product_flash_attention_for_cpu: _flash_on_cpu,
}
