"""Errors whose message is for a person."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what is wrong, where, what was expected, what to do. The command
    line prints it alone and exits with 2.
    """


class UnfinishedError(Exception):
    """Something could not be finished, though what the user gave may be right.

    The message is one sentence, which the command line prints alone; it exits with 1.
    """
