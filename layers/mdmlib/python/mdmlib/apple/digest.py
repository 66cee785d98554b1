"""Digest authentication of network users, as UserAuthenticate does it.

The challenge and the response have the form of HTTP's digest access authentication (RFC 7616, section 3; without
``qop`` as in RFC 2069), but travel in plists. Apple's page:
https://developer.apple.com/documentation/devicemanagement/enabling-network-and-mobile-user-logins.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, Self

from mdmlib.errors import MalformedBodyError

_PARAMETER: Final = re.compile(r'\s*([A-Za-z]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))\s*(?:,|$)')
_ESCAPED: Final = re.compile(r"\\(.)")
_SCHEME: Final = "digest "
_MAX_PARAMETERS: Final = 16

# A digest is over the method of a request, and Apple does not say which one a Mac puts in where there is none: PUT is
# how the message comes. It is a constant of the computation, so taking several gives nothing away.
_METHODS: Final = ("PUT", "POST", "GET")


def challenge(*, realm: str, nonce: str) -> str:
    """Return a ``DigestChallenge``; neither value may hold a quotation mark or a backslash."""
    return f'Digest nonce="{nonce}",realm="{realm}"'


def password_digest(user: str, realm: str, password: str) -> str:
    """Return what the server keeps of a password (RFC 7616: H(A1)), 32 hex digits.

    Whoever has it can answer challenges as well as who has the password: it is as secret as that.
    """
    return _md5(f"{user}:{realm}:{password}")


@dataclass(frozen=True, kw_only=True)
class DigestResponse:
    """A ``DigestResponse``, taken apart. Nothing in it is proven."""

    user: str
    realm: str
    nonce: str
    uri: str
    response: str = field(repr=False)
    qop: str | None = None
    nonce_count: str = ""
    client_nonce: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a response. Raises :class:`~mdmlib.errors.MalformedBodyError` when it is none."""
        parameters = _parameters(text)
        try:
            return cls(
                user=parameters["username"],
                realm=parameters["realm"],
                nonce=parameters["nonce"],
                uri=parameters["uri"],
                response=parameters["response"].lower(),
                qop=parameters.get("qop"),
                nonce_count=parameters.get("nc", ""),
                client_nonce=parameters.get("cnonce", ""),
            )
        except KeyError:
            raise _malformed() from None

    def answers(self, digest: str) -> bool:
        """Say whether whoever responded has the password of this :func:`password_digest`."""
        middle = f"{self.nonce_count}:{self.client_nonce}:{self.qop}:" if self.qop else ""
        proven = False
        for method in _METHODS:
            expected = _md5(f"{digest}:{self.nonce}:{middle}{_md5(f'{method}:{self.uri}')}")
            proven |= hmac.compare_digest(expected.encode(), self.response.encode())
        return proven


def _parameters(text: str) -> dict[str, str]:
    if not text[: len(_SCHEME)].lower() == _SCHEME:
        raise _malformed()
    parameters: dict[str, str] = {}
    position = len(_SCHEME)
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None or match.end() == position or len(parameters) == _MAX_PARAMETERS:
            raise _malformed()
        name, quoted, token = match.groups()
        parameters[name.lower()] = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = match.end()
    return parameters


def _malformed() -> MalformedBodyError:
    return MalformedBodyError("The DigestResponse is none.", field="DigestResponse")


def _md5(text: str) -> str:
    # The protocol's digest: what a Mac computes with.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
