"""Headers that a customer wants with each delivery: an API gateway's key, a tenant's name."""

import re
from collections.abc import Mapping
from typing import Any, Final

from mdmlib.errors import BadRequestError

MAX_HEADERS: Final = 20
MAX_BYTES: Final = 4_096

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
# Visible ASCII, with blanks and tabs between: no line end, behind which another header, or a body, would begin.
_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")

# What a delivery says of itself, and what is for a connection and for who forwards it.
_OURS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_OUR_PREFIXES: Final = ("x-hmac-", "x-picomdm-", "proxy-", ":")


def checked_headers(asked: Mapping[str, Any]) -> dict[str, str]:
    """Return headers as they may be sent.

    Raises :class:`~mdmlib.errors.BadRequestError`; nothing in it tells a value, which may be a token.
    """
    if len(asked) > MAX_HEADERS:
        raise _refused(f"A webhook has at most {MAX_HEADERS} headers of its own.")
    seen: set[str] = set()
    for name, value in asked.items():
        folded = name.lower()
        if not _NAME.fullmatch(name):
            raise _refused(f"{name[:100]!r} is no name of a header.")
        if folded in _OURS or folded.startswith(_OUR_PREFIXES):
            raise _refused(f"{name} is set by PicoMDM itself.")
        if folded in seen:
            raise _refused(f"{name} is there twice, for case does not count.")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise _refused(f"The value of {name} has to be visible ASCII, in one line, with no blanks around it.")
        seen.add(folded)
    if sum(len(name) + len(value) for name, value in asked.items()) > MAX_BYTES:
        raise _refused(f"A webhook's headers have at most {MAX_BYTES} bytes together.")
    return {name: asked[name] for name in sorted(asked)}


def _refused(message: str) -> BadRequestError:
    return BadRequestError(message, field="headers")
