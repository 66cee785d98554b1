"""Which ADE servers' lists are not read any more, for whoever has to be told."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from mdmlib.apple.ade_codes import FOR_EVERYTHING
from mdmlib.store.ade_servers import COLLECTION
from mdmlib.store.tables import AdeServer, AdeSync

SYNCS: Final = "ade_sync"
_LATE: Final = timedelta(hours=6)
_LATE_TIMES: Final = 4


@dataclass(frozen=True)
class AdeList:
    """Apple's list of one ADE server."""

    server: str
    read_at: datetime | None
    """When it was last read to its end."""
    problem: str | None
    """The code of what an administrator has to do something about, or ``stale``; None: all is well."""


def ade_lists(now: datetime, *, every: timedelta) -> Iterator[AdeList]:
    """Yield the list of each server that has a token.

    One is stale that was not read to its end for six hours, or for four times as long as it should take.
    """
    syncs = {sync.name: sync for sync in AdeSync.query(SYNCS) if isinstance(sync, AdeSync)}
    servers = [server for server in AdeServer.query(COLLECTION) if isinstance(server, AdeServer)]
    late = now - max(_LATE, _LATE_TIMES * every)
    for server in servers:
        if server.token:
            sync = syncs.get(server.name)
            read_at = datetime.fromtimestamp(int(sync.synced_at), UTC) if sync and sync.synced_at else None
            yield AdeList(server.name, read_at, _problem(server, sync, late))


def _problem(server: AdeServer, sync: AdeSync | None, late: datetime) -> str | None:
    if sync and sync.error_code in FOR_EVERYTHING:
        return str(sync.error_code)
    # A token that was imported a moment ago is not late, however long the list was not read before.
    since = max((sync.synced_at if sync else None) or 0, server.token_imported_at or 0)
    return "stale" if since < late.timestamp() else None
