"""A data set is decoded once, and what is damaged is decoded again."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.data import cache, decoded
from saccade.data.cache import cache_folder
from saccade.data.sources import load_data
from saccade.errors import Failed

from .conftest import encoded, pixels


@pytest.fixture
def pets(folder_of):
    return str(folder_of({"cat": 20, "dog": 20}))


@pytest.fixture
def decodings(monkeypatch):
    """How many pictures were decoded."""
    done = []
    real = decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda *given: done.append(1) or real(*given))
    return done


def only_folder() -> Path:
    (folder,) = (one for one in (cache_folder() / "pictures").iterdir() if one.is_dir())
    return folder


def same(one, other):
    assert one.facts() == other.facts()
    for part in one.splits:
        assert torch.equal(one.splits[part].labels, other.splits[part].labels)
        for i in range(len(one.splits[part])):
            assert torch.equal(one.splits[part].images[i], other.splits[part].images[i])


def test_pictures_are_decoded_once(pets, decodings):
    first = load_data(pets, img_size=8)
    assert len(decodings) == 40
    same(load_data(pets, img_size=8), first)
    assert len(decodings) == 40


def test_splitting_and_limiting_need_no_new_decoding(pets, decodings):
    load_data(pets, img_size=8)
    load_data(pets, img_size=8, limit=10)
    load_data(pets, img_size=8, on_bad_image="skip")
    assert len(decodings) == 40


@pytest.mark.parametrize("change", [{"img_size": 4}, {"crop_pct": 0.5}, {"in_chans": 1}], ids=str)
def test_other_sizes_and_channels_are_decoded_apart(pets, decodings, change):
    first = load_data(pets, img_size=8)
    other = load_data(pets, **({"img_size": 8} | change))
    assert len(decodings) == 80
    assert first.fingerprint != other.fingerprint


def test_a_changed_picture_is_decoded_anew(pets, decodings):
    first = load_data(pets, img_size=8)
    (Path(pets) / "cat" / "0.png").write_bytes(encoded(pixels(999)))
    assert load_data(pets, img_size=8).fingerprint != first.fingerprint
    assert len(decodings) == 80


def test_equal_pictures_elsewhere_have_the_same_fingerprint(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "copy")
    assert load_data(str(tmp_path / "copy"), img_size=8).fingerprint == load_data(pets, img_size=8).fingerprint


def test_a_renamed_picture_changes_the_fingerprint(pets):
    first = load_data(pets, img_size=8)
    (Path(pets) / "cat" / "0.png").rename(Path(pets) / "cat" / "new.png")
    assert load_data(pets, img_size=8).fingerprint != first.fingerprint


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, cut, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", [cache.PIXELS, cache.TABLES, cache.FACTS])
def test_a_damaged_cache_is_found_and_made_anew(pets, decodings, damage, file):
    first = load_data(pets, img_size=8)
    damage(only_folder() / file)
    notes = []
    same(load_data(pets, img_size=8, note=notes.append), first)
    assert len(decodings) == 80
    assert "is damaged" in notes[0]
    same(load_data(pets, img_size=8), first)
    assert len(decodings) == 80


def test_facts_of_another_hand_are_refused(pets, decodings):
    load_data(pets, img_size=8)
    path = only_folder() / cache.FACTS
    written = json.loads(path.read_text())
    written["facts"]["channels"] = 1
    path.write_text(json.dumps(written))
    load_data(pets, img_size=8)
    assert len(decodings) == 80


def test_pixels_beyond_the_budget_are_mapped_and_equal(pets):
    held = load_data(pets, img_size=8)
    same(load_data(pets, img_size=8, memory_bytes=0), held)
    shutil.rmtree(only_folder())
    same(load_data(pets, img_size=8, memory_bytes=0), held)


def mapped_files() -> str:
    return Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_only_pixels_beyond_the_budget_are_mapped(pets):
    held = load_data(pets, img_size=8)
    assert cache.PIXELS not in mapped_files()
    mapped = load_data(pets, img_size=8, memory_bytes=100)
    assert str(only_folder() / cache.PIXELS) in mapped_files()
    del held, mapped


def test_a_cut_file_is_found_when_it_is_mapped_too(pets, decodings):
    first = load_data(pets, img_size=8)
    cut(only_folder() / cache.PIXELS)
    same(load_data(pets, img_size=8, memory_bytes=0), first)
    assert len(decodings) == 80


@pytest.fixture
def no_room(monkeypatch, tmp_path):
    """A cache folder that cannot be made."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "file" / "cache"))


def test_without_a_place_for_the_cache_pictures_are_decoded_each_time(pets, decodings, no_room):
    notes = []
    load_data(pets, img_size=8, note=notes.append)
    load_data(pets, img_size=8)
    assert len(decodings) == 80
    assert "could not be kept" in notes[-1] or "could not be kept" in notes[1]


def test_beyond_the_budget_a_place_is_needed(pets, no_room):
    with pytest.raises(Failed, match=r"take 7,680 bytes, more than the 100 .* SACCADE_CACHE"):
        load_data(pets, img_size=8, memory_bytes=100)


def test_a_full_disk_is_said_and_leaves_nothing(pets, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Failed, match="No space left on device"):
        load_data(pets, img_size=8, memory_bytes=100)
    assert [one.name for one in (cache_folder() / "pictures").iterdir() if one.is_dir()] == []


def test_a_disk_without_room_is_asked_before(pets, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(Failed, match="it has room for 5 bytes"):
        load_data(pets, img_size=8, memory_bytes=100)


def test_an_interrupted_decoding_leaves_nothing(pets, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoded, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_data(pets, img_size=8)
    assert [one.name for one in (cache_folder() / "pictures").iterdir() if one.is_dir()] == []


def test_what_a_killed_process_left_is_taken_away(pets):
    load_data(pets, img_size=8)
    folder = only_folder()
    left = folder.with_name(f".{folder.name}.1")
    folder.rename(left)
    load_data(pets, img_size=8)
    assert folder.exists()
    assert not left.exists()


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_CACHE", "/a")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("SACCADE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/b/saccade")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "saccade"


def test_those_who_ask_at_once_decode_once(pets, decodings):
    # The lock is the system's, between open files: threads stand for processes, which would each import torch.
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(load_data, pets, img_size=8) for _ in range(3)]
    assert len({one.result().fingerprint for one in asked}) == 1
    assert len(decodings) == 40


def test_pixels_in_the_cache_are_those_of_the_pictures(pets):
    data = load_data(pets, img_size=8)
    kept = np.fromfile(only_folder() / cache.PIXELS, np.uint8).reshape(40, 3, 8, 8)
    made = np.stack([pixels(sum(map(ord, name)) * 1000 + i) for name in ("cat", "dog") for i in range(20)])
    # Files come in the order of their names: 0, 1, 10, 11, ...
    order = sorted(range(20), key=lambda i: f"{i}.png")
    assert np.array_equal(kept, made[order + [20 + i for i in order]].transpose(0, 3, 1, 2))
    assert len(data.train) + len(data.validation) + len(data.test) == 40
