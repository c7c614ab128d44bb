"""The one exception for mistakes that a user can make and mend."""


class UserError(Exception):
    """A problem with the user's input: one line that says what, where and what to do.

    The command line prints it without a traceback and exits with status 2; library users can catch it.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))
