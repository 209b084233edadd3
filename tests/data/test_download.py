"""Downloads: whole and true or not at all; hostile archives write nothing."""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from saccade.data import download
from saccade.data.cache import cache_folder
from saccade.data.cifar_binary import CIFAR10
from saccade.data.download import REMOTES, Remote, downloaded, fetch, unpack
from saccade.data.sources import load_data

from .test_cifar_binary import write as write_cifar
from .test_idx import IMAGES, LABELS, idx


def remote(path):
    content = path.read_bytes()
    return Remote(path.as_uri(), hashlib.sha256(content).hexdigest(), len(content))


def archive(path, members):
    """A .tar.gz of (name, content or a TarInfo's changes)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(member, key, value)
                tar.addfile(member)
    return path


@pytest.fixture
def cifar_members(tmp_path):
    folder = write_cifar(tmp_path / "made", CIFAR10, count=20)
    return [(f"{CIFAR10.folder}/{name}", (folder / name).read_bytes()) for name in CIFAR10.files]


def test_cifar_is_downloaded_by_name_and_once(tmp_path, cifar_members, monkeypatch):
    source = archive(tmp_path / "cifar-10-binary.tar.gz", [(CIFAR10.folder, {"type": tarfile.DIRTYPE}), *cifar_members])
    monkeypatch.setitem(REMOTES, "cifar10", (remote(source),))
    first = load_data("cifar10", img_size=32)
    source.unlink()
    assert load_data("cifar10", img_size=32).fingerprint == first.fingerprint
    assert not list(cache_folder().rglob("*.tar.gz"))
    assert first.facts()["images"] == {"train": 90, "validation": 10, "test": 20}
    assert "Krizhevsky" in first.attribution


@pytest.mark.parametrize(("name", "first"), [("mnist", "0"), ("fashion_mnist", "T-shirt/top")])
def test_mnist_and_fashion_mnist_are_downloaded_by_name(tmp_path, monkeypatch, name, first):
    remotes = []
    for file, array in (
        ("train-images-idx3-ubyte.gz", IMAGES),
        ("train-labels-idx1-ubyte.gz", LABELS),
        ("t10k-images-idx3-ubyte.gz", IMAGES[:6]),
        ("t10k-labels-idx1-ubyte.gz", LABELS[:6]),
    ):
        (tmp_path / file).write_bytes(gzip.compress(idx(array)))
        remotes.append(remote(tmp_path / file))
    monkeypatch.setitem(REMOTES, name, tuple(remotes))
    data = load_data(name, img_size=(6, 5))
    assert data.classes[0] == first
    assert data.facts()["images"] == {"train": 18, "validation": 2, "test": 6}


def test_files_come_over_http(tmp_path):
    content = b"a file" * 1000

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/there" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            fetch(Remote(f"{url}/there", hashlib.sha256(content).hexdigest(), len(content)), tmp_path, "mnist")
            with pytest.raises(ValueError, match="404"):
                fetch(Remote(f"{url}/gone", "", 1), tmp_path, "mnist")
        finally:
            server.shutdown()
            thread.join()
    assert (tmp_path / "there").read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["there"]


def test_without_a_network_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(REMOTES, "cifar10", (Remote("http://127.0.0.1:9/cifar.tar.gz", "", 1),))
    with pytest.raises(
        ValueError, match=r"cifar10 could not be downloaded .* give --data the path of a copy"
    ) as caught:
        load_data("cifar10", img_size=32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"another file", b"right" * 1000], ids=["other", "longer"])
def test_another_file_than_published_is_not_kept(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    expected = Remote((tmp_path / "file").as_uri(), hashlib.sha256(b"right").hexdigest(), 5)
    with pytest.raises(ValueError, match="is not the file that was published"):
        fetch(expected, tmp_path / "kept", "mnist")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_download_reads_little_more_than_the_published_size(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PIECE_BYTES", 1000)
    read = []

    def endless(size):
        read.append(size)
        return bytes(size)

    with (tmp_path / "file").open("wb") as file:
        download._copied(endless, file, 5000)
    assert sum(read) <= 6000


def test_hostile_members_write_nothing(tmp_path, cifar_members):
    inside = CIFAR10.folder
    hostile = [
        ("../escaped.bin", b"x"),
        (f"{inside}/../../escaped.bin", b"x"),
        (str(tmp_path / "escaped.bin"), b"x"),
        (f"{inside}/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        (f"{inside}/hard", {"type": tarfile.LNKTYPE, "linkname": "../../escaped.bin"}),
        (f"{inside}/device", {"type": tarfile.CHRTYPE}),
        (f"{inside}/pipe", {"type": tarfile.FIFOTYPE}),
        (f"{inside}/readme.html", b"<html>"),
        (f"./{inside}/test_batch.bin", b"x"),
        ("test_batch.bin", b"x"),
        (f"{inside}/data_batch_1.bin\n", b"x"),
        (f"{inside}/data_batch_1.bin", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    ]
    for number, member in enumerate(hostile):
        folder = tmp_path / f"run{number}" / "data"
        unpack(archive(tmp_path / "all.tar.gz", [member, *cifar_members]), CIFAR10, folder)
        assert sorted(file.name for file in folder.iterdir()) == sorted(CIFAR10.files)
        assert all(not file.is_symlink() for file in folder.iterdir())
        assert [one.name for one in folder.parent.iterdir()] == ["data"]
    assert not list(tmp_path.glob("**/escaped.bin"))


def test_archives_beyond_the_limits_are_refused(tmp_path, cifar_members, monkeypatch):
    many = archive(tmp_path / "many.tar.gz", [(f"file{number}", b"") for number in range(101)])
    with pytest.raises(ValueError, match="more than 100 members"):
        unpack(many, CIFAR10, tmp_path / "data")
    monkeypatch.setattr(download, "LARGEST_MEMBER_BYTES", 50_000)
    with pytest.raises(ValueError, match="above 50,000 bytes"):
        unpack(archive(tmp_path / "large.tar.gz", cifar_members), CIFAR10, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_damaged_and_incomplete_archives_are_refused(tmp_path, cifar_members):
    whole = archive(tmp_path / "whole.tar.gz", cifar_members).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        unpack(tmp_path / "cut.tar.gz", CIFAR10, tmp_path / "data")
    with pytest.raises(ValueError, match=r"it lacks cifar-10-batches-bin/batches\.meta\.txt"):
        unpack(archive(tmp_path / "less.tar.gz", cifar_members[:-1]), CIFAR10, tmp_path / "other")


def test_every_published_file_has_a_sum_and_a_size():
    for name, remotes in REMOTES.items():
        for one in remotes:
            assert len(bytes.fromhex(one.sha256)) == 32
            assert one.size_bytes > 1000
            assert one.url.startswith("http"), name


def test_an_unknown_folder_of_downloads_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setitem(REMOTES, "mnist", (remote(tmp_path / "file"),))
    assert downloaded("mnist", tmp_path / "a" / "b") == tmp_path / "a" / "b" / "mnist"
