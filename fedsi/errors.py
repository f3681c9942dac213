"""Errors whose message is for a person."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what is wrong, where, what was expected, what to do. The command
    line prints it alone and exits with 2.
    """


class DamagedError(UserError):
    """A file that fedsi wrote is not what was written.

    Unlike a client's own failure it ends the run: results that rest on it would be wrong.
    """


class UnfinishedError(Exception):
    """Something could not be finished, though what the user gave may be right.

    The message is one sentence, which the command line prints alone; it exits with 1.
    """
