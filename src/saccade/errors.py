"""The ways a command ends without a traceback, each with its exit code; a user's mistake is a ValueError."""


class Failed(RuntimeError):  # noqa: N818
    """Something outside saccade failed (a full disk, a worker that was killed); the message says what is kept."""

    exit_code = 1


class Diverged(RuntimeError):  # noqa: N818
    """A loss or a gradient is not finite; the message names the step and the first bad layer."""

    exit_code = 3
