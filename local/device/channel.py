"""A channel: reports out, commands in. A device has one, and each of its users another."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from local.device.cms import Identity
from local.device.command import ACKNOWLEDGED, IDLE, NOT_NOW, Answer, Command
from local.device.commands import CommandExecutor, Owner
from local.device.declarations import DeclarativeClient
from local.device.enrollment import Enrollment, Reply
from local.device.errors import ProtocolViolation
from local.device.request_types import ChannelKind
from local.device.state import DeviceState

LONGEST_CONNECTION: Final = 1000
"""More commands in one connection than anybody ever queued: the server must be going in circles."""


@dataclass(frozen=True, kw_only=True)
class Handled:
    """A command that the device reported on."""

    uuid: str
    request_type: str
    status: str


class Channel:
    """One channel of an enrollment, with what commands and declarations did on it.

    ``ids`` are the keys that say who reports (``UDID``, for a user also ``UserID`` and names). ``note`` is given the
    violations that a device lives on with. Not for use by several threads at once, except for :meth:`connect`.
    """

    def __init__(
        self,
        enrollment: Enrollment,
        ids: Mapping[str, Any],
        *,
        kind: ChannelKind,
        owner: Owner,
        state: DeviceState,
        push_token: bytes,
        push_magic: str,
        note: Callable[[ProtocolViolation], None],
        awaiting_configuration: bool = False,
        settled: frozenset[str] = frozenset(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.kind = kind
        self.ids = dict(ids)
        self.push_token = push_token
        self.push_magic = push_magic
        self.auth_token: str | None = None
        """What a network user got for logging in, and shows with every message."""
        self.handled: list[Handled] = []
        """Every report whose answer arrived, oldest first."""
        self.declarations = DeclarativeClient(self.check_in, owner.hardware, identifies="UDID" in ids)
        self.commands = CommandExecutor(
            owner,
            state,
            channel=kind,
            synchronize=self.declarations.synchronize,
            awaiting_configuration=awaiting_configuration,
            now=now,
        )
        self._enrollment = enrollment
        self._note = note
        self._settled = set(settled)
        """Commands whose final report was answered: none may come again."""
        self.lock = threading.RLock()
        """Held while it is connected."""

    @property
    def settled(self) -> frozenset[str]:
        """The UUIDs of commands whose final report was answered: none may come again."""
        return frozenset(self._settled)

    def check_in(self, message_type: str, **fields: Any) -> Reply:  # noqa: ANN401  # any property list
        """Send a check-in message of this channel, patiently; return what it was answered."""
        message = {"MessageType": message_type, **self.ids, **self._token(), **fields}
        return self._enrollment.check_in(message, patient=True)

    def connect(self) -> list[Handled]:
        """Report Idle, carry out what comes, and go on until nothing does; return what was done.

        Raises :class:`~local.device.errors.ServerRefused`, :class:`~local.device.errors.NoAnswer`,
        :class:`~local.device.errors.Unenrolled` and :class:`~local.device.errors.ProtocolViolation`.
        """
        with self.lock:
            begun = len(self.handled)
            deferred: set[str] = set()
            command = self.idle()
            for _ in range(LONGEST_CONNECTION):
                if command is None:
                    break
                # A command may change the identity; its report still comes from the one that received it.
                identity = self._enrollment.identity
                answer = self.commands.execute(command)
                following = self.report(command, answer, identity=identity)
                if answer.status == NOT_NOW:
                    deferred.add(command.uuid)
                    if following is not None and following.uuid in deferred:
                        self._note(
                            ProtocolViolation("deferred-command", f"{following.uuid} was given again after NotNow.")
                        )
                        break
                if answer.afterwards:
                    answer.afterwards()
                if answer.is_last:
                    break
                command = following
            else:
                raise ProtocolViolation("endless-queue", f"After {LONGEST_CONNECTION} commands there are still more.")
            return self.handled[begun:]

    def idle(self) -> Command | None:
        """Report Idle; return the command that comes."""
        return self._send({"Status": IDLE}, what=IDLE, identity=self._enrollment.identity)

    def acknowledge(self, command: Command, **fields: Any) -> Command | None:  # noqa: ANN401  # any property list
        """Report Acknowledged without doing anything; return the next command."""
        return self.report(command, Answer(fields=fields))

    def not_now(self, command: Command) -> Command | None:
        """Report NotNow; return the next command."""
        return self.report(command, Answer(status=NOT_NOW))

    def report(self, command: Command, answer: Answer, *, identity: Identity | None = None) -> Command | None:
        """Report on a command, also on one that was never given; return the next one."""
        message = {"Status": answer.status, "CommandUUID": command.uuid, **answer.fields}
        if answer.status == ACKNOWLEDGED:
            message.setdefault("RequestType", command.request_type)
        following = self._send(
            message,
            what=f"{command.request_type} {answer.status}",
            identity=identity or self._enrollment.identity,
            settles=None if answer.status == NOT_NOW else command.uuid,
        )
        self.handled.append(Handled(uuid=command.uuid, request_type=command.request_type, status=answer.status))
        return following

    def _send(
        self, message: Mapping[str, Any], *, what: str, identity: Identity, settles: str | None = None
    ) -> Command | None:
        report = {**self.ids, **self._token(), **message}
        if self.kind is ChannelKind.MAC_USER:
            report["NotOnConsole"] = False
        body = self._enrollment.connect(report, what=what, identity=identity)
        # Only now: a device that lost the answer cannot know whether its report arrived.
        if settles:
            self._settled.add(settles)
        if not body:
            return None
        command = Command.decode(body)
        if command.uuid in self._settled:
            self._note(ProtocolViolation("repeated-command", f"{command.uuid} was given again after its final report."))
        return command

    def _token(self) -> dict[str, str]:
        return {} if self.auth_token is None else {"AuthToken": self.auth_token}
