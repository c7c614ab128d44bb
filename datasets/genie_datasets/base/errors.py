"""The one exception for mistakes that a user can make and fix."""


class UserError(Exception):
    """A problem with the user's input, in one line: what is wrong and where, what is expected, what to do.

    The command line prints it without a traceback and exits with status 2. Users of the library can catch it.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def first_line(error: Exception) -> str:
    """The first line of an exception's message, shortened, to quote in a UserError."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
