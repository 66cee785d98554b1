"""What Apple's device enrollment service calls the refusals that an administrator has to do something about."""

from typing import Final

TERMS_NOT_SIGNED: Final = "T_C_NOT_SIGNED"
TOKEN_REFUSED: Final = "TOKEN_REFUSED"  # noqa: S105 - a code
"""Ours: Apple lets nobody in with the token."""

FOR_EVERYTHING: Final = frozenset({TERMS_NOT_SIGNED, TOKEN_REFUSED})
"""They are for a server, whatever it was asked for."""
