"""Scratch: what memory tensors and operations take beside the values that a dispatcher sees, on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from saccade.attention.elsewhere import device_type
from saccade.measurement.memory.tensors import tensors_in

# As the weighing process has them (`allocator.return_freed`): larger tensors are mapped one by one, in whole pages,
# behind the C library's note of their size.
_MAPPED_FROM_BYTES = 64 * 1024
_PAGE_BYTES = 4096
_NOTE_BYTES = 64

# What Python, autograd's nodes and the libraries' first large products keep beside tensors, as the tensors of a small
# step on one image do not tell: 0.7 MB to 2.2 MB for 2 to 24 blocks in float32.
_PROCESS_BYTES = 1_500_000
_PROCESS_DOUBT = 1 / 2

_BATCHED = ("bmm", "baddbmm")
_PRODUCTS = ("mm", "addmm", *_BATCHED)

# Multiplications, of all matrices of a batch, up to which oneDNN is not asked (`mkldnn_gemm_min_size` in torch).
_FEW = 16**3

# Measured product by product in bf16, torch 2.13 with oneDNN for AVX-512: 524 KiB to 636 KiB for each of 251. A third
# more or less on other processors is to be expected.
_KERNEL_BYTES = 580_000
_KERNEL_DOUBT = 1 / 3

# Operations that copy arguments, by their place, whose values do not lie in order; seen on torch 2.13.
_COPIED = {
    "_softmax": (0,),
    "_log_softmax": (0,),
    "_softmax_backward_data": (0, 1),
}
# What goes in and what comes out, where they are not in the order that the former is nearest to, channels last or not.
_IN_ONE_ORDER = ("avg_pool2d", "avg_pool2d_backward")
# By MKL; the dimensions are their second argument.
_FOURIER = ("_fft_c2c", "_fft_c2r", "_fft_r2c")
_FUSED_BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"
# By oneDNN; what is given beside the weights, the input last of it.
_CONVOLUTIONS = {"convolution": 1, "convolution_backward": 2}
_NOTED = {*_PRODUCTS, *_COPIED, *_IN_ONE_ORDER, *_FOURIER, _FUSED_BACKWARD, *_CONVOLUTIONS}


class Scratch:
    """Bytes beside the tensors' own, as operations go by.

    oneDNN, which multiplies bf16 matrices on a CPU, compiles a kernel for every shape that it has not met, and keeps
    it, however small the product is. Some kernels copy arguments whose values do not lie in order, for as long as they
    run. What a convolution takes depends on its size and on the processor: its doubt is as large as its input.
    """

    def __init__(self) -> None:
        self._compiled: set[tuple[Any, ...]] = set()
        self._convolved_bytes = 0
        self._on_cpu = False

    @property
    def kept_bytes(self) -> int:
        """Kernels compiled so far, which stay: a second step finds all of them there from its start; and what of a
        process no tensor is."""
        return _KERNEL_BYTES * len(self._compiled) + _PROCESS_BYTES * self._on_cpu

    @property
    def doubt_bytes(self) -> float:
        """By how much all of it may be wrong."""
        compiled = _KERNEL_BYTES * len(self._compiled)
        process = _PROCESS_DOUBT * _PROCESS_BYTES * self._on_cpu
        # The two have nothing to do with each other.
        return math.hypot(_KERNEL_DOUBT * compiled, process) + self._convolved_bytes

    def held(self, size: int) -> int:
        """Memory that a storage of so many bytes takes: whole pages, where it is large."""
        if size < _MAPPED_FROM_BYTES:
            return size
        return -(-(size + _NOTE_BYTES) // _PAGE_BYTES) * _PAGE_BYTES

    def within(self, func: Callable[..., Any], args: tuple[Any, ...], made: Any) -> int:
        """Memory that this operation takes for as long as it runs."""
        name = _name(func)
        if name not in _NOTED:
            return 0
        given = tensors_in(args)
        if device_type(given[0].device) != "cpu":
            return 0
        self._on_cpu = True
        if name in _PRODUCTS:
            return self._multiplied_bytes(name, *given[-2:])
        if name in _CONVOLUTIONS:
            self._convolved_bytes = max(self._convolved_bytes, given[0].nbytes)
        return _copied_bytes(name, args, made)

    def _multiplied_bytes(self, name: str, left: Tensor, right: Tensor) -> int:
        """What a product copies, after its kernel is noted."""
        batched, compiled = name in _BATCHED, left.dtype == torch.bfloat16
        if batched and not compiled:
            return 0
        copied_bytes = 0
        kernel: list[Any] = [name]
        for factor in (left, right):
            order = _order_of(factor, gaps=not batched)
            copied_bytes += factor.nbytes if order is None else 0
            kernel.append((factor.shape, order or (factor.shape[-1], 1)))
        if compiled and left.numel() * right.shape[-1] > _FEW:
            self._compiled.add(tuple(kernel))
        return copied_bytes


@cache
def _name(func: Callable[..., Any]) -> str:
    return str(getattr(func, "overloadpacket", func).__name__)


def _copied_bytes(name: str, args: tuple[Any, ...], made: Any) -> int:
    """What an operation copies of its arguments, or of what it made."""
    if name in _FOURIER:
        return _transformed_bytes(name, args[0], args[1])
    if name == _FUSED_BACKWARD:
        # It goes through the gradient token by token, all heads of one after the other.
        return 0 if args[0].transpose(1, 2).is_contiguous() else int(args[0].nbytes)
    if name in _CONVOLUTIONS:
        maps = args[: _CONVOLUTIONS[name]]
        order = suggest_memory_format(maps[-1])
        return sum(one.nbytes for one in maps if not one.is_contiguous(memory_format=order))
    if name in _IN_ONE_ORDER:
        order = suggest_memory_format(args[0])
        return sum(one.nbytes for one in (args[0], made) if not one.is_contiguous(memory_format=order))
    return sum(args[place].nbytes for place in _COPIED.get(name, ()) if not args[place].is_contiguous())


def _transformed_bytes(name: str, x: Tensor, dims: Sequence[int]) -> int:
    """What a Fourier transform copies: MKL's goes over one batch dimension, into which all others must fit as they lie.

    Back to real numbers, all dimensions but the last are transformed first, into a tensor more, which is then copied.
    """
    if not torch.backends.mkl.is_available():
        return 0
    if name == "_fft_c2r" and len(dims) > 1:
        return 2 * x.nbytes
    others = [dim for dim in range(x.ndim) if dim not in dims and x.shape[dim] > 1]
    others.sort(key=x.stride, reverse=True)
    fits = all(x.stride(outer) == x.stride(inner) * x.shape[inner] for outer, inner in pairwise(others))
    return 0 if fits else x.nbytes


def _order_of(factor: Tensor, *, gaps: bool) -> tuple[int, int] | None:
    """From row to row and from column to column, as a product reads a factor; None where it puts it in order first.

    Args:
        factor: a matrix or a batch of them.
        gaps: it reads over gaps between rows, or columns, too.
    """
    # By numbers alone: asked of a tensor without values, a transpose is an operation.
    *batch, rows, columns = factor.shape
    *outer, down, right = factor.stride()
    if _is_dense((*batch, rows, columns), (*outer, down, right)):
        return columns, 1
    if _is_dense((*batch, columns, rows), (*outer, right, down)):
        return 1, rows
    return (down, right) if gaps and 1 in (down, right) else None


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether values lie one after the other, the last dimension's first."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
