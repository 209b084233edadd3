"""Surroundings: the model around an attention, by its options, less what only repeats the attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saccade.record import Record

_DECODER = "decoder_attention"


def options_around(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The options of each record's model; without the decoder's attention where it is the encoder's in all of them."""
    follows = all(map(decoder_follows, records))
    return [
        {name: value for name, value in one.model_options.items() if not (follows and name == _DECODER)}
        for one in records
    ]


def decoder_follows(record: Record) -> bool:
    """Whether a decoder, where there is one, has the attention of its encoder."""
    return record.model_options.get(_DECODER) in (None, record.attention)
