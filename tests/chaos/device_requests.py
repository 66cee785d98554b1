"""What devices ask: enrollment, check-in messages, reports."""

import hashlib
import itertools
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from local.device import Answer, Command, EnrollmentProfile
from tests.chaos.kinds import OfDevice

_FIRST_ENROLLMENT = itertools.count()


class _WithLink(OfDevice):
    """A device that is not enrolled yet: the link is all that is known of it."""

    function = "enroll"

    def start(self) -> None:
        self.link = self.site.new_link()
        self.device = self.patience.device()

    @property
    def mark(self) -> str:
        return self.link.key


class ProfileDownload(_WithLink):
    name = "enrollment profile"

    def ask(self) -> None:
        self.patience.again(lambda: self.device.download_profile(self.link.url))

    def check(self) -> None:
        assert not self.device.violations, self.device.violations


class ScepIssue(_WithLink):
    name = "SCEP PKCSReq"
    profile: EnrollmentProfile

    def prepare(self) -> None:
        self.profile = self.device.download_profile(self.link.url)

    def ask(self) -> None:
        self.device._identities.enroll(self.profile.scep, self.device._state)
        self.link.uses += 1

    def check(self) -> None:
        self.link.check()
        assert not self.device.violations, self.device.violations


class ScepRenewal(OfDevice):
    name, function = "SCEP RenewalReq", "enroll"

    @property
    def mark(self) -> str:
        return hashlib.sha256(self.device.identity.certificate_der).hexdigest()

    def ask(self) -> None:
        self.device.renew_identity()


class FirstUseOfRenewed(OfDevice):
    name, function = "first use of a renewed identity", "connect"

    def prepare(self) -> None:
        self.device.renew_identity()

    def ask(self) -> None:
        assert self.device.idle() is None


class Authenticate(OfDevice):
    """A device that nobody knows."""

    name, function = "Authenticate", "checkin"

    def prepare(self) -> None:
        self.device = self.patience.device()
        profile = self.device.download_profile(self.link.url)
        identity = self.device._identities.enroll(profile.scep, self.device._state)
        self.link.uses += 1
        self.management = self.device._manage(self.device._enrollment_as(profile, identity))

    def ask(self) -> None:
        self.patience.again(self.management.authenticate)

    def check(self) -> None:
        self.device._management = self.management
        self.management.update_token()
        self.check_enrolled()


class AuthenticateAnew(OfDevice):
    """An enrolled device enrolls again: its queue ends, and the commands in it are dead."""

    name, function, is_mac = "Authenticate, again", "checkin", True

    def prepare(self) -> None:
        self.dead = self.queue()
        # Else it was the same message as the last time.
        self.device._state.device_name = f"Mac {next(_FIRST_ENROLLMENT)}"

    def ask(self) -> None:
        self.patience.again(self.device.management.authenticate)

    def check(self) -> None:
        assert self.site.item(self.device.udid)["state"] == "authenticated"
        self.device.update_token()
        self.check_enrolled()


class FirstTokenUpdate(Authenticate):
    name, function = "TokenUpdate", "checkin"

    def prepare(self) -> None:
        super().prepare()
        self.management.authenticate()
        self.device._management = self.management

    def ask(self) -> None:
        self.management.update_token()

    def check(self) -> None:
        self.check_enrolled()
        assert self.site.item(self.device.udid)["token_update_tally"] == "1"


class LaterTokenUpdate(OfDevice):
    name, function = "TokenUpdate, another token", "checkin"

    def ask(self) -> None:
        self.device.update_token()

    def check(self) -> None:
        self.check_enrolled()


class UserTokenUpdate(OfDevice):
    name, function, is_mac = "TokenUpdate of a user", "checkin", True

    def prepare(self) -> None:
        self.user_id = str(uuid.uuid4()).upper()

    def ask(self) -> None:
        self.channel = self.device.log_in("ada", user_id=self.user_id)

    def check(self) -> None:
        self.check_enrolled()
        id_ = f"{self.device.udid}:{self.user_id}"
        command = self.patience.queue(id_, "ProfileList")
        assert [one.uuid for one in self.channel.connect()] == [command]
        assert self.site.item(id_)["token_update_tally"] == "1"


class CheckOut(OfDevice):
    """It is sent once: whoever checks out in vain is gone, and the server learns it from APNs."""

    name, function = "CheckOut", "checkin"

    def prepare(self) -> None:
        self.device = self.enrolled()
        self.udid = self.device.udid
        self.queue()

    def ask(self) -> None:
        management = self.device.management
        self.patience.again(management.check_out)
        self.device._forget()

    def check(self) -> None:
        assert self.site.item(self.udid)["state"] == "checked_out"
        assert not self.device.violations, self.device.violations


class SetBootstrapToken(OfDevice):
    name, function, is_mac = "SetBootstrapToken", "checkin", True

    def ask(self) -> None:
        self.token = self.device.escrow_bootstrap_token()

    def check(self) -> None:
        assert self.device.get_bootstrap_token() == self.token
        self.check_enrolled()


