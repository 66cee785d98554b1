"""What becomes of single devices at Apple: which profile they get, whether they stay in the organization.

Devices are asked for in batches. What Apple did with the first ones stays done when it refuses a later batch, so every
device has an outcome of its own, and one that Apple was not asked about says so. All of it can be repeated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import AppleRefusedError, BadRequestError, PicoMDMError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.ade_rules import serial_number_of

if TYPE_CHECKING:
    from mdmlib.clients.ade import AdeClient, Assignment
    from mdmlib.services.ade_profiles import AdeProfiles
    from mdmlib.services.ade_servers import AdeServers

MOST: Final = 1_000
"""Devices of one request."""
BATCH: Final = 200
"""Devices that Apple is asked about at a time: larger batches are throttled sooner."""
NOT_ASKED: Final = "NOT_ASKED"
"""The outcome of a device whose batch did not get to Apple."""

_FIELD: Final = "serial_numbers"


@dataclass(frozen=True, kw_only=True)
class DeviceOutcomes:
    """What became of each device, in Apple's words or :data:`NOT_ASKED`, by serial number in the order asked."""

    statuses: Mapping[str, str]
    profile_uuid: str | None = None
    retry_after_seconds: int | None = None
    """After how long those that are ``THROTTLED`` may be tried again, where Apple says so."""
    problem: PicoMDMError | None = None
    """Why Apple was not asked about some."""


class AdeAssignments:
    """Asks Apple about devices of a server."""

    def __init__(self, *, servers: "AdeServers", profiles: "AdeProfiles") -> None:
        self._servers = servers
        self._profiles = profiles

    def assign(
        self, server: str, serial_numbers: Iterable[str], *, profile: str | None = None, profile_uuid: str | None = None
    ) -> DeviceOutcomes:
        """Give devices a profile for their next activation: one of ours by its name, or any of Apple's by its UUID.

        Raises as :meth:`~mdmlib.services.ade_profiles.AdeProfiles.profile_uuid` and
        :class:`~mdmlib.clients.ade.AdeClient` do while nothing has happened yet.
        """
        devices = _checked(serial_numbers)
        client = self._servers.client(server)
        uuid = profile_uuid or self._profiles.profile_uuid(profile or "", server)
        outcomes = _in_batches(devices, lambda batch: client.assign(uuid, batch))
        logger.info("ADE profile assigned", server=server, profile_uuid=uuid, devices=len(devices))
        return DeviceOutcomes(**{**vars(outcomes), "profile_uuid": uuid})

    def clear(self, server: str, serial_numbers: Iterable[str]) -> DeviceOutcomes:
        """Take their profile away from devices: they are set up as if nobody had bought them for a server."""
        return self._ask(server, serial_numbers, lambda client, batch: client.clear(batch))

    def disown(self, server: str, serial_numbers: Iterable[str]) -> DeviceOutcomes:
        """Let devices leave the organization. Only Apple, or a seller, can bring them back."""
        outcomes = self._ask(server, serial_numbers, lambda client, batch: client.disown(batch))
        logger.warning("ADE devices disowned", server=server, serial_numbers=list(outcomes.statuses))
        return outcomes

    def details(self, server: str, serial_numbers: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what Apple knows of devices, by serial number, with a ``response_status`` each."""
        client = self._servers.client(server)
        found: dict[str, dict[str, Any]] = {}
        for batch in _batches(_checked(serial_numbers)):
            found |= client.details(batch)
        return found

    def _ask(
        self, server: str, serial_numbers: Iterable[str], ask: "Callable[[AdeClient, Sequence[str]], dict[str, str]]"
    ) -> DeviceOutcomes:
        devices = _checked(serial_numbers)
        client = self._servers.client(server)
        return _in_batches(devices, lambda batch: ask(client, batch))


def _checked(serial_numbers: Iterable[str]) -> Sequence[str]:
    """Return serial numbers as Apple has them, each once."""
    checked = list(dict.fromkeys(serial_number_of(each, name=_FIELD) for each in serial_numbers))
    if not checked:
        raise BadRequestError(f"{_FIELD} is missing.", code="missing_field", field=_FIELD)
    if len(checked) > MOST:
        raise BadRequestError(f"At most {MOST} devices fit one request.", code="invalid_field", field=_FIELD)
    return checked


def _batches(devices: Sequence[str]) -> Iterable[Sequence[str]]:
    return (devices[start : start + BATCH] for start in range(0, len(devices), BATCH))


def _in_batches(
    devices: Sequence[str], ask: "Callable[[Sequence[str]], Assignment | dict[str, str]]"
) -> DeviceOutcomes:
    statuses = dict.fromkeys(devices, NOT_ASKED)
    retry_after: int | None = None
    for number, batch in enumerate(_batches(devices)):
        try:
            answer = ask(batch)
        except (AppleRefusedError, UnavailableError) as error:
            if number == 0:
                raise
            logger.warning("Apple not asked about all devices", code=error.code, reason=error.message)
            return DeviceOutcomes(statuses=statuses, retry_after_seconds=retry_after, problem=error)
        if isinstance(answer, dict):
            statuses |= answer
        else:
            statuses |= answer.statuses
            if answer.retry_after_seconds is not None:
                retry_after = max(retry_after or 0, answer.retry_after_seconds)
    return DeviceOutcomes(statuses=statuses, retry_after_seconds=retry_after)
