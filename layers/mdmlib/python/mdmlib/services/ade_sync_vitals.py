"""Which ADE servers' lists are not read any more, for whoever has to be told."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from mdmlib.apple.ade_codes import FOR_EVERYTHING
from mdmlib.store.ade_servers import COLLECTION
from mdmlib.store.tables import AdeServer, AdeSync

SYNCS: Final = "ade_sync"
_LATE: Final = timedelta(hours=6)
_LATE_TIMES: Final = 4


def failing_servers(now: datetime, *, every: timedelta) -> Mapping[str, str | None]:
    """Return what is wrong with each server that has a token, by name; None: all is well.

    What is wrong is the code of what an administrator has to do something about, or ``stale``: the list was not read to
    its end for six hours, or for four times as long as it should take.
    """
    syncs = {sync.name: sync for sync in AdeSync.query(SYNCS) if isinstance(sync, AdeSync)}
    servers = [server for server in AdeServer.query(COLLECTION) if isinstance(server, AdeServer)]
    late = now - max(_LATE, _LATE_TIMES * every)
    return {server.name: _problem(server, syncs.get(server.name), late) for server in servers if server.token}


def _problem(server: AdeServer, sync: AdeSync | None, late: datetime) -> str | None:
    if sync and sync.error_code in FOR_EVERYTHING:
        return str(sync.error_code)
    # A token that was imported a moment ago is not late, however long the list was not read before.
    since = max((sync.synced_at if sync else None) or 0, server.token_imported_at or 0)
    return "stale" if since < late.timestamp() else None
