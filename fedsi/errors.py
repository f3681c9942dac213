"""Errors with a message for the user."""


class UserError(Exception):
    """An input of the user that cannot be used.

    The message is one sentence: what is wrong, where, what was expected, what to do. The command
    line prints it without a traceback and exits with code 2.
    """


class DamagedError(UserError):
    """A file that fedsi wrote and that has changed since.

    Unlike a client's own failure it ends the run, because results that depend on it would be wrong.
    """


class UnfinishedError(Exception):
    """Work that could not be finished, although the user's input may be correct.

    The message is one sentence. The command line prints it without a traceback and exits with code
    1.
    """
