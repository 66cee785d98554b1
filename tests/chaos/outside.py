"""What is neither AWS nor ours: APNs that closes, stalls and lies, receivers that are slow, failing and dead.

Under each trouble a command is queued for a device that sleeps, and the device does it, once; the customer hears of it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local.device import DeviceError
from tests.chaos.kinds import OfDevice
from tests.chaos.playing import Played
from tests.chaos.site import Site

APNS: Final = "APNs"
RECEIVER: Final = "receiver"
_SECONDS: Final = 90


@dataclass(frozen=True)
class Trouble:
    """``begin`` makes it."""

    who: str
    name: str
    begin: Callable[[Site], object]


def _connections(what: str) -> Callable[[Site], object]:
    return lambda site: site.stack.apns.control.disturb(what)


def _apns(**behaviour: object) -> Callable[[Site], object]:
    return lambda site: site.stack.apns.control.behave(**behaviour)


def _receiver(**behaviour: object) -> Callable[[Site], object]:
    return lambda site: site.receiver(**behaviour)


def _answer(status: int, reason: str, times: int, **more: object) -> Mapping[str, Any]:
    return {"answer_status": status, "answer_reason": reason, "answer_times": times, **more}


TROUBLES: Final = (
    Trouble(APNS, "says GOAWAY", _connections("goaway")),
    Trouble(APNS, "cuts its connections", _connections("cut")),
    Trouble(APNS, "reads no more", _connections("freeze")),
    Trouble(APNS, "cuts at the first request", _apns(cut_after=1, cut_connections=2)),
    Trouble(APNS, "says GOAWAY after each request", _apns(goaway_after=1)),
    Trouble(APNS, "takes no stream, twice", _apns(refuse_streams=2)),
    Trouble(APNS, "resets streams, twice", _apns(reset_streams=2)),
    Trouble(APNS, "never answers", _apns(silent=1)),
    Trouble(APNS, "takes 3 s", _apns(latency=3.0)),
    Trouble(APNS, "allows one stream", _apns(max_streams=1, first_streams=1)),
    Trouble(APNS, "answers 500", _apns(**_answer(500, "InternalServerError", 2))),
    Trouble(APNS, "answers 503", _apns(**_answer(503, "Shutdown", 2))),
    Trouble(APNS, "answers 429", _apns(**_answer(429, "TooManyRequests", 1, retry_after=2))),
    Trouble(APNS, "answers 403", _apns(**_answer(403, "InvalidProviderToken", 1))),
    Trouble(APNS, "answers 413", _apns(**_answer(413, "PayloadTooLarge", 1))),
    Trouble(APNS, "takes the token for another's", _apns(**_answer(410, "Unregistered", 1))),
    Trouble(APNS, "takes the token for none", _apns(**_answer(400, "BadDeviceToken", 1))),
    Trouble(RECEIVER, "answers 500, three times", _receiver(status=500, times=3)),
    Trouble(RECEIVER, "answers 429", _receiver(status=429, times=1)),
    Trouble(RECEIVER, "hangs up", _receiver(status=0, times=2)),
    Trouble(RECEIVER, "takes 4 s each", _receiver(delay_seconds=4.0, times=3)),
)


class _Sleeper(OfDevice):
    """A device that does nothing before it is woken, and connects by itself in the end, as devices do."""

    name, function = "", "push"

    def ask(self) -> None:
        before = self._pushes()
        self.uuid = self.queue()
        deadline = time.monotonic() + _SECONDS / 3
        # Who was told that the device is gone does not wake it: the next token tells better, and the device connects.
        while self._pushes() == before and time.monotonic() < deadline:
            if self.site.item(self.device.udid).get("push_failure"):
                self.device.update_token()
                break
            time.sleep(0.1)

    def check(self) -> None:
        assert [one.uuid for one in self.device.connect()] == [self.uuid]
        self.check_done(self.uuid)
        self.check_enrolled()
        told = self.site.ledger.hears("mdm.Connect", seconds=_SECONDS, command_uuid=self.uuid, status="Acknowledged")
        assert told, "the customer was not told"

    def _pushes(self) -> int:
        count: int = self.site.stack.apns.control.device(self.device.push_token.hex())["pushes"]
        return count


def play_outside(site: Site) -> list[Played]:
    """Play every trouble, one after the other."""
    played = []
    sleeper = _Sleeper(site)
    sleeper.start()
    for trouble in TROUBLES:
        trouble.begin(site)
        try:
            sleeper.ask()
            sleeper.check()
            wrong = None
        except (AssertionError, DeviceError) as error:
            wrong = f"{type(error).__name__}: {error}".strip()
            sleeper.start()
        finally:
            site.stack.apns.control.behave()
            site.receiver_is_well()
        played.append(Played(f"{trouble.who} {trouble.name}", trouble.who, "", wrong))
    return played
