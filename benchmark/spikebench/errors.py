"""The error that is shown to a person as one line, without a traceback."""


class UserError(Exception):
    """Something asked for is wrong or missing; the message says what, where and what to do."""
