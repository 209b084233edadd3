import json
import os

import pytest

from saccade.errors import Busy
from saccade.training.progress import Silent
from saccade.training.recipe import Recipe, recipe_from_toml, recipe_to_toml, with_values
from saccade.training.run import Run, default_folder, environment

COLUMNS = ("epoch", "train_loss", "eval_loss", "eval_top1", "lr")
RECIPE = Recipe()
ROW = {"epoch": 0, "train_loss": 2.5, "eval_loss": 2.25, "eval_top1": 10.0, "lr": 1e-3, "train_seconds": 1.5}


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def files(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_run_writes_what_users_of_timm_look_for(tmp_path):
    with Run(tmp_path / "runs" / "a", Silent()) as run:
        run.start(RECIPE, environment("cpu", 1), COLUMNS)
        run.epoch(ROW)
        run.finish({"test_top1_percent": 12.5})
    found = files(tmp_path / "runs" / "a")
    assert found["summary.csv"] == "epoch,train_loss,eval_loss,eval_top1,lr\n0,2.5,2.25,10.0,0.001\n"
    assert json.loads(found["metrics.jsonl"]) == ROW
    assert json.loads(found["result.json"]) == {"test_top1_percent": 12.5}
    assert recipe_from_toml(found["args.toml"]) == RECIPE
    assert json.loads(found["env.json"])["device"] == "cpu"


def test_what_was_said_before_the_start_is_in_the_log_too(tmp_path):
    heard = Heard()
    with Run(tmp_path, heard) as run:
        run.say("decoding")
        assert not any(tmp_path.iterdir())
        run.start(RECIPE, environment("cpu", 1), COLUMNS)
        run.say("training")
    assert heard.lines == ["decoding", "training"]
    assert files(tmp_path)["train.log"] == "decoding\ntraining\n"


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds another run's files, which stay; give a new folder"):
        Run(tmp_path, Silent())
    assert files(tmp_path) == {"mine.txt": "mine"}


def test_of_two_runs_that_start_in_one_folder_one_is_refused(tmp_path):
    with Run(tmp_path, Silent()) as first, Run(tmp_path, Silent()) as second:
        first.start(RECIPE, environment("cpu", 1), COLUMNS)
        with pytest.raises(ValueError, match="another run's files"):
            second.start(with_values(RECIPE, {"train.lr": 1.0}), environment("cpu", 1), COLUMNS)
    assert files(tmp_path)["args.toml"] == recipe_to_toml(RECIPE)


def test_a_run_that_was_killed_while_it_claimed_the_folder_leaves_it_free(tmp_path):
    """The half-written recipe lies under another name; it is no run to go on with, and none that is in the way."""
    (tmp_path / ".args.toml.k1ll3d").write_text("[mod")
    with pytest.raises(ValueError, match="there is no run in"):
        Run(tmp_path, Silent(), resume=True)
    with Run(tmp_path, Silent()) as run:
        run.start(RECIPE, environment("cpu", 1), COLUMNS)
    assert set(files(tmp_path)) == {"args.toml", "env.json", "summary.csv"}
    assert files(tmp_path)["args.toml"] == recipe_to_toml(RECIPE)


def test_the_recipe_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    """Whatever breaks before the last step of writing it, no args.toml is there."""
    seen = []

    def stop(*files):
        seen.extend(path.name for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, Run(tmp_path, Silent()) as run:
        patched.setattr(os, "link", stop)
        with pytest.raises(KeyboardInterrupt):
            run.start(RECIPE, environment("cpu", 1), COLUMNS)
    assert len(seen) == 1
    assert seen[0].startswith(".args.toml.")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output .*file/run: cannot be written \(Not a directory\); give a folder"):
        Run(tmp_path / "file" / "run", Silent())


def test_a_run_that_never_began_leaves_no_folder_that_it_made(tmp_path):
    with pytest.raises(ValueError, match="no such model"), Run(tmp_path / "new", Silent()):
        raise ValueError("no such model")
    (tmp_path / "old").mkdir()
    with Run(tmp_path / "old", Silent()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_run_without_a_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Run(None, Silent()) as run:
        run.start(RECIPE, environment("cpu", 1), COLUMNS)
        run.say("training")
        run.epoch(ROW)
        run.finish({})
        assert run.finished() is None
    assert not any(tmp_path.iterdir())


def test_default_folders_are_plain_names_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_folder("vit_nano_patch1_8", 'nystrom(landmarks=16, mode="a/b")', "/data/my set/", 3)
    assert first.parent.name == "runs"
    assert first.name.startswith("vit_nano_patch1_8-nystrom-landmarks=16-mode=-a-b-my-set-seed3-")
    first.mkdir(parents=True)
    second = default_folder("vit_nano_patch1_8", 'nystrom(landmarks=16, mode="a/b")', "/data/my set/", 3)
    assert second != first


@pytest.fixture
def begun(tmp_path):
    """A run that was begun and left."""
    with Run(tmp_path / "run", Silent()) as run:
        run.start(RECIPE, environment("cpu", 1), COLUMNS)
        for epoch in range(3):
            run.epoch(ROW | {"epoch": epoch})
    return tmp_path / "run"


def again(folder, recipe=RECIPE, threads=1):
    heard = Heard()
    with Run(folder, heard, resume=True) as run:
        run.start(recipe, environment("cpu", threads), COLUMNS)
    return heard.lines


def test_a_run_is_gone_on_with_by_the_same_recipe_only(begun):
    before = files(begun)
    changed = with_values(RECIPE, {"train.lr": 0.25, "model.options.depth": 3})
    with pytest.raises(
        ValueError,
        match=r"differs: train.lr is 0.001 there and 0.25 here; model.options.depth is None there and 3 here;",
    ):
        again(begun, changed)
    assert files(begun) == before
    assert again(begun) == []


def test_what_has_changed_on_the_machine_is_said_and_kept(begun):
    assert again(begun, threads=2) == ["note: threads was 1 and is 2: the last bits may differ"]
    written = json.loads(files(begun)["env.json"])
    assert written["threads"] == 1
    assert [one["threads"] for one in written["resumed"]] == [2]


def test_epochs_that_are_done_again_are_written_once(begun):
    with Run(begun, Silent(), resume=True) as run:
        run.start(RECIPE, environment("cpu", 1), COLUMNS)
        run.rewind([ROW])
        run.epoch(ROW | {"epoch": 1, "train_loss": 1.5})
    assert files(begun)["summary.csv"].splitlines() == [
        ",".join(COLUMNS),
        "0,2.5,2.25,10.0,0.001",
        "1,1.5,2.25,10.0,0.001",
    ]
    assert [json.loads(line)["epoch"] for line in files(begun)["metrics.jsonl"].splitlines()] == [0, 1]


def test_two_processes_do_not_go_on_with_one_run(begun):
    with Run(begun, Silent(), resume=True), pytest.raises(Busy, match="another process is at work on the run in"):
        again(begun)
    again(begun)


@pytest.mark.parametrize("folder", [None, "nothing", "empty"])
def test_where_there_is_no_run_there_is_nothing_to_go_on_with(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"--resume: .*--output"):
        Run(folder and tmp_path / folder, Silent(), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
