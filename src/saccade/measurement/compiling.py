"""Compiling: what is measured, by torch.compile where the terms ask for it, and what that took, told apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from saccade.measurement.clock import wait_for
from saccade.measurement.terms import Terms

Act = TypeVar("Act", bound=Callable[..., Any])


def compiled(act: Act, terms: Terms) -> Act:
    """The act as it is, or by torch.compile, for each shape by itself; it is compiled when it is first called."""
    if not terms.compile:
        return act
    import torch._inductor.config as inductor

    # Compiling begins from nothing, whoever compiled the same before, or its time would say nothing.
    inductor.force_disable_caches = True
    # A pool of compilers would outlive the compiling, and take memory and processors while rivals have their turns.
    inductor.compile_threads = 1
    made: Any = torch.compile(act, dynamic=False)
    return made


def first_call(act: Callable[[], None], device: torch.device) -> dict[str, Any]:
    """Calls what `compiled` made, which compiles it.

    Returns:
        `compile_seconds` (one run is among them) and `graph_breaks`, the places at which it goes back to Python; or
        `does_not_compile`, the reason.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._dynamo.utils import counters

    before, start = sum(counters["graph_break"].values()), time.perf_counter()
    try:
        act()
    except TorchDynamoException as error:
        first = (str(error).strip().splitlines() or ["no reason is given"])[0]
        return {"does_not_compile": f"{type(error).__name__}: {first}"}
    wait_for(device)
    return {
        "compile_seconds": round(time.perf_counter() - start, 3),
        "graph_breaks": sum(counters["graph_break"].values()) - before,
    }
