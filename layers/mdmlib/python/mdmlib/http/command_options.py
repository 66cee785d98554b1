"""How a command is queued, as a query or a JSON object says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mdmlib.apple.json_fields import Unknown
from mdmlib.errors import BadRequestError
from mdmlib.http.fields import Fields, Query
from mdmlib.services.command_order import DEFAULT_PRIORITY, MAX_PRIORITY

OPTIONS: Final = ("allow_unknown", "dedup_key", "expires_at", "force", "no_push", "not_before", "priority")


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """How a command is queued."""

    priority: int
    push: bool
    expires_at: datetime | None
    not_before: datetime | None
    dedup_key: str | None
    force: bool
    unknown: Unknown
    """What becomes of keys and request types that Apple's schema does not have."""

    @property
    def of_queue(self) -> dict[str, Any]:
        """The arguments of :meth:`mdmlib.services.enqueue.EnqueueService.enqueue`."""
        return {
            "priority": self.priority,
            "push": self.push,
            "expires_at": self.expires_at,
            "not_before": self.not_before,
            "dedup_key": self.dedup_key,
            "force": self.force,
        }


def options_of(values: Mapping[str, Any]) -> CommandOptions:
    """Read the options among a request's fields or parameters. Raises :class:`~mdmlib.errors.BadRequestError`."""
    wanted = {name: values[name] for name in OPTIONS if name in values}
    fields = Fields(Query(wanted) if isinstance(values, Query) else wanted, known=OPTIONS)
    priority = fields.integer("priority", least=0, most=MAX_PRIORITY)
    return CommandOptions(
        priority=DEFAULT_PRIORITY if priority is None else priority,
        push=not fields.flag("no_push", default=False),
        expires_at=_moment(fields, "expires_at"),
        not_before=_moment(fields, "not_before"),
        dedup_key=fields.text("dedup_key"),
        force=fields.flag("force", default=False),
        unknown=Unknown.KEEP if fields.flag("allow_unknown", default=False) else Unknown.REFUSE,
    )


def _moment(fields: Fields, name: str) -> datetime | None:
    """Return a time; one without an offset is in UTC."""
    text = fields.text(name)
    if text is None:
        return None
    try:
        # In a query a "+" may have arrived as a blank.
        moment = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except ValueError:
        moment = None
    if moment is None or not 1 < moment.year < 9999:  # noqa: PLR2004 - the first and the last year have no neighbours
        raise BadRequestError(
            f"{name} has to be a time as RFC 3339 writes it, 2026-11-20T12:00:00Z.", code="invalid_field", field=name
        )
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
