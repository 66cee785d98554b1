"""Servers of Apple Business and School Manager (ADE), as far as devices have to do with them."""

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from pynamodb.exceptions import DoesNotExist

from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import AdeServer

COLLECTION: Final = "ade_server"

_LONGEST_KEY: Final = 1_024


@dataclass(frozen=True, kw_only=True)
class AdeIdentity:
    """How Apple knows this server: its identifier, and the key whose certificate Apple was given."""

    server_uuid: str
    private_key: RSAPrivateKey = field(repr=False)


def all_servers() -> list[AdeServer]:
    """Return all servers, ordered by name."""
    return [item for item in AdeServer.query(COLLECTION, consistent_read=True) if isinstance(item, AdeServer)]


def find_server(name: str) -> AdeServer | None:
    """Return a server, or None."""
    try:
        # DynamoDB takes no longer key.
        is_key = 0 < len(name.encode()) <= _LONGEST_KEY
        return AdeServer.get(COLLECTION, name, consistent_read=True) if is_key else None
    except DoesNotExist:
        return None


class AdeServerStore:
    """Reads of the collection ``ade_server``."""

    def __init__(self, *, sealer: Sealer) -> None:
        self._sealer = sealer

    def identity(self) -> AdeIdentity | None:
        """Return the identity of the first server, by name, that has one; None: none has.

        Several servers of one organization are as good as each other: Apple looks for the organization.
        """
        for server in all_servers():
            if not server.server_uuid or not server.private_key:
                continue
            key = load_der_private_key(
                self._sealer.open(server.private_key, place=f"{COLLECTION}/{server.name}"),
                password=None,
                unsafe_skip_rsa_key_validation=True,
            )
            # Apple takes certificates of RSA keys only.
            if isinstance(key, RSAPrivateKey):
                return AdeIdentity(server_uuid=server.server_uuid, private_key=key)
        return None
