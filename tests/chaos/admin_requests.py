"""What administrators ask: commands queued, cleared, taken back; pushes."""

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from tests.chaos.kinds import OfDevice


class Enqueue(OfDevice):
    name, function = "enqueue", "commands"
    fields: ClassVar[Mapping[str, Any]] = {"request_type": "SecurityInfo"}

    def prepare(self) -> None:
        self.uuid = str(uuid.uuid4())

    def ask(self) -> None:
        # The same CommandUUID each time: the request is resumed.
        self.patience.queue(self.device.udid, **self.fields, command_uuid=self.uuid)

    def check(self) -> None:
        assert [one.uuid for one in self.device.connect()] == [self.uuid]
        self.check_done(self.uuid)
        self.check_enrolled()


class EnqueueLarge(Enqueue):
    name = "enqueue 400 KB"
    fields: ClassVar[Mapping[str, Any]] = {
        "request_type": "InstallApplication",
        "manifest_url": "https://example.org/" + "x" * 400_000,
    }


class Clear(OfDevice):
    name, function = "clear a queue", "commands"

    def prepare(self) -> None:
        self.queue()

    def ask(self) -> None:
        answer = self.patience.administer("DELETE", f"/v2/enrollments/{self.device.udid}/commands")
        assert answer.status_code == HTTPStatus.NO_CONTENT, answer.text


class Cancel(OfDevice):
    name, function = "take a command back", "commands"

    def prepare(self) -> None:
        self.dead, self.living = self.queue(), self.queue()

    def ask(self) -> None:
        answer = self.patience.administer("DELETE", f"/v2/enrollments/{self.device.udid}/commands/{self.dead}")
        # Gone already: an earlier attempt took it back, and its answer was lost.
        assert answer.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}, answer.text

    def check(self) -> None:
        assert [one.uuid for one in self.device.connect()] == [self.living]
        self.check_enrolled()


class Push(OfDevice):
    name, function = "push", "commands"

    def ask(self) -> None:
        answer = self.patience.administer("POST", f"/v1/push/{self.device.udid}")
        # MicroMDM's answer says that it could not be sent; whoever wants it sent asks again.
        assert answer.status_code in {HTTPStatus.OK, HTTPStatus.CONFLICT}, answer.text


ADMIN_REQUESTS = (Enqueue, EnqueueLarge, Clear, Cancel, Push)
