"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake or a condition the user can act on.

    The message is a single line that says what is wrong, where, and what to do. The command line prints it without
    a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
