"""saccade: which attention should my Vision Transformer use?

The names below are loaded when they are first used, so that the command line does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PLACES = {
    "Attention": "saccade.attention.base",
    "MaskedAutoencoder": "saccade.models.mae",
    "MultiHead": "saccade.attention.base",
    "Tokens": "saccade.attention.tokens",
    "Record": "saccade.record",
    "bench": "saccade.measurement",
    "compare": "saccade.comparison",
    "create_model": "saccade.models.sizes",
    "evaluate": "saccade.training.evaluate",
    "finetune": "saccade.training",
    "list_attentions": "saccade.attention",
    "list_models": "saccade.models.sizes",
    "load_data": "saccade.data.sources",
    "load_mae": "saccade.models.mae_weights",
    "load_model": "saccade.models.weights",
    "max_batch": "saccade.measurement.largest_batch.batch",
    "measure": "saccade.measurement",
    "probe": "saccade.training.probe",
    "pretrain": "saccade.training",
    "save_model": "saccade.models.weights",
    "train": "saccade.training",
    "transformers_state": "saccade.models.mae_weights",
}

__all__ = sorted(_PLACES)

if TYPE_CHECKING:
    from saccade.attention import list_attentions as list_attentions
    from saccade.attention.base import Attention as Attention
    from saccade.attention.base import MultiHead as MultiHead
    from saccade.attention.tokens import Tokens as Tokens
    from saccade.comparison import compare as compare
    from saccade.data.sources import load_data as load_data
    from saccade.measurement import bench as bench
    from saccade.measurement import measure as measure
    from saccade.measurement.largest_batch.batch import max_batch as max_batch
    from saccade.models.mae import MaskedAutoencoder as MaskedAutoencoder
    from saccade.models.mae_weights import load_mae as load_mae
    from saccade.models.mae_weights import transformers_state as transformers_state
    from saccade.models.sizes import create_model as create_model
    from saccade.models.sizes import list_models as list_models
    from saccade.models.weights import load_model as load_model
    from saccade.models.weights import save_model as save_model
    from saccade.record import Record as Record
    from saccade.training import finetune as finetune
    from saccade.training import pretrain as pretrain
    from saccade.training import train as train
    from saccade.training.evaluate import evaluate as evaluate
    from saccade.training.probe import probe as probe


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"saccade has no {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
