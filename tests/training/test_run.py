import json

import pytest

from saccade.training.progress import Silent
from saccade.training.run import Run, default_folder, environment

ROW = {"epoch": 0, "train_loss": 2.5, "eval_loss": 2.25, "eval_top1": 10.0, "lr": 1e-3, "train_seconds": 1.5}


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def files(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_run_writes_what_users_of_timm_look_for(tmp_path):
    run = Run(tmp_path / "runs" / "a", Silent())
    run.start("[train]\nlr = 0.001\n", environment("cpu", 1))
    run.epoch(ROW)
    run.finish({"test_top1_percent": 12.5})
    found = files(tmp_path / "runs" / "a")
    assert found["summary.csv"] == "epoch,train_loss,eval_loss,eval_top1,lr\n0,2.5,2.25,10.0,0.001\n"
    assert json.loads(found["metrics.jsonl"]) == ROW
    assert json.loads(found["result.json"]) == {"test_top1_percent": 12.5}
    assert found["args.toml"] == "[train]\nlr = 0.001\n"
    assert json.loads(found["env.json"])["device"] == "cpu"


def test_what_was_said_before_the_start_is_in_the_log_too(tmp_path):
    heard = Heard()
    run = Run(tmp_path, heard)
    run.say("decoding")
    assert not any(tmp_path.iterdir())
    run.start("", {})
    run.say("training")
    assert heard.lines == ["decoding", "training"]
    assert files(tmp_path)["train.log"] == "decoding\ntraining\n"


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds another run's files, which stay; give a new folder"):
        Run(tmp_path, Silent())
    assert files(tmp_path) == {"mine.txt": "mine"}


def test_of_two_runs_that_start_in_one_folder_one_is_refused(tmp_path):
    first, second = Run(tmp_path, Silent()), Run(tmp_path, Silent())
    first.start("first", {})
    with pytest.raises(ValueError, match="another run's files"):
        second.start("second", {})
    assert files(tmp_path)["args.toml"] == "first"


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output .*file/run: cannot be written \(Not a directory\); give a folder"):
        Run(tmp_path / "file" / "run", Silent())


def test_an_abandoned_run_leaves_no_folder_that_it_made(tmp_path):
    Run(tmp_path / "new", Silent()).abandon()
    (tmp_path / "old").mkdir()
    Run(tmp_path / "old", Silent()).abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_run_without_a_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(None, Silent())
    run.start("", {})
    run.say("training")
    run.epoch(ROW)
    run.finish({})
    run.abandon()
    assert not any(tmp_path.iterdir())


def test_default_folders_are_plain_names_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_folder("vit_nano_patch1_8", 'nystrom(landmarks=16, mode="a/b")', "/data/my set/", 3)
    assert first.parent.name == "runs"
    assert first.name.startswith("vit_nano_patch1_8-nystrom-landmarks=16-mode=-a-b-my-set-seed3-")
    first.mkdir(parents=True)
    second = default_folder("vit_nano_patch1_8", 'nystrom(landmarks=16, mode="a/b")', "/data/my set/", 3)
    assert second != first
