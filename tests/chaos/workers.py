"""What functions do without being asked by anybody: pushes, webhooks, sweeps, events that could not be published.

Nobody waits for their answer. What goes wrong comes back by its queue, so each kind waits for what it is all about.
"""

import base64
import plistlib
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final

from local.aws_proxy import Disturbance, Error
from local.device import Answer
from tests.chaos.kinds import OfDevice

_SECONDS: Final = 90
"""For what comes back after its queue's time and a delay or two."""


class _OfWorker(OfDevice):
    is_cold: ClassVar[bool] = False
    """Whether the function starts anew for it, and reads all that it keeps in memory."""
    trouble: Disturbance | None = None

    @property
    def mark(self) -> str | None:
        return None  # Sealed messages name nobody, and nobody else keeps the function busy.

    def prepare(self) -> None:
        if self.is_cold:
            # What is still on its way would wake the function before the request does.
            assert not self.site.undrained(seconds=_SECONDS)
            self.site.start_anew(self.function)

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something is so. AWS recovers as soon as its trouble befell somebody."""
        deadline = time.monotonic() + _SECONDS
        while not done():
            assert time.monotonic() < deadline, what
            if self.trouble and self.trouble.fired:
                self.patience.wait()
            time.sleep(0.1)

    def lives_with(self, disturbance: Disturbance) -> None:
        super().lives_with(disturbance)
        self.trouble = disturbance


class _Push(_OfWorker):
    function = "push"

    def ask(self) -> None:
        before = self._pushes()
        answer = self.patience.administer("POST", f"/v1/push/{self.device.udid}")
        assert answer.status_code == HTTPStatus.OK, answer.text
        self.until(lambda: self._pushes() > before, "the device was not woken")

    def _pushes(self) -> int:
        count: int = self.site.stack.apns.control.device(self.device.push_token.hex())["pushes"]
        return count


class FirstPush(_Push):
    name, is_cold = "push worker, the first push", True


class BusyPush(_Push):
    """APNs is busy, and the push is queued anew."""

    name = "push worker, APNs busy"

    def ask(self) -> None:
        self.site.stack.apns.control.behave(answer_status=503, answer_reason="ServiceUnavailable", answer_times=1)
        super().ask()


class RefusedPush(_OfWorker):
    """The device is gone: that is noted, and told."""

    name, function = "push worker, token refused", "push"

    @property
    def mark(self) -> str | None:
        return self.device.udid

    def prepare(self) -> None:
        self.device = self.enrolled()
        self.site.stack.apns.control.unregister(self.device.push_token.hex())

    def ask(self) -> None:
        self.patience.administer("POST", f"/v1/push/{self.device.udid}")
        self.until(self._is_told, "nobody was told of the refusal")

    def _is_told(self) -> bool:
        return self.site.ledger.hears("mdm.PushFailed", seconds=0, serial_number=self.device.hardware.serial_number)

    def check(self) -> None:
        assert self.site.item(self.device.udid)["push_failure"] == "Unregistered"


class _Webhook(_OfWorker):
    """An event is told of, once something happened."""

    function = "webhook"

    def ask(self) -> None:
        queued = self.queue("ProfileList")
        command = self.device.idle()
        assert command is not None
        assert command.uuid == queued
        assert self.device.channel.report(command, Answer(fields={"ProfileList": ["x" * self.padding]})) is None
        self.until(lambda: self._is_told(queued), "the customer was not told")

    padding: ClassVar[int] = 0

    def _is_told(self, command_uuid: str) -> bool:
        return self.site.ledger.hears("mdm.Connect", seconds=0, command_uuid=command_uuid)


class FirstDelivery(_Webhook):
    """Several workers may begin at once."""

    name, is_cold, only_first_calls = "webhook worker, the first delivery", True, True


class LargeDelivery(_Webhook):
    name, padding = "webhook worker, an event of 200 KB", 200_000


class BusyReceiver(_Webhook):
    """The receiver is busy; the message waits in the queue."""

    name = "webhook worker, the receiver busy"

    def ask(self) -> None:
        self.site.receiver(status=503, times=1)
        super().ask()


class Sweep(_OfWorker):
    """What was cleared is deleted."""

    name, function = "housekeeping, sweep", "housekeeping"

    @property
    def mark(self) -> str | None:
        return self.device.udid

    def prepare(self) -> None:
        for _ in range(3):
            self.queue()

    def ask(self) -> None:
        answer = self.patience.administer("DELETE", f"/v2/enrollments/{self.device.udid}/commands")
        assert answer.status_code == HTTPStatus.NO_CONTENT, answer.text
        self.living = self.queue()
        self.until(lambda: self.site.pending(self.device.udid) == [self.living], "dead commands were not swept")

    def check(self) -> None:
        assert [one.uuid for one in self.device.connect()] == [self.living]
        self.check_enrolled()


class Fallback(_OfWorker):
    """EventBridge is down for the device's request: the event goes the other way."""

    name, function = "housekeeping, an event's other way", "housekeeping"

    @property
    def mark(self) -> str | None:
        return self.device.udid

    def ask(self) -> None:
        queued = self.queue()
        down = self.site.proxies["connect"].disturb("events.PutEvents", Error(500), times=None, mark=self.device.udid)
        try:
            self.device.connect()
        finally:
            down.end()
        assert down.fired
        self.until(
            lambda: self.site.ledger.hears("mdm.Connect", seconds=0, command_uuid=queued), "the event was not told of"
        )


