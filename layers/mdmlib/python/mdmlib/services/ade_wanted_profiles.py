"""Giving devices their profiles: what is wanted of each, and what Apple says to it.

A device whose profile is not the wanted one is *pending*, and a pointer leads to it until Apple has said SUCCESS. So
whatever goes wrong in between (Apple is not to be reached, a device is throttled for a day, a function dies), it is
tried again, and nobody has to look through all devices for that.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from mdmlib.apple.ade_codes import FOR_EVERYTHING
from mdmlib.errors import AppleRefusedError
from mdmlib.observability import logger
from mdmlib.services.ade_assignment_rules import RuleSet, Wanted
from mdmlib.store.ade_devices import AdeDeviceStore, leads_to, serial_of
from mdmlib.store.tables import AdeDevice

if TYPE_CHECKING:
    from mdmlib.clients.ade import AdeClient

BATCH: Final = 200
"""Devices of one request. Apple takes 1,000, and throttles large ones sooner."""

NONE, PENDING, ASSIGNED, OTHER = "none", "pending", "assigned", "other"

SUCCESS: Final = "SUCCESS"
THROTTLED: Final = "THROTTLED"
NOT_ACCESSIBLE: Final = "NOT_ACCESSIBLE"

_FIRST_PAUSE: Final = timedelta(minutes=5)
_LONGEST_PAUSE: Final = timedelta(days=1)


def decide(device: AdeDevice, wanted: Wanted | None, *, at: datetime, anew: bool = False) -> None:
    """Say in ``device`` what is wanted of it, and whether something is to be done for it.

    ``anew``: the device has just come to its server, so whatever was done for it before is over. A profile that
    somebody chose after ours was assigned is left alone, until the rules want another one than they did.
    """
    uuid = wanted.uuid if wanted else None
    is_wanted_still = not anew and uuid == device.wanted_uuid
    before = device.assignment
    device.rule = wanted.rule if wanted else None
    device.wanted_profile = wanted.profile if wanted else None
    device.wanted_uuid = uuid
    if device.deleted_at is not None or uuid is None:
        device.assignment = NONE
    elif device.profile_uuid == uuid:
        device.assignment = ASSIGNED
    elif is_wanted_still and before in {ASSIGNED, OTHER} and device.profile_uuid is not None:
        device.assignment = OTHER
    else:
        device.assignment = PENDING
    if device.assignment != PENDING:
        device.retry_at = device.refusal = None
        device.attempts = 0
    elif before != PENDING or not is_wanted_still:
        device.retry_at = int(at.timestamp())
        device.refusal = None
        device.attempts = 0


class WantedAdeProfiles:
    """Works off what is pending, a batch at a time. Only who holds the server's lease may call it."""

    def __init__(self, *, devices: AdeDeviceStore) -> None:
        self._devices = devices

    def are_due(self, server: str, at: datetime) -> bool:
        """Say whether there is something to work off."""
        return bool(self._devices.due(server, at=int(at.timestamp()), limit=1))

    def work_off(self, server: str, client: "AdeClient", rules: RuleSet, *, at: datetime) -> Counter[str] | None:
        """Ask Apple once for what is due; return how many got which answer, or None: nothing is due.

        Raises what :class:`~mdmlib.clients.ade.AdeClient` raises when Apple lets the server do nothing; then everything
        is as before. Safe to repeat: a device that is assigned again is assigned.
        """
        pointers = self._devices.due(server, at=int(at.timestamp()), limit=BATCH)
        if not pointers:
            return None
        known = self._devices.get_many(server, [serial_of(pointer) for pointer in pointers])
        # Two pointers may lead to a device, of which one is of no use.
        devices = {
            serial_of(pointer): known[serial_of(pointer)]
            for pointer in pointers
            if leads_to(pointer, known.get(serial_of(pointer)))
        }
        for device in devices.values():
            decide(device, rules.wanted(device), at=at)
        pending = [device for device in devices.values() if device.assignment == PENDING]
        uuids = Counter(str(device.wanted_uuid) for device in pending)
        answers: Counter[str] = Counter()
        later: set[str] = set()
        if uuids:
            # One request, whose answer may take its time: those that are to get another profile are due later.
            ((uuid, _),) = uuids.most_common(1)
            later = {device.name for device in pending if device.wanted_uuid != uuid}
            answers = self._assign(client, uuid, [device for device in pending if device.name not in later], at=at)
        self._devices.save(server, [device for device in devices.values() if device.name not in later])
        self._devices.settle(pointer for pointer in pointers if serial_of(pointer) not in later)
        if answers:
            logger.info("ADE profiles assigned", server=server, answers=dict(answers))
        return answers

    def _assign(self, client: "AdeClient", uuid: str, devices: Sequence[AdeDevice], *, at: datetime) -> Counter[str]:
        """Ask Apple to give devices a profile, and write into each what came of it."""
        try:
            assigned = client.assign(uuid, [device.name for device in devices])
        except AppleRefusedError as refused:
            if refused.apple_code in FOR_EVERYTHING:
                raise
            # This profile is of no use, others may be.
            logger.warning("Apple refuses an ADE profile", profile_uuid=uuid, code=refused.apple_code)
            code = refused.apple_code or str(refused.status)
            for device in devices:
                _postpone(device, code, at=at)
            return Counter({code: len(devices)})
        for device in devices:
            status = assigned.statuses.get(device.name, "")
            if status == SUCCESS:
                device.assignment, device.assigned_at = ASSIGNED, int(at.timestamp())
                device.profile_uuid, device.profile_status = uuid, "assigned"
                device.retry_at = device.refusal = None
                device.attempts = 0
            else:
                wait = assigned.retry_after_seconds if status == THROTTLED else None
                _postpone(device, status or "FAILED", at=at, seconds=wait)
        return Counter(assigned.statuses.get(device.name, "FAILED") for device in devices)


def _postpone(device: AdeDevice, refusal: str, *, at: datetime, seconds: int | None = None) -> None:
    """Have a device tried again: when Apple says, or after a pause that doubles up to a day.

    One that is not accessible is in another list by now as a rule, which a sync tells: it waits for a day.
    """
    if seconds is not None:
        # Later than what leads to it now, which is deleted.
        pause = timedelta(seconds=max(seconds, 1))
    elif refusal == NOT_ACCESSIBLE:
        pause = _LONGEST_PAUSE
    else:
        pause = min(_FIRST_PAUSE * 2 ** min(int(device.attempts), 20), _LONGEST_PAUSE)
    device.attempts = int(device.attempts) + 1
    device.refusal = refusal[:64]
    device.retry_at = int((at + pause).timestamp())
    device.changed_at = int(at.timestamp())
