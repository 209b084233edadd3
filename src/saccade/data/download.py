"""Downloads of published data sets: checked by SHA-256, archives read member by member."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError

from saccade.data.cifar_binary import CIFAR10, CIFAR100, Layout
from saccade.data.lock import locked

SECONDS_WITHOUT_A_BYTE = 30
PIECE_BYTES = 1 << 20
LARGEST_MEMBER_BYTES = 1 << 30
MOST_MEMBERS = 100


@dataclass(frozen=True)
class Remote:
    """One file of a data set: its address, what it must hash to, and how long it is."""

    url: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[-1]


# The sums are those that TensorFlow Datasets and others publish for the files whose MD5 sums their authors give.
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_CIFAR = "https://www.cs.toronto.edu/~kriz"
REMOTES = {
    "mnist": (
        Remote(
            f"{_MNIST}/train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            9_912_422,
        ),
        Remote(
            f"{_MNIST}/train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            28_881,
        ),
        Remote(
            f"{_MNIST}/t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            1_648_877,
        ),
        Remote(
            f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            4_542,
        ),
    ),
    "fashion_mnist": (
        Remote(
            f"{_FASHION}/train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26_421_880,
        ),
        Remote(
            f"{_FASHION}/train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            29_515,
        ),
        Remote(
            f"{_FASHION}/t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4_422_102,
        ),
        Remote(
            f"{_FASHION}/t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            5_148,
        ),
    ),
    "cifar10": (
        Remote(
            f"{_CIFAR}/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    ),
    "cifar100": (
        Remote(
            f"{_CIFAR}/cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            168_513_733,
        ),
    ),
}
LAYOUTS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def downloaded(name: str, folder: Path) -> Path:
    """The folder with the files of a published data set, downloaded where they are not there yet.

    Args:
        name: one of `REMOTES`.
        folder: where downloads lie.

    Raises:
        ValueError: no network, or a file that is not what was published.
    """
    place, layout = folder / name, LAYOUTS.get(name)
    wanted = layout.files if layout else [remote.name for remote in REMOTES[name]]
    with locked(place):
        if all((place / file).is_file() for file in wanted):
            return place
        for remote in REMOTES[name]:
            if not (place / remote.name).is_file():
                fetch(remote, place, name)
        if layout:
            archive = place / REMOTES[name][0].name
            unpack(archive, layout, place)
            archive.unlink()
    return place


def fetch(remote: Remote, folder: Path, name: str) -> None:
    """Downloads one file, whole and true or not at all.

    Raises:
        ValueError: it cannot be had, or is another file.
    """
    try:
        with (
            urllib.request.urlopen(remote.url, timeout=SECONDS_WITHOUT_A_BYTE) as answer,
            _new(folder / remote.name) as file,
        ):
            found = _copied(answer.read, file, remote.size_bytes)
            if found != remote.sha256:
                raise ValueError(
                    f"{remote.url} is not the file that was published (SHA-256 {found[:12]}..., expected "
                    f"{remote.sha256[:12]}...): nothing was kept; give --data the path of a copy you trust"
                )
    # A full disk is none of these, and comes out as it is.
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        if isinstance(error, HTTPError):
            # It holds the connection.
            error.close()
        why = error.reason if type(error) is URLError else error
        raise ValueError(
            f"{name} could not be downloaded from {remote.url} ({why}): "
            "without a network give --data the path of a copy, or use --data digits"
        ) from error


def unpack(archive: Path, layout: Layout, folder: Path) -> None:
    """Takes the files of `layout` out of a .tar.gz; whatever else it holds is passed over.

    Only regular files under exactly the expected names are written, under those names, so a member called ../x, a link
    or a device can do nothing.

    Raises:
        ValueError: a damaged archive, missing files, or sizes beyond the limits.
    """
    wanted = {f"{layout.folder}/{name}": name for name in layout.files}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for number, member in enumerate(tar):
                if number >= MOST_MEMBERS or member.size > LARGEST_MEMBER_BYTES:
                    raise ValueError(
                        f"{archive}: more than {MOST_MEMBERS} members, or one above {LARGEST_MEMBER_BYTES:,} bytes"
                    )
                content = tar.extractfile(member) if member.isreg() and member.name in wanted else None
                if content:
                    with _new(folder / wanted.pop(member.name)) as file:
                        _copied(content.read, file, LARGEST_MEMBER_BYTES)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} is damaged ({error}): delete it, and it is downloaded again") from error
    if wanted:
        raise ValueError(f"{archive} is damaged: it lacks {', '.join(sorted(wanted))}")


def _copied(read: Callable[[int], bytes], target: BinaryIO, most_bytes: int) -> str:
    """Copies up to a little more than `most_bytes`, and returns the SHA-256 of what came."""
    digest, count = hashlib.sha256(), 0
    while count <= most_bytes and (piece := read(PIECE_BYTES)):
        count += len(piece)
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
