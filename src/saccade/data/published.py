"""Published data sets that figures in papers stand on, and how a changed copy of one is told from the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class Published:
    """A published data set.

    Attributes:
        title: its name in papers.
        classes: how many there are; marks: three of their names, which no other set of so many classes has.
        images: how many there are, all parts together.
        attribution: whose pictures they are.
    """

    title: str
    classes: int
    marks: frozenset[str]
    images: int
    attribution: str


_KRIZHEVSKY = "Learning Multiple Layers of Features from Tiny Images, A. Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html"
PUBLISHED = {
    "cifar10": Published("CIFAR-10", 10, frozenset({"airplane", "automobile", "frog"}), 60_000, _KRIZHEVSKY),
    "cifar100": Published("CIFAR-100", 100, frozenset({"aquarium_fish", "skunk", "wardrobe"}), 60_000, _KRIZHEVSKY),
    "mnist": Published(
        "MNIST",
        10,
        # Digits have no names of their own: MNIST is known by its name alone.
        frozenset({"mnist"}),
        70_000,
        "The MNIST database of handwritten digits, Y. LeCun, C. Cortes and C. Burges, 1998, http://yann.lecun.com/exdb/mnist",
    ),
    "fashion_mnist": Published(
        "Fashion-MNIST",
        10,
        frozenset({"Ankle boot", "Sneaker", "Pullover"}),
        70_000,
        "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, 2017, https://arxiv.org/abs/1708.07747, MIT licence",
    ),
}


def known_by_classes(classes: tuple[str, ...]) -> Published | None:
    """The published data set that has these classes."""
    return next((one for one in PUBLISHED.values() if one.classes == len(classes) and one.marks <= set(classes)), None)


def change(known: Published, formats: Mapping[str, int], images: int) -> str | None:
    """How pictures with the classes of a published set differ from it, as far as it shows; None where it does not."""
    if lossy := formats.get("JPEG", 0):
        return (
            f"{lossy:,} pictures of {known.title} are JPEG files here and were not when they were published: "
            "a copy compressed anew, so results do not stand beside published figures"
        )
    if images != known.images:
        return (
            f"{images:,} pictures with the classes of {known.title}, which has {known.images:,}: "
            "results do not stand beside published figures"
        )
    return None
