"""OAuth 1.0a (RFC 5849) as the service demands it of whoever opens a session: HMAC-SHA1 over the request."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_PARAMETER: Final = re.compile(r'\s*([A-Za-z0-9_.~%-]+)="([^"]*)"\s*')
_REQUIRED: Final = frozenset(
    {"oauth_consumer_key", "oauth_nonce", "oauth_signature", "oauth_signature_method", "oauth_timestamp", "oauth_token"}
)
_OPTIONAL: Final = frozenset({"oauth_version", "realm"})
_CLOCK_SECONDS: Final = 600


class OAuthError(Exception):
    """The request is not signed as it has to be. ``status`` and ``problem`` are what Apple answers."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Token:
    """What the portal gave a server: who may open sessions, and until when (seconds)."""

    consumer_key: str
    consumer_secret: str
    access_token: str
    access_secret: str
    expires_at: float


class Verifier:
    """Checks signatures, and lets no nonce pass twice."""

    def __init__(self) -> None:
        self._nonces: set[tuple[str, str, str]] = set()

    def verify(self, method: str, url: str, authorization: str | None, tokens: Mapping[str, Token]) -> Token:
        """Return the token that signed the request; ``tokens`` are by access token. Raises :class:`OAuthError`."""
        parameters = _parameters(authorization)
        token = tokens.get(parameters["oauth_token"])
        if token is None:
            raise OAuthError(HTTPStatus.UNAUTHORIZED, "token_rejected")
        if token.consumer_key != parameters["oauth_consumer_key"]:
            raise OAuthError(HTTPStatus.UNAUTHORIZED, "consumer_key_unknown")
        expected = _signature(method, url, parameters, token)
        if not hmac.compare_digest(expected, parameters["oauth_signature"]):
            raise OAuthError(HTTPStatus.UNAUTHORIZED, "signature_invalid")
        if not parameters["oauth_timestamp"].isdigit():
            raise OAuthError(HTTPStatus.BAD_REQUEST, "timestamp_refused")
        if abs(int(parameters["oauth_timestamp"]) - time.time()) > _CLOCK_SECONDS:
            raise OAuthError(HTTPStatus.UNAUTHORIZED, "timestamp_refused")
        nonce = (token.access_token, parameters["oauth_timestamp"], parameters["oauth_nonce"])
        if nonce in self._nonces:
            raise OAuthError(HTTPStatus.UNAUTHORIZED, "nonce_used")
        self._nonces.add(nonce)
        if token.expires_at <= time.time():
            raise OAuthError(HTTPStatus.UNAUTHORIZED, "token_expired")
        return token


def _parameters(authorization: str | None) -> dict[str, str]:
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() != "oauth":
        raise OAuthError(HTTPStatus.BAD_REQUEST, "parameter_absent")
    parameters: dict[str, str] = {}
    for part in rest.split(","):
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise OAuthError(HTTPStatus.BAD_REQUEST, "parameter_rejected")
        name, value = unquote(match[1]), unquote(match[2])
        if name in parameters:
            raise OAuthError(HTTPStatus.BAD_REQUEST, "parameter_rejected")
        parameters[name] = value
    if _REQUIRED - parameters.keys():
        raise OAuthError(HTTPStatus.BAD_REQUEST, "parameter_absent")
    if parameters.keys() - _REQUIRED - _OPTIONAL or parameters.get("oauth_version", "1.0") != "1.0":
        raise OAuthError(HTTPStatus.BAD_REQUEST, "parameter_rejected")
    if parameters["oauth_signature_method"] != "HMAC-SHA1":
        raise OAuthError(HTTPStatus.BAD_REQUEST, "signature_method_rejected")
    return parameters


def _signature(method: str, url: str, parameters: Mapping[str, str], token: Token) -> str:
    parts = urlsplit(url)
    signed = parse_qsl(parts.query, keep_blank_values=True) + [
        (name, value) for name, value in parameters.items() if name not in {"realm", "oauth_signature"}
    ]
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in signed)
    normalized = "&".join("=".join(pair) for pair in pairs)
    base = "&".join(
        _encoded(part) for part in (method.upper(), f"{parts.scheme}://{parts.netloc}{parts.path}", normalized)
    )
    key = f"{_encoded(token.consumer_secret)}&{_encoded(token.access_secret)}"
    return base64.b64encode(hmac.digest(key.encode(), base.encode(), hashlib.sha1)).decode()


def _encoded(text: str) -> str:
    return quote(text, safe="-._~")
