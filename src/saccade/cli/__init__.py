"""The command line: `saccade VERB`. One file for each family of verbs; what a verb needs is imported when it runs."""

from __future__ import annotations

import difflib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError, Group, UnknownCommandError

from saccade.cli.attentions import attentions
from saccade.cli.bench import bench
from saccade.cli.check import check
from saccade.cli.compare import compare
from saccade.cli.data import data
from saccade.cli.doctor import doctor
from saccade.cli.finetune import finetune
from saccade.cli.max_batch import max_batch
from saccade.cli.measure import models, summary
from saccade.cli.pretrain import pretrain
from saccade.cli.probe import probe
from saccade.cli.reconstruct import reconstruct
from saccade.cli.reproduce import reproduce
from saccade.cli.train import evaluate, recipes, train
from saccade.errors import Diverged, Failed

USER_MISTAKE = 2

_main_job = Group.create_ordered("The main job")
_train = Group.create_ordered("Train and evaluate")
_look = Group.create_ordered("Look and check")


def _version() -> str:
    from importlib.metadata import version

    return version("saccade")


app = App(
    name="saccade",
    help="Which attention should my Vision Transformer use? Builds the same model with each, trains it on your images, "
    "measures it on your machine, and answers.",
    help_epilogue="Begin with `saccade compare softmax linear nystrom --anyway`: minutes, on embedded digits.",
    version=_version,
    suppress_keyboard_interrupt=False,
)
app.command(compare, group=_main_job, help_epilogue="")
app.command(bench, group=_main_job, help_epilogue="")
app.command(max_batch, group=_main_job, help_epilogue="")
app.command(train, group=_train, help_epilogue="")
app.command(pretrain, group=_train, help_epilogue="")
app.command(finetune, group=_train, help_epilogue="")
app.command(probe, group=_train, help_epilogue="")
app.command(reconstruct, group=_train, help_epilogue="")
app.command(evaluate, group=_train, help_epilogue="")
app.command(recipes, group=_train, help_epilogue="")
app.command(data, group=_train, help_epilogue="")
app.command(attentions, group=_look, help_epilogue="")
app.command(models, group=_look, help_epilogue="")
app.command(summary, group=_look, help_epilogue="")
app.command(check, group=_look, help_epilogue="")
app.command(doctor, group=_look, help_epilogue="")
app.command(reproduce, group=_look, help_epilogue="")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one verb and exits: 0 done, 1 failed, 2 wrong input, 3 diverged, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code.

    A user's mistake is one sentence on stderr; with SACCADE_TRACEBACK=1 in the environment it is the traceback.
    """
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_int_as_exit_code_else_zero")
    except UnknownCommandError as error:
        return _say(_unknown_verb((error.unused_tokens or [""])[0]), USER_MISTAKE)
    except CycloptsError as error:
        return _say(_in_one_sentence(error), USER_MISTAKE)
    except BrokenPipeError:
        # Whoever read the output has seen enough, as in `saccade attentions | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        PermissionError,
        NotADirectoryError,
        IsADirectoryError,
    ) as error:
        if os.environ.get("SACCADE_TRACEBACK"):
            raise
        return _say(error, USER_MISTAKE)
    except OSError as error:
        return _say(error, Failed.exit_code)
    except (Failed, Diverged) as error:
        return _say(error, error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted; finished runs and epochs are kept", 128 + signal.SIGINT)


def _unknown_verb(verb: str) -> str:
    verbs = [name for name in app if not name.startswith("-")]
    near = difflib.get_close_matches(verb, verbs, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    what = "option" if verb.startswith("-") else "verb"
    return f"there is no {what} {verb!r}: {hint}known are the verbs {', '.join(verbs)}"


def _in_one_sentence(error: CycloptsError) -> str:
    """What cyclopts found, and where the options of that verb are listed."""
    said, verb = " ".join(str(error).split()), " ".join(("saccade", *(error.command_chain or ())))
    return f"{said[:1].lower()}{said[1:]} (`{verb} --help` says what it takes)"


def _say(what: object, code: int) -> int:
    sys.stderr.write(f"saccade: {what}\n")
    return code


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
