"""What a FLOP is: matrix products, convolutions and Fourier transforms, as torch's counter sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

# As torch's counter calls all together.
WHOLE = "Global"


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
    with torch.no_grad(), counting() as counter:
        run()
    return counter.get_total_flops()


@contextmanager
def counting(scope_of: Callable[[], str] = lambda: WHOLE) -> Iterator[FlopCounterMode]:
    """Counts what runs within, forward and backward; softmax attention by its products, two forward and four backward.

    Args:
        scope_of: names the place in the model that the present operation belongs to: the counter has the sum of each,
            and that of all as `WHOLE`.
    """
    counter = FlopCounterMode(display=False, custom_mapping={**_UNKNOWN_TO_TORCH, **_MISCOUNTED})
    vars(counter)["mod_tracker"] = _Places(scope_of)
    with sdpa_kernel(SDPBackend.MATH), counter:
        yield counter


class _Places(nullcontext[None]):
    """In place of torch's own tracker of modules, which fails where a backward pass runs another within it."""

    def __init__(self, scope_of: Callable[[], str]) -> None:
        super().__init__()
        self.scope_of = scope_of

    @property
    def parents(self) -> set[str]:
        """Under which names torch's counter adds up what it sees."""
        return {WHOLE, self.scope_of()}


def _fft(shape: torch.Size, dims: list[int], *_: object, out_shape: object, **__: object) -> int:
    return fft_flops(shape.numel(), [shape[dim] for dim in dims])


def _fft_of_real(shape: torch.Size, dims: list[int], *_: object, out_shape: object, **__: object) -> int:
    return fft_flops(shape.numel(), [shape[dim] for dim in dims], real=True)


def _fft_to_real(shape: object, dims: list[int], *_: object, out_shape: torch.Size, **__: object) -> int:
    return fft_flops(out_shape.numel(), [out_shape[dim] for dim in dims], real=True)


def _convolution_backward(
    gradient: torch.Size, x: torch.Size, weight: torch.Size, *options: Any, out_shape: object, **__: object
) -> int:
    """As much as forward for each gradient that is wanted."""
    _, _, _, _, transposed, _, _, wanted = options
    return sum(wanted[:2]) * conv_flop_count(list(x), list(weight), list(gradient), transposed)


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
# For the weights of a convolution in groups torch 2.13 counts those between different groups, too, which do not exist.
_MISCOUNTED: dict[Any, Callable[..., int]] = {_aten.convolution_backward: _convolution_backward}
