"""Account-driven enrollment: a person signs in, and the device finds its server by the account.

Apple's pages: "Implementing the simple authentication account-driven enrollment flow" and "… OAuth 2 …". Where they say
that the system cancels the enrollment, :class:`~local.device.errors.ProtocolViolation` is raised.
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx

from local.device.errors import DeviceError, NoAnswer, ProtocolViolation, ServerRefused
from local.device.profile import EnrollmentMode
from local.device.web_session import CALLBACK_SCHEME, Person, WebSession
from local.device.wire import Wire

WELL_KNOWN: Final = "/.well-known/com.apple.remotemanagement"
APPLE_AS_WEB: Final = "apple-as-web"
APPLE_OAUTH2: Final = "apple-oauth2"

_VERSIONS: Final[Mapping[str, EnrollmentMode]] = {
    "mdm-byod": EnrollmentMode.BYOD,
    "mdm-adde": EnrollmentMode.ADDE,
}
_DISCOVERY: Final = "well-known"
_AUTHENTICATE: Final = "WWW-Authenticate"
_MOST_REDIRECTS: Final = 5
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})+")
# RFC 9110, section 11.2: parameters of a challenge, separated by commas.
_PARAMETER: Final = re.compile(r'\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(,|$)')


@dataclass(frozen=True)
class Service:
    """Where an account's devices enroll, and as what."""

    mode: EnrollmentMode
    base_url: str

    @classmethod
    def decode(cls, response: httpx.Response) -> Self:
        """Read the answer of service discovery. Raises :class:`~local.device.errors.ProtocolViolation`."""
        if response.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise ProtocolViolation(_DISCOVERY, "The answer is not called JSON.")
        try:
            document = json.loads(response.content)
        except ValueError as error:
            raise ProtocolViolation(_DISCOVERY, "The answer is no JSON.") from error
        match document:
            # Apple: for the current release, a single item.
            case {"Servers": [{"Version": str(version), "BaseURL": str(url)}]}:
                pass
            case _:
                raise ProtocolViolation(_DISCOVERY, f"{document!r} does not name one server with Version and BaseURL.")
        if version not in _VERSIONS:
            raise ProtocolViolation(_DISCOVERY, f"The Version {version!r} is unknown.")
        if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
            raise ProtocolViolation(_DISCOVERY, f"The BaseURL {url!r} is no https URL.")
        return cls(_VERSIONS[version], url)


@dataclass(frozen=True)
class Challenge:
    """What the 401 says of how to sign in."""

    method: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """Read it. Raises :class:`~local.device.errors.ProtocolViolation`."""
        if response.status_code == HTTPStatus.OK:
            raise ProtocolViolation(_AUTHENTICATE, "The server enrolls devices of people who did not sign in.")
        header = response.headers.get("www-authenticate")
        if header is None:
            raise ProtocolViolation(_AUTHENTICATE, "The 401 has no such header.")
        scheme, _, rest = header.partition(" ")
        if scheme.lower() != "bearer":
            raise ProtocolViolation(_AUTHENTICATE, f"The scheme is {scheme!r}, not Bearer.")
        parameters = _parameters(rest)
        method = parameters.get("method")
        needed = {
            APPLE_AS_WEB: ("url",),
            APPLE_OAUTH2: ("authorization-url", "token-url", "redirect-url", "client-id", "scope"),
        }.get(method or "")
        if method is None or needed is None:
            raise ProtocolViolation(_AUTHENTICATE, f"The method {method!r} is unknown.")
        if missing := [name for name in needed if not parameters.get(name)]:
            raise ProtocolViolation(_AUTHENTICATE, f"{method} needs {', '.join(missing)}.")
        challenge = cls(method, parameters)
        challenge.check_urls()
        return challenge

    def check_urls(self) -> None:
        """Hold the URLs to the schemes that Apple asks for. Raises :class:`~local.device.errors.ProtocolViolation`."""
        schemes = {
            "url": {"http", "https"},
            "authorization-url": {"https"},
            "token-url": {"https"},
            "redirect-url": {CALLBACK_SCHEME},
        }
        for name, allowed in schemes.items():
            if name in self.parameters and urlsplit(self.parameters[name]).scheme not in allowed:
                raise ProtocolViolation(_AUTHENTICATE, f"{name} is {self.parameters[name]!r}.")


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a person got for signing in."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False, default=None)


