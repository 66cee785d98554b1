"""Apple's device enrollment service (ADE): which devices are ours, and what they do when they are switched on.

https://developer.apple.com/documentation/devicemanagement/device-assignment. One client serves one server of Apple
Business or School Manager. A session is opened by a request that OAuth 1.0a (RFC 5849) signs; its token goes with all
others, and answers may bring the next one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import httpx
from oauthlib.oauth1 import SIGNATURE_HMAC_SHA1
from oauthlib.oauth1 import Client as OAuthClient

from mdmlib.apple.ade_codes import TERMS_NOT_SIGNED, TOKEN_REFUSED
from mdmlib.apple.ade_token import AdeToken
from mdmlib.errors import AppleRefusedError, UnavailableError

APPLE_URL: Final = "https://mdmenrollment.apple.com"
PROTOCOL_VERSION: Final = 10
"""The first that tells when a throttled device may be tried again, and all that went before: migration deadlines."""
MAX_BATCH: Final = 1_000
"""Devices in one request, at most."""

SESSION_HEADER: Final = "X-ADM-Auth-Session"
VERSION_HEADER: Final = "X-Server-Protocol-Version"

_TIMEOUT: Final = httpx.Timeout(20, connect=5)
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,63}")
_OAUTH_PROBLEM: Final = re.compile(r"[a-z_]{3,64}")
_SESSION_REFUSALS: Final = frozenset({"FORBIDDEN", "UNAUTHORIZED", "EXPIRED_TOKEN", ""})

_ADVICE: Final[Mapping[str, str]] = {
    TERMS_NOT_SIGNED: "Somebody has to accept Apple's new terms: sign in to Apple Business or School Manager.",
    TOKEN_REFUSED: "The server's token has ended, or another one was made since: renew it (picomdm ade token).",
    "USER_AGENT_INVALID": "Apple does not like this client's name any more: update PicoMDM.",
    "NOT_FOUND": "There is no such thing, or no longer.",
}


@dataclass(frozen=True)
class DevicePage:
    """A page of devices, each as Apple's JSON has it; ``op_type`` is there after a sync alone."""

    devices: Sequence[dict[str, Any]]
    cursor: str
    more_to_follow: bool
    fetched_until: str | None


@dataclass(frozen=True)
class Assignment:
    """What became of each device (``SUCCESS``, ``NOT_ACCESSIBLE``, ``FAILED``, ``THROTTLED``), by serial number."""

    statuses: Mapping[str, str]
    retry_after_seconds: int | None = None
    """After how long those that are throttled may be tried again."""


