"""The exceptions that `main` prints as a sentence, without a traceback."""


class UserError(Exception):
    """Wrong input, config or environment.

    The message says what is wrong, where (file, row, column, config key), and what to do.
    """


class Preempted(Exception):
    """The run was asked to stop, has saved its state, and continues when it is started again."""
