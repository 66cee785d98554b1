"""What devices meet at the address of a deployment: whether it answers, and until when its certificate is good."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import httpx

from picomdm.admin_api import trusted
from picomdm.basic import LOOPBACK

_SECONDS: Final = 10.0


@dataclass(frozen=True)
class DeviceAddress:
    """What was found there. ``trouble`` says why there is no answer."""

    status: int | None = None
    not_after: datetime | None = None
    trouble: str | None = None
    not_trusted: bool = False
    """It is its certificate that is the trouble."""


def look_at(url: str) -> DeviceAddress:
    """Ask ``/health`` there, as a device would come: by TLS, trusting the usual authorities (or SSL_CERT_FILE)."""
    ends: list[datetime] = []

    with httpx.Client(verify=trusted(), timeout=_SECONDS, trust_env=httpx.URL(url).host not in LOOPBACK) as client:
        try:
            with client.stream("GET", f"{url.rstrip('/')}/health") as answer:
                ends += _ends(answer)
                status = answer.status_code
        except httpx.HTTPError as error:
            not_trusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            return DeviceAddress(trouble=f"does not answer: {error}", not_trusted=not_trusted)
    return DeviceAddress(status, ends[0] if ends else None)


def _ends(answer: httpx.Response) -> list[datetime]:
    stream = answer.extensions.get("network_stream")
    connection = stream.get_extra_info("ssl_object") if stream else None
    if not isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
        return []
    certificate = connection.getpeercert() or {}
    not_after = certificate.get("notAfter")
    return [datetime.fromtimestamp(ssl.cert_time_to_seconds(str(not_after)), UTC)] if not_after else []
