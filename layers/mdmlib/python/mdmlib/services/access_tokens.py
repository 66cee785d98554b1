"""Access tokens: JWTs (RFC 7519) by which an OpenID Connect issuer says who signed in.

The issuer's keys are fetched when they are first needed, kept for an hour, and looked for again when a token names one
that is not there, but not for everybody who makes up a token.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import jwt

from mdmlib.errors import BadRequestError, ForbiddenError, UnavailableError

if TYPE_CHECKING:
    from mdmlib.clients.signed_http import SignedHttpClient

MAX_TOKEN: Final = 8_192
"""Characters. API Gateway takes 10,240 bytes of headers."""

_DISCOVERY: Final = "/.well-known/openid-configuration"
# Others are symmetric, which nobody could keep from each other, or rare.
_ALGORITHMS: Final = {"RS256": "RSA", "ES256": "EC"}
_MAX_DOCUMENT_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 50
_KEEP: Final = timedelta(hours=1)
_LOOK_AGAIN_AFTER: Final = timedelta(minutes=1)
_LEEWAY: Final = timedelta(minutes=1)
"""For clocks that differ."""


@dataclass(frozen=True)
class Issuer:
    """What an issuer says of itself (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    jwks_url: str
    authorization_url: str | None
    token_url: str | None


class AccessTokens:
    """Verifies tokens."""

    def __init__(self, client: "Callable[[], SignedHttpClient]", *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._kept: dict[str, tuple[datetime, Sequence[jwt.PyJWK]]] = {}

    def discover(self, issuer: str) -> Issuer:
        """Ask an issuer where its keys are. Raises :class:`~mdmlib.errors.BadRequestError` when it is none."""
        try:
            document = self._fetch(issuer.rstrip("/") + _DISCOVERY)
        except UnavailableError as error:
            raise BadRequestError(
                f"The issuer does not say where its keys are ({_DISCOVERY}). {error.message}",
                code="issuer_unusable",
                field="issuer",
            ) from error
        texts = {
            name: value
            for name in ("issuer", "jwks_uri", "authorization_endpoint", "token_endpoint")
            if isinstance(value := document.get(name), str)
        }
        if texts.get("issuer") != issuer or "jwks_uri" not in texts:
            raise BadRequestError(
                "The issuer calls itself differently; take exactly what its openid-configuration has as issuer.",
                code="issuer_unusable",
                field="issuer",
            )
        return Issuer(issuer, texts["jwks_uri"], texts.get("authorization_endpoint"), texts.get("token_endpoint"))

    def verify(self, token: str, *, issuer: str, jwks_url: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        """Return the claims of a token that the issuer made for one of these audiences, and that has not expired.

        Raises :class:`~mdmlib.errors.ForbiddenError` for any other, without a word of it, and
        :class:`~mdmlib.errors.UnavailableError` when the issuer's keys cannot be had.
        """
        if len(token) > MAX_TOKEN:
            raise ForbiddenError("The access token is longer than any.", code="token_malformed")
        try:
            header = jwt.get_unverified_header(token)
            algorithm = str(header.get("alg"))
            if algorithm not in _ALGORITHMS:
                raise ForbiddenError(
                    "The access token is signed in a way that is not accepted.", code="token_algorithm"
                )
            claims: dict[str, Any] = jwt.decode(
                token,
                key=self._key(jwks_url, header.get("kid"), _ALGORITHMS[algorithm]),
                algorithms=[algorithm],
                audience=list(audiences),
                issuer=issuer,
                # The time is asked of our own clock, below.
                options={"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            self._check_time(claims)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise ForbiddenError(
                f"The access token is not one of the issuer's for this server: {type(error).__name__}.",
                code="token_refused",
            ) from None
        return claims

    def _check_time(self, claims: Mapping[str, Any]) -> None:
        now, leeway = self._now().timestamp(), _LEEWAY.total_seconds()
        expires_at, not_before = _time(claims["exp"]), _time(claims.get("nbf", 0))
        if now >= expires_at + leeway or now < not_before - leeway:
            raise ForbiddenError("The access token has expired, or is not valid yet.", code="token_expired")

    def _key(self, jwks_url: str, key_id: object, kind: str) -> jwt.PyJWK:
        for keep in (_KEEP, _LOOK_AGAIN_AFTER):
            found = [
                key
                for key in self._keys(jwks_url, keep=keep)
                if key.key_type == kind and (key_id is None or key.key_id == key_id)
            ]
            # A token that does not name its key is of the only one, or of nobody knows which.
            if len(found) == 1:
                return found[0]
        raise ForbiddenError("The access token is signed with none of the issuer's keys.", code="token_key_unknown")

    def _keys(self, jwks_url: str, *, keep: timedelta) -> Sequence[jwt.PyJWK]:
        now = self._now()
        kept = self._kept.get(jwks_url)
        if kept is None or now - kept[0] > keep:
            self._kept[jwks_url] = kept = now, _readable(self._fetch(jwks_url).get("keys"))
        return kept[1]

    def _fetch(self, url: str) -> Mapping[str, Any]:
        headers = {"Accept": "application/json"}
        body = self._client().send("GET", url, b"", headers=headers, hmac_key=None, longest=_MAX_DOCUMENT_BYTES)
        try:
            document = json.loads(body) if body is not None else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise UnavailableError("The server's answer is no JSON object.", code="server_unusable")
        return document


def _time(claim: object) -> float:
    if not isinstance(claim, int | float) or isinstance(claim, bool):
        raise ForbiddenError("The access token's times are none.", code="token_malformed")
    return claim


def _readable(keys: object) -> Sequence[jwt.PyJWK]:
    """Return the keys that can sign in a way that is accepted; an issuer may have others."""
    readable = []
    for key in keys[:_MAX_KEYS] if isinstance(keys, list) else []:
        try:
            if key["kty"] in _ALGORITHMS.values() and key.get("use", "sig") == "sig":
                readable.append(jwt.PyJWK(key))
        except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError):
            continue
    return readable
