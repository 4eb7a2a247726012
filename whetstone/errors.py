"""The one exception that a user's mistake raises; stages print its message without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input. The message says what is wrong, where (file, row, key), the number that caused it, and what to do."""
