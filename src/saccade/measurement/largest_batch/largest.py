"""The largest batch: a search on predictions, which need no run, and one by trying."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

# Nobody trains on more images at a time; it ends the search where bytes hardly grow with the batch.
MOST = 2**20

# Beyond where the optimiser's step is the peak.
FIRST = 64

# Some layers work a few images at a time, so that a prediction takes the longer the more there are. Where so many
# images are most of the peak, nothing else can become it, and the line goes on.
FAR = 4096

# Straight lines find the answer within a few; whatever is more crooked is halved.
_LINES = 12


@dataclass(frozen=True)
class Line:
    """A prediction.

    Attributes:
        batch_size: for which it was made.
        at_bytes: needed there.
        bytes_per_image: of it, those that go with the images.
    """

    batch_size: int
    at_bytes: int
    bytes_per_image: int | float

    def at(self, batch_size: int) -> int | float:
        """Bytes for another batch, if nothing else becomes the peak."""
        return self.at_bytes + (batch_size - self.batch_size) * self.bytes_per_image

    def reaches(self, allowed_bytes: int) -> int:
        """The last batch below so many bytes."""
        if self.bytes_per_image <= 0:
            return MOST
        return self.batch_size + int((allowed_bytes - self.at_bytes) // self.bytes_per_image)


@dataclass(frozen=True)
class Largest:
    """What a search on predictions has found.

    Attributes:
        batch_size: that fits, while one image more does not; 0 where not even one image fits.
        at_bytes: needed by it; None where nothing fits.
        next_bytes: needed with one image more; None at `MOST`.
        bytes_per_image: of the batch, those that go with the images; None where nothing fits.
    """

    batch_size: int
    at_bytes: int | None
    next_bytes: int | None
    bytes_per_image: int | None


def largest(predict: Callable[[int], Line], allowed_bytes: int, near: int = FIRST) -> Largest:
    """Finds the largest batch by a few predictions.

    The peak is the highest of several lines in the batch: of a training step, of the optimiser's step, with
    checkpointing of each block. A prediction says which line it is on, and that one is followed to the allowed bytes;
    where another one is higher there, that one. Two predictions on one line are enough: between them nothing is higher,
    and one image more is above the line or on it. From `FAR` images on the line is followed without a prediction.

    Args:
        predict: of a batch size; is asked once for each.
        allowed_bytes: that may be needed.
        near: where to begin; the nearer, the fewer predictions.
    """
    known: dict[int, Line] = {}
    fits, fails, guess = 0, MOST + 1, near
    while fails - fits > 1:
        if fits == FAR:
            return _beyond(known.get(FAR // 2) or predict(FAR // 2), known[FAR], allowed_bytes)
        if fits and (line := _through(known, fits)) and line.at(fits + 1) > allowed_bytes:
            return _on(line, fits)
        guess = min(max(guess, fits + 1), fails - 1, FAR)
        line = known[guess] = predict(guess)
        if line.at_bytes <= allowed_bytes:
            fits = guess
        else:
            fails = guess
        guess = line.reaches(allowed_bytes) if len(known) < _LINES else (fits + fails) // 2
    if not fits:
        return Largest(0, None, known[1].at_bytes, None)
    return replace(_on(known[fits], fits), next_bytes=known[fails].at_bytes if fails in known else None)


def settle(fits: Callable[[int], bool], near: int) -> int:
    """Finds the largest batch by trying, from where it is expected: if that is right, by two tries.

    From there it goes one step, then by a hundredth, and ever further until the answer changes; then it halves.

    Args:
        fits: whether a batch does; is asked once for each.
        near: where to begin.

    Returns:
        What fits, while one image more does not; 0 where not even one image fits.
    """
    low, high = 0, MOST + 1
    batch, step, further = max(1, near), 1, max(1, near // 100)
    while high - low > 1:
        if fits(batch):
            low = batch
        else:
            high = batch
        if low and high <= MOST:
            batch = (low + high) // 2
        else:
            batch = min(low + step, MOST) if low else max(high - step, 1)
            step, further = further, 2 * further
    return low


def _through(known: Mapping[int, Line], batch_size: int) -> Line | None:
    """The line through a prediction and another one that is on it; None where none is."""
    own = known[batch_size]
    for other in known.values():
        if other is not own and abs(other.at(batch_size) - own.at_bytes) < own.bytes_per_image / 2:
            return Line(batch_size, own.at_bytes, _rise(own, other))
    return None


def _beyond(near: Line, far: Line, allowed_bytes: int) -> Largest:
    """The answer on the line through two predictions; of one alone it is not known to the byte what an image takes."""
    line = Line(far.batch_size, far.at_bytes, _rise(near, far))
    return _on(line, min(line.reaches(allowed_bytes), MOST))


def _on(line: Line, batch_size: int) -> Largest:
    """A largest batch on a line."""
    at, more = round(line.at(batch_size)), round(line.at(batch_size + 1))
    return Largest(batch_size, at, None if batch_size == MOST else more, round(line.bytes_per_image))


def _rise(one: Line, other: Line) -> float:
    return (other.at_bytes - one.at_bytes) / (other.batch_size - one.batch_size)