class PlanOfDevice(_OfWorker):
    """A device is brought to its blueprint: a profile, then a command, then nothing is left to do."""

    name, function, is_mac = "workflow, a plan", "workflow", True

    @property
    def mark(self) -> str | None:
        return self.device.udid

    def start(self) -> None:
        super().start()
        self.blueprint = f"chaos-{uuid.uuid4().hex[:8]}"
        self._administer("PUT", "/v1/profiles", {"profile": _profile(self.blueprint)})
        content = {"profiles": [self.blueprint], "commands": [{"request_type": "SecurityInfo"}]}
        # Nobody else's business: neither of those who enroll meanwhile, nor of those who are there.
        for_nobody = {"apply_on_enrollment": False, "apply_on_change": False}
        self._administer("PUT", f"/v2/blueprints/{self.blueprint}", content | for_nobody)

    def ask(self) -> None:
        before = self._plan().get("run")
        application = {"ids": [self.device.udid], "blueprints": [self.blueprint], "again": True}
        self._administer("POST", "/v2/blueprint-applications", application)
        self.until(lambda: self._is_over(before), "the plan does not come to its end")

    def check(self) -> None:
        plan = self._plan()
        assert plan["state"] == "done", plan
        assert {step["state"] for step in plan["steps"]} <= {"done", "unneeded"}, plan
        self.check_enrolled()

    def _is_over(self, before: str | None) -> bool:
        self.device.connect()
        plan = self._plan()
        return plan.get("run") != before and plan["state"] != "running"

    def _plan(self) -> dict[str, Any]:
        answer = self._administer("GET", f"/v2/plans?enrollment_id={self.device.udid}")
        return next((plan for plan in answer["plans"] if plan["kind"] == "blueprints"), {})

    def _administer(self, method: str, path: str, document: object = None) -> dict[str, Any]:
        answer = self.patience.administer(method, path, document)
        assert answer.is_success, answer.text
        return dict(answer.json())


def _profile(identifier: str) -> dict[str, str]:
    clip = {
        "PayloadType": "com.apple.webClip.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.clip",
        "PayloadUUID": str(uuid.uuid4()).upper(),
        "Label": "PicoMDM",
        "URL": "https://example.com/",
    }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": identifier,
        "PayloadUUID": str(uuid.uuid4()).upper(),
        "PayloadContent": [clip],
    }
    return {"Identifier": identifier, "Mobileconfig": base64.b64encode(plistlib.dumps(profile)).decode()}


WORKERS = (FirstPush, BusyPush, RefusedPush, FirstDelivery, LargeDelivery, BusyReceiver, Sweep, Fallback, PlanOfDevice)
