"""What every test starts from: shapes are checked, one thread, and no setting of the machine leaks in."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# pytest-xdist sets it; what is printed into a pipe would be as narrow.
os.environ.pop("COLUMNS", None)

import pytest
from jaxtyping import install_import_hook

# Every annotated shape is checked at every call. torch.compile cannot look through the checks: tests that compile use a
# process of their own.
install_import_hook("saccade", "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Decoded pictures of one test are no other test's."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
