"""Pages for people who open in a browser what is meant for devices: what this is, and what to do.

They hold nothing that their reader does not know: no link, no reason of a refusal, no release.
"""

from html import escape
from http import HTTPStatus
from typing import Final

from mdmlib.http.device_app import DeviceAnswer

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 -apple-system, system-ui, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1.5rem }}
h1 {{ font-size: 1.6rem; line-height: 1.2 }}
li {{ margin: .5rem 0 }}
</style>
</head>
<body>
<h1>{title}</h1>
{content}
</body>
</html>
"""

# A Mac, an iPhone and an iPad (as a phone or as a desktop) say one of these; so do browsers there that are not Safari.
_APPLE: Final = ("Macintosh", "iPhone", "iPad", "iPod", "AppleTV", "Apple TV", "Watch")
# Some browsers elsewhere claim to be like an iPhone's.
_ELSEWHERE: Final = ("Windows", "Android", "CrOS")


def is_browser_elsewhere(user_agent: str) -> bool:
    """Say whether this is a person's browser on a device that is not Apple's.

    Programs and everything that is not known are taken for devices: what enrolls has many names, and most of them are
    nowhere documented.
    """
    if not user_agent.startswith("Mozilla/"):
        return False
    return any(name in user_agent for name in _ELSEWHERE) or not any(name in user_agent for name in _APPLE)


def enroll_on_a_device(organization: str) -> DeviceAnswer:
    """Tell who opened a link on a PC, or on another maker's phone, to open it on the device itself."""
    return _answer(
        HTTPStatus.OK,
        "Open this on your Apple device",
        "<p>With this address an iPhone, iPad or Mac lets <strong>"
        f"{escape(organization)}</strong> manage it. It does nothing on other devices.</p>"
        "<ol>"
        "<li>Open the same address <strong>in Safari</strong> on the device that is to be managed. "
        "Send it to yourself, or type it there.</li>"
        "<li>Allow the download of the profile.</li>"
        "<li>On an iPhone or iPad, open <strong>Settings</strong> and tap <strong>Profile Downloaded</strong>. "
        "On a Mac, open <strong>System Settings, General, Device Management</strong>.</li>"
        "<li>Install the profile within an hour.</li>"
        "</ol>"
        "<p>If you did not expect to be asked this, ask whoever gave you the address.</p>",
    )


def link_unusable(status: HTTPStatus) -> DeviceAnswer:
    """Tell that a link is none, or over."""
    return _answer(
        status,
        "This link cannot be used",
        "<p>It may have expired, or may have been used as often as it could be.</p>"
        "<p>Ask whoever gave it to you for a new one.</p>",
    )


def link_missing(status: HTTPStatus) -> DeviceAnswer:
    """Tell that there is nothing without a link."""
    return _answer(
        status,
        "A link is missing",
        "<p>This address cannot be used alone. To have a device managed, open the whole link that your organization "
        "gave to you, on that device.</p>",
    )


def server(organization: str) -> DeviceAnswer:
    """Tell who opened the address that devices report to that everything is in order."""
    return _answer(
        HTTPStatus.OK,
        "This is a device management server",
        f"<p>The devices that <strong>{escape(organization)}</strong> manages report here. "
        "There is nothing to see for people, but it works: you have just reached it.</p>"
        "<p>To have a device managed, open the link that your organization gave to you, on that device.</p>"
        "<p>If you run this server: <code>picomdm enroll link</code> makes such a link, <code>picomdm doctor</code> "
        "says what is missing.</p>",
    )


def _answer(status: HTTPStatus, title: str, content: str) -> DeviceAnswer:
    return DeviceAnswer(
        status,
        content_type="text/html; charset=utf-8",
        body=_PAGE.format(title=title, content=content),
        headers=_HEADERS,
    )