class AccountSignIn:
    """Finds an account's server and signs a person in.

    ``domains`` stands for the network's name service: the address (``https://127.0.0.1:8443``) of each domain.
    ``new_wire`` makes the web view's connections.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        new_wire: Callable[[], Wire],
        domains: Mapping[str, str],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._wire = wire
        self._new_wire = new_wire
        self._domains = domains
        self._random_bytes = random_bytes

    def discover(self, user_identifier: str, model_family: str) -> Service:
        """Ask the account's domain where to enroll. Raises ServerRefused, and ProtocolViolation for a wrong answer."""
        user, _, domain = user_identifier.rpartition("@")
        if not user or not _DOMAIN.fullmatch(domain):
            raise DeviceError(f"{user_identifier!r} is no account of a domain.")
        query = urlencode({"user-identifier": user_identifier, "model-family": model_family}, quote_via=quote)
        url = f"https://{domain}{WELL_KNOWN}?{query}"
        for _ in range(_MOST_REDIRECTS):
            if urlsplit(url).scheme != "https":
                raise ProtocolViolation(_DISCOVERY, f"It is redirected to {url!r}.")
            response = self._wire.send("GET", self._resolved(url), what=_DISCOVERY)
            if not response.is_redirect:
                break
            # The query is not added again: whoever redirects has to do that.
            url = str(httpx.URL(url).join(response.headers["location"]))
        if response.status_code != HTTPStatus.OK:
            raise ServerRefused(_DISCOVERY, response.status_code, response.content)
        return Service.decode(response)

    def sign_in(self, challenge: Challenge, user_identifier: str, person: Person) -> Grant:
        """Let the person sign in as the server wishes."""
        wire = self._new_wire()
        try:
            if challenge.method == APPLE_AS_WEB:
                return self._as_web(WebSession(wire), challenge.parameters["url"], user_identifier, person)
            return self._oauth2(WebSession(wire), challenge.parameters, user_identifier, person)
        finally:
            wire.close()

    def _as_web(self, session: WebSession, url: str, user_identifier: str, person: Person) -> Grant:
        callback, status = session.run(_with_query(url, {"user-identifier": user_identifier}), person)
        if status != HTTPStatus.PERMANENT_REDIRECT:
            raise ProtocolViolation("authentication-results", f"The redirect is {status}, not 308.")
        if urlsplit(callback).netloc != "authentication-results":
            raise ProtocolViolation("authentication-results", f"The callback is {callback.partition('?')[0]!r}.")
        token = _only(parse_qs(urlsplit(callback).query), "access-token")
        if token is None:
            raise ProtocolViolation("authentication-results", "There is no access-token.")
        return Grant(access_token=token)

    def _oauth2(
        self, session: WebSession, parameters: Mapping[str, str], user_identifier: str, person: Person
    ) -> Grant:
        state = str(uuid.UUID(bytes=self._random_bytes(16), version=4)).upper()
        asked = {
            "response_type": "code",
            "client_id": parameters["client-id"],
            "redirect_uri": parameters["redirect-url"],
            "scope": parameters["scope"],
            "state": state,
            "login_hint": user_identifier,
        }
        callback, _ = session.run(_with_query(parameters["authorization-url"], asked), person)
        if callback.partition("?")[0] != parameters["redirect-url"]:
            raise ProtocolViolation("redirect-url", f"The callback is {callback.partition('?')[0]!r}.")
        answer = parse_qs(urlsplit(callback).query)
        if _only(answer, "state") != state:
            raise ProtocolViolation("state", "It is not the one of the request.")
        code = _only(answer, "code")
        if code is None:
            raise ServerRefused("authorization", HTTPStatus.BAD_REQUEST, callback.encode())
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": parameters["redirect-url"],
            "client_id": parameters["client-id"],
        }
        response = self._wire.send(
            "POST",
            parameters["token-url"],
            what="token",
            body=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        if response.status_code != HTTPStatus.OK:
            raise ServerRefused("token", response.status_code, response.content)
        return _grant(response)

    def _resolved(self, url: str) -> str:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host in self._domains:
            return f"{self._domains[host]}{parts.path}{'?' if parts.query else ''}{parts.query}"
        # Whoever redirects may name an address.
        if host in {"127.0.0.1", "localhost"}:
            return url
        raise NoAnswer(f"{host} is not known.")


def _grant(response: httpx.Response) -> Grant:
    try:
        document: Any = json.loads(response.content)
    except ValueError as error:
        raise ProtocolViolation("token", "The answer is no JSON.") from error
    match document:
        case {"access_token": str(token), "token_type": str(kind)} if token and kind.lower() == "bearer":
            refresh = document.get("refresh_token")
            return Grant(access_token=token, refresh_token=refresh if isinstance(refresh, str) else None)
        case _:
            raise ProtocolViolation("token", "The answer has no access_token of the type Bearer.")


def _parameters(text: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise ProtocolViolation(_AUTHENTICATE, f"{text!r} are no parameters.")
        name, quoted, token, _ = match.groups()
        parameters[name.lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = match.end()
    return parameters


def _with_query(url: str, parameters: Mapping[str, str]) -> str:
    separator = "&" if urlsplit(url).query else "?"
    return f"{url}{separator}{urlencode(parameters, quote_via=quote)}"


def _only(query: Mapping[str, list[str]], name: str) -> str | None:
    values = query.get(name, [])
    return values[0] if len(values) == 1 and values[0] else None