class AdeClient:
    """Asks Apple on behalf of one server; made for one thread.

    Every method raises :class:`~mdmlib.errors.AppleRefusedError` with Apple's code when the answer is no, and
    :class:`~mdmlib.errors.UnavailableError` when asking again later is right. No token is in any of them.
    """

    def __init__(
        self, token: AdeToken, *, user_agent: str, base_url: str = APPLE_URL, timeout: httpx.Timeout = _TIMEOUT
    ) -> None:
        self.token = token
        self._base_url = base_url.rstrip("/")
        self._session: str | None = None
        # Apple refuses requests that do not say whose they are.
        self._client = httpx.Client(
            headers={"User-Agent": user_agent, "Accept": "application/json"},
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def account(self) -> dict[str, Any]:
        """Return the organization and the server, as Apple's JSON has them."""
        return self._ask("GET", "/account")

    def fetch(self, *, cursor: str | None, limit: int) -> DevicePage:
        """Return a page of all devices: the first, or the one behind ``cursor``."""
        return self._page("/server/devices", {"limit": limit} | ({"cursor": cursor} if cursor else {}))

    def sync(self, *, cursor: str, limit: int) -> DevicePage:
        """Return a page of what happened to devices since ``cursor``."""
        return self._page("/devices/sync", {"limit": limit, "cursor": cursor})

    def details(self, serial_numbers: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return what Apple knows of devices (:data:`MAX_BATCH` at most), with a ``response_status`` each."""
        return self._devices("POST", "/devices", {"devices": list(serial_numbers)})

    def disown(self, serial_numbers: Sequence[str]) -> dict[str, str]:
        """Let devices leave the organization for ever; return what became of each."""
        return self._devices("POST", "/devices/disown", {"devices": list(serial_numbers)})

    def lock(self, serial_number: str, *, escrow_key: str | None, lost_message: str | None) -> str:
        """Lock a device's activation; return what became of it.

        ``escrow_key`` is the hash of a bypass code (:mod:`mdmlib.apple.activation_lock`); without one, the portal's
        administrator alone can unlock the device.
        """
        asked = {"device": serial_number, "escrow_key": escrow_key, "lost_message": lost_message}
        document = {name: value for name, value in asked.items() if value is not None}
        return str(self._ask("POST", "/device/activationlock", document).get("response_status"))

    def define_profile(self, profile: Mapping[str, Any]) -> str:
        """Define a profile and return its UUID. One that is defined cannot be changed or deleted."""
        return self.define(profile)[0]

    def define(self, profile: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """Define a profile for its ``devices``, too; return its UUID, and what became of each of these."""
        answer = self._ask("POST", "/profile", dict(profile))
        profile_uuid = answer.get("profile_uuid")
        if not isinstance(profile_uuid, str):
            _unusable()
        return profile_uuid, _statuses(answer)

    def profile(self, profile_uuid: str) -> dict[str, Any]:
        """Return a profile that was defined."""
        return self._ask("GET", "/profile", params={"profile_uuid": profile_uuid})

    def assign(self, profile_uuid: str, serial_numbers: Sequence[str]) -> Assignment:
        """Give devices (:data:`MAX_BATCH` at most) a profile for their next activation. Safe to repeat."""
        answer = self._ask("PUT", "/profile/devices", {"profile_uuid": profile_uuid, "devices": list(serial_numbers)})
        return Assignment(_statuses(answer), _seconds(answer.get("retry_after_seconds")))

    def clear(self, serial_numbers: Sequence[str]) -> dict[str, str]:
        """Take their profile away from devices; return what became of each."""
        return self._devices("DELETE", "/profile/devices", {"devices": list(serial_numbers)})

    def account_driven_url(self) -> str | None:
        """Return where devices of the organization's accounts find their server, or None."""
        try:
            return str(self._ask("GET", "/account-driven-enrollment/profile").get("mdm_service_discovery_url"))
        except AppleRefusedError as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def set_account_driven_url(self, url: str | None) -> None:
        """Say where devices of the organization's accounts find their server; None: nowhere."""
        if url is None:
            self._ask("DELETE", "/account-driven-enrollment/profile")
        else:
            self._ask("POST", "/account-driven-enrollment/profile", {"mdm_service_discovery_url": url})

    def beta_tokens(self) -> list[dict[str, Any]]:
        """Return the tokens by which devices join Apple's beta programs."""
        answer = self._ask("GET", "/os-beta-enrollment/tokens")
        return list(answer.get("betaEnrollmentTokens") or answer.get("seedBuildTokens") or ())

    def forward(self, method: str, path: str, *, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Send somebody else's request with our session, and return Apple's answer as it is.

        ``path`` begins with a slash and carries its query. Raises as the other methods do when no session comes of it.
        """
        if not any(name.lower() == VERSION_HEADER.lower() for name in headers):
            headers = {**headers, VERSION_HEADER: str(PROTOCOL_VERSION)}
        return self._send(method, path, content=body, headers=headers)

    def _page(self, path: str, document: dict[str, Any]) -> DevicePage:
        answer = self._ask("POST", path, document)
        devices, cursor = answer.get("devices") or [], answer.get("cursor")
        if not isinstance(devices, list) or not isinstance(cursor, str):
            _unusable()
        return DevicePage(devices, cursor, bool(answer.get("more_to_follow")), answer.get("fetched_until"))

    def _devices(self, method: str, path: str, document: dict[str, Any]) -> dict[str, Any]:
        devices = self._ask(method, path, document).get("devices") or {}
        if not isinstance(devices, dict):
            _unusable()
        return devices

    def _ask(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = {VERSION_HEADER: str(PROTOCOL_VERSION)}
        content = b""
        if document is not None:
            headers["Content-Type"] = "application/json;charset=UTF8"
            content = json.dumps(document).encode()
        response = self._send(method, path, content=content, headers=headers, params=params)
        if not response.is_success:
            _refuse(response)
        try:
            answer = _document(response.content) if response.content else {}
        except (ValueError, RecursionError):
            _unusable()
        if not isinstance(answer, dict):
            _unusable()
        return answer

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request with a session; once more with a new one when the first turns out to have ended."""
        response = self._exchange(method, path, content=content, headers=self._with_session(headers), params=params)
        if _refuses_session(response):
            self._session = None
            response = self._exchange(method, path, content=content, headers=self._with_session(headers), params=params)
        self._session = response.headers.get(SESSION_HEADER) or self._session
        return response

    def _with_session(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, SESSION_HEADER: self._open_session()}

    def _open_session(self) -> str:
        """Return the session's token; a new session is opened when there is none."""
        if self._session is None:
            url = f"{self._base_url}/session"
            oauth = OAuthClient(
                self.token.consumer_key,
                client_secret=self.token.consumer_secret,
                resource_owner_key=self.token.access_token,
                resource_owner_secret=self.token.access_secret,
                signature_method=SIGNATURE_HMAC_SHA1,
                realm="ADM",
            )
            _, headers, _ = oauth.sign(url)
            response = self._exchange(
                "GET", "/session", content=b"", headers={**headers, "Content-Type": "application/json;charset=UTF8"}
            )
            if not response.is_success:
                _refuse_session(response)
            try:
                self._session = str(response.json()["auth_session_token"])
            except (ValueError, KeyError, TypeError):
                _unusable()
        return self._session

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return self._client.request(method, self._base_url + path, content=content, headers=headers, params=params)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"Apple's device enrollment service cannot be reached: {type(error).__name__}.",
                code="apple_unreachable",
            ) from error


def _document(content: bytes) -> object:
    """Return what an answer says, without what no store takes, nor other readers of JSON: NaN, halves of characters."""
    if b"\\ud" in content.lower():
        halves = json.dumps(json.loads(content), ensure_ascii=False).encode("utf-16", "surrogatepass")
        content = halves.decode("utf-16", "replace").encode()
    document: object = json.loads(content, parse_constant=lambda _: None)
    return document


def _refuses_session(response: httpx.Response) -> bool:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return True
    return response.status_code == httpx.codes.FORBIDDEN and _code(response) in _SESSION_REFUSALS


def _code(response: httpx.Response) -> str:
    """Return the code in the body of a refusal, which is bare, quoted or in JSON; empty when there is none."""
    found = _CODE.search(response.text[:1_000])
    return found[0] if found else ""


def _refuse_session(response: httpx.Response) -> NoReturn:
    """Raise what follows from a session that was not opened."""
    if response.status_code == httpx.codes.FORBIDDEN and _code(response) not in _SESSION_REFUSALS:
        _refuse(response)
    if response.status_code in {httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        # Apple's word for it is an identifier of OAuth's, and nothing of the token.
        problem = _OAUTH_PROBLEM.search(response.text[:1_000])
        said = f" Apple says {problem[0]}." if problem else ""
        raise AppleRefusedError(
            f"{_ADVICE[TOKEN_REFUSED]}{said}", apple_code=TOKEN_REFUSED, status=response.status_code
        )
    _refuse(response)


def _refuse(response: httpx.Response) -> NoReturn:
    """Raise what follows from an answer that is no success."""
    status, code = response.status_code, _code(response)
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise UnavailableError(f"Apple's device enrollment service answered {status}.", code="apple_unavailable")
    advice = _ADVICE.get(code)
    said = f"Apple refuses: {code or status}." + (f" {advice}" if advice else "")
    raise AppleRefusedError(said, apple_code=code, status=status)


def _unusable() -> NoReturn:
    raise UnavailableError("Apple's device enrollment service gave an answer of another form.", code="apple_unusable")


def _statuses(answer: Mapping[str, Any]) -> dict[str, str]:
    devices = answer.get("devices")
    return {str(serial): str(status) for serial, status in devices.items()} if isinstance(devices, dict) else {}


def _seconds(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
