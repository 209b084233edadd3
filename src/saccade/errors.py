"""The ways a command ends without a traceback, each with its exit code; a user's mistake is a ValueError."""


class Busy(ValueError):  # noqa: N818
    """Another process is at work on what was asked for: it is to be waited for, and nothing of it to be touched."""


class Failed(RuntimeError):  # noqa: N818
    """Something outside saccade failed (a full disk, a worker that was killed); the message says what is kept."""

    exit_code = 1


class Diverged(RuntimeError):  # noqa: N818
    """A loss or a gradient is not finite; the message names the step and the first bad layer."""

    exit_code = 3
