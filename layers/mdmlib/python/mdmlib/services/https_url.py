"""URLs of an administrator's own servers, which receive secrets."""

from typing import Final
from urllib.parse import urlsplit

from mdmlib.errors import BadRequestError

MAX_LENGTH: Final = 2_048
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def check_https_url(url: str, what: str) -> None:
    """Refuse, with :class:`~mdmlib.errors.BadRequestError`, what secrets may not be sent to; ``what`` has the URL."""
    if len(url) > MAX_LENGTH or not url.isprintable() or " " in url:
        raise BadRequestError(f"{what}'s URL has at most {MAX_LENGTH} characters and no blanks.", field="url")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequestError(f"{what}'s URL is none.", field="url") from error
    if not host or parts.fragment:
        raise BadRequestError(f"{what}'s URL names a host, and no fragment.", field="url")
    if parts.username is not None or parts.password is not None:
        raise BadRequestError(f"{what}'s URL holds no credentials: sign with an hmac_key instead.", field="url")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise BadRequestError(f"{what}'s URL begins with https:// (http:// only on this machine).", field="url")