class GetBootstrapToken(OfDevice):
    name, function, is_mac = "GetBootstrapToken", "checkin", True

    def prepare(self) -> None:
        self.token = self.device.escrow_bootstrap_token()

    def ask(self) -> None:
        assert self.device.get_bootstrap_token() == self.token


class DeclarativeTokens(OfDevice):
    name, function = "DeclarativeManagement tokens", "checkin"

    def ask(self) -> None:
        self.device.check_in("DeclarativeManagement", Endpoint="tokens")


class StatusReport(OfDevice):
    name, function = "DeclarativeManagement status", "checkin"

    def ask(self) -> None:
        self.device.check_in("DeclarativeManagement", Endpoint="status", Data=b'{"StatusItems": {}, "Errors": []}')


class NewerMessage(OfDevice):
    name, function = "a newer message", "checkin"

    def ask(self) -> None:
        self.device.check_in("NewInNextYear", Number=uuid.uuid4().hex)


class Idle(OfDevice):
    name, function = "Idle", "connect"

    def ask(self) -> None:
        assert self.device.idle() is None


class IdleAfterAWhile(Idle):
    name = "Idle, after a while"

    def prepare(self) -> None:
        self.site.change(self.device.udid, last_seen_at=1)


class IdleOfUser(OfDevice):
    name, function, is_mac = "Idle of a user", "connect", True

    def start(self) -> None:
        super().start()
        self.channel = self.device.log_in("ada")

    def ask(self) -> None:
        assert self.channel.idle() is None


class _WithCommand(OfDevice):
    """A command waits, and the device does it in the end."""

    function = "connect"
    fields: ClassVar[Mapping[str, Any]] = {"request_type": "SecurityInfo"}
    command: Command | None

    def prepare(self) -> None:
        self.uuid = self.queue(**self.fields)

    def check(self) -> None:
        self.device.connect()
        self.check_done(self.uuid)
        self.check_enrolled()


class Handout(_WithCommand):
    name = "Idle, a command out"

    def ask(self) -> None:
        self.command = self.device.idle()
        assert self.command is not None
        assert self.command.uuid == self.uuid


class SharedHandout(Handout):
    name = "Idle, a command of 8 KB out"
    fields: ClassVar[Mapping[str, Any]] = {
        "request_type": "InstallApplication",
        "manifest_url": "https://example.org/" + "x" * 8_000,
    }


class LargeHandout(Handout):
    name = "Idle, a command of 400 KB out"
    fields: ClassVar[Mapping[str, Any]] = {
        "request_type": "InstallApplication",
        "manifest_url": "https://example.org/" + "x" * 400_000,
    }


class NotNow(_WithCommand):
    name = "NotNow"

    def prepare(self) -> None:
        super().prepare()
        self.command = self.device.idle()

    def ask(self) -> None:
        assert self.command is not None
        assert self.device.not_now(self.command) is None


class Report(_WithCommand):
    """A final report; the next command comes with the answer."""

    name = "final report"
    answer: ClassVar[Mapping[str, Any]] = {}

    def prepare(self) -> None:
        self.uuid, self.next_uuid = self.queue(), self.queue()
        self.command = self.device.idle()
        assert self.command is not None
        assert self.command.uuid == self.uuid

    def ask(self) -> None:
        assert self.command is not None
        following = self.device.channel.report(self.command, Answer(fields=self.answer))
        assert following is not None
        assert following.uuid == self.next_uuid

    def check(self) -> None:
        super().check()
        self.check_done(self.next_uuid)


class LargeReport(Report):
    name = "final report of 20 KB"
    answer: ClassVar[Mapping[str, Any]] = {"ProfileList": ["x" * 20_000]}


class HugeReport(Report):
    name = "final report of 200 KB"
    answer: ClassVar[Mapping[str, Any]] = {"ProfileList": ["x" * 200_000]}


class ReportOnCleared(_WithCommand):
    name = "final report, command cleared"

    def prepare(self) -> None:
        super().prepare()
        self.command = self.device.idle()
        self.patience.administer("DELETE", f"/v2/enrollments/{self.device.udid}/commands")

    def ask(self) -> None:
        assert self.command is not None
        assert self.device.acknowledge(self.command) is None


DEVICE_REQUESTS = (
    ProfileDownload,
    ScepIssue,
    ScepRenewal,
    FirstUseOfRenewed,
    Authenticate,
    AuthenticateAnew,
    FirstTokenUpdate,
    LaterTokenUpdate,
    UserTokenUpdate,
    CheckOut,
    SetBootstrapToken,
    GetBootstrapToken,
    DeclarativeTokens,
    StatusReport,
    NewerMessage,
    Idle,
    IdleAfterAWhile,
    IdleOfUser,
    Handout,
    SharedHandout,
    LargeHandout,
    NotNow,
    Report,
    LargeReport,
    HugeReport,
    ReportOnCleared,
)
