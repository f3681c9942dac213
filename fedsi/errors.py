"""The one exception that is a person's to mend."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what is wrong, where, what was expected, what to do. The command
    line prints it alone and exits with 2.
    """
