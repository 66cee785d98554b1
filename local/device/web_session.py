"""A person signs in: the web view in which an account-driven enrollment shows the organization's page.

It is ASWebAuthenticationSession as far as a server can see it: it follows redirects, keeps cookies for as long as it is
open, and ends when it is sent to the callback's scheme.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from local.device.errors import DeviceError, ProtocolViolation, ServerRefused
from local.device.wire import Wire

CALLBACK_SCHEME: Final = "apple-remotemanagement-user-login"
SIGN_IN: Final = "sign-in"

_BROWSER: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 26_1 like Mac OS X) AppleWebKit/605.1.15"
_FORM: Final = "application/x-www-form-urlencoded"
_MOST_PAGES: Final = 20
_KEEPS_METHOD: Final = {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who sits in front of the device and knows a password."""

    user: str
    password: str = field(repr=False)

    def fill_in(self, form: "Form") -> dict[str, str]:
        """Fill in a form: the password, and the user name where nothing stands yet."""
        filled = dict(form.fields)
        for name, kind in form.kinds.items():
            if kind == "password":
                filled[name] = self.password
            elif kind in {"text", "email"} and not filled[name]:
                filled[name] = self.user
        return filled


@dataclass
class Form:
    """A form of a page."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """The ``type`` of each field."""


class WebSession:
    """One web view. ``wire`` is its own, with cookies of its own."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def run(self, url: str, person: Person) -> tuple[str, int]:
        """Let a person sign in; return the callback's URL, and the status of the redirect that led there.

        Raises :class:`~local.device.errors.ServerRefused` for a page that is an error, and
        :class:`~local.device.errors.ProtocolViolation` for one where nobody could sign in.
        """
        method, body = "GET", b""
        tried = False
        for _ in range(_MOST_PAGES):
            response = self._load(method, url, body)
            if response.is_redirect:
                target = urljoin(url, response.headers["location"])
                if urlsplit(target).scheme == CALLBACK_SCHEME:
                    return target, response.status_code
                if response.status_code not in _KEEPS_METHOD:
                    method, body = "GET", b""
                url = target
                continue
            if response.status_code != HTTPStatus.OK:
                raise ServerRefused(SIGN_IN, response.status_code, response.content)
            form = _only_form(response)
            if tried:
                raise DeviceError(f"{person.user} gives up: the page asks for the password again.")
            tried = True
            filled = urlencode(person.fill_in(form))
            url = urljoin(url, form.action)
            method, body = form.method, b""
            if method == "POST":
                body = filled.encode()
            else:
                url = f"{url}?{filled}"
        raise ProtocolViolation(SIGN_IN, f"After {_MOST_PAGES} pages nobody is signed in.")

    def _load(self, method: str, url: str, body: bytes) -> httpx.Response:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ProtocolViolation(SIGN_IN, f"The web view is sent to {url!r}.")
        headers = {"User-Agent": _BROWSER, "Accept": "text/html"} | ({"Content-Type": _FORM} if body else {})
        return self._wire.send(method, url, what=SIGN_IN, body=body, headers=headers)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    @classmethod
    def of(cls, page: str) -> Self:
        parser = cls()
        parser.feed(page)
        return parser

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("method", "get").upper(), given.get("action", "")))
        elif tag == "input" and self.forms and "name" in given:
            form = self.forms[-1]
            form.fields[given["name"]] = given.get("value", "")
            form.kinds[given["name"]] = given.get("type", "text").lower()


def _only_form(response: httpx.Response) -> Form:
    if not response.headers.get("content-type", "").startswith("text/html"):
        raise ProtocolViolation(SIGN_IN, "The page is no HTML.")
    forms = _Forms.of(response.text).forms
    if len(forms) != 1 or "password" not in forms[0].kinds.values():
        raise ProtocolViolation(SIGN_IN, "The page has no form that asks for a password.")
    return forms[0]
