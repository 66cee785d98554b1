"""Logging: a fixed phrase and fields of an allow-list, never a body, a token, a PIN or a key."""

from pathlib import PurePath
from traceback import extract_tb
from typing import Final

from aws_lambda_powertools import Logger

logger: Final = Logger()
"""Structured JSON on stdout; level and service name come from the ``POWERTOOLS_*`` variables of the template."""


def log_unforeseen(phrase: str, error: BaseException) -> None:
    """Log an error that nobody foresaw: what it is and where, not what it says.

    Its message may quote what it choked on: a payload, a token.
    """
    frames = [f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
    logger.error(phrase, error=type(error).__name__, at=frames[-8:])
