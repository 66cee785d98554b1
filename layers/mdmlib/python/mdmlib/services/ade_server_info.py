"""What is told of a server of Apple Business or School Manager: nothing of its keys and its token."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from mdmlib.store.tables import AdeServer


@dataclass(frozen=True, kw_only=True)
class AdeServerInfo:
    """What may be told of a server."""

    name: str
    certificate: x509.Certificate | None
    """What Apple has for it; None: no token has come yet."""
    staged_certificate: x509.Certificate | None
    """What is to be uploaded in the portal."""
    token_expires_at: datetime | None
    token_imported_at: datetime | None
    server_uuid: str | None
    consumer_hash: str | None = field(repr=False)
    account: Mapping[str, Any] | None
    account_asked_at: datetime | None
    problem: Mapping[str, str] | None
    """Why Apple did not tell of the account when it was last asked: ``code`` and ``detail``."""
    base_url: str | None
    created_at: datetime | None


def _time(seconds: object) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(int(str(seconds)), UTC)


def info_of(item: AdeServer) -> AdeServerInfo:
    """Return what may be told of a stored server."""

    def certificate(der: bytes | None) -> x509.Certificate | None:
        return None if der is None else x509.load_der_x509_certificate(der)

    return AdeServerInfo(
        name=item.name,
        certificate=certificate(item.certificate),
        staged_certificate=certificate(item.staged_certificate),
        token_expires_at=_time(item.token_expires_at),
        token_imported_at=_time(item.token_imported_at),
        server_uuid=item.server_uuid,
        consumer_hash=item.consumer_hash,
        account=item.account,
        account_asked_at=_time(item.account_asked_at),
        problem=item.account_problem,
        base_url=item.base_url,
        created_at=_time(item.created_at),
    )
