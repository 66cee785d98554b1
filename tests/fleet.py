"""A fleet in one process: the services behind the device edge, and devices that speak to them.

What a device says goes through the real codecs and services to the emulated tables; only the signature is left out.
"""

import hashlib
import json
import os
import plistlib
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import boto3
from botocore.config import Config
from cryptography.hazmat.primitives.serialization import Encoding

from local.emulator import ACCOUNT, REGION, Emulator
from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command import Command
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.enrollment_id import SHARED_IPAD_USER_ID
from mdmlib.apple.event import uuid7
from mdmlib.apple.identity import VerifiedCertificate
from mdmlib.clients.signed_http import SignedHttpClient
from mdmlib.services.blocking import Blocking
from mdmlib.services.checkin import CheckinService
from mdmlib.services.checkin_message import CheckinAnswer
from mdmlib.services.command_jobs import CommandJobs
from mdmlib.services.command_order import CommandOrder
from mdmlib.services.connect import ConnectService
from mdmlib.services.ddm_forwarding import DdmKeys, ForwardedDeclarations
from mdmlib.services.declarations import Declarations, DeclarationServer, no_declarations
from mdmlib.services.enqueue import EnqueueOutcome, EnqueueService
from mdmlib.services.enrollment_profiles import EnrollmentProfiles
from mdmlib.services.events import EventPublisher
from mdmlib.services.housekeeping import Housekeeping
from mdmlib.services.identity_renewals import IdentityRenewals
from mdmlib.services.managed_users import ManagedUsers
from mdmlib.services.plan_looks import PlanLooks
from mdmlib.services.push_again import PushAgain
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.push_jobs import PushJobs
from mdmlib.services.push_queue import PushQueue
from mdmlib.services.queue import CommandQueues
from mdmlib.services.renewal_profiles import RenewalProfiles
from mdmlib.services.return_to_service import ReturnToServiceProfiles
from mdmlib.services.scep_challenges import ScepChallenges
from mdmlib.services.setup_release import SetupRelease
from mdmlib.services.stale_enrollments import StaleEnrollments
from mdmlib.services.sweep import SweepQueue
from mdmlib.services.token_sources import TokenSources
from mdmlib.services.tokens import MaidTokenSource, Tokens
from mdmlib.services.vitals import Vitals
from mdmlib.services.workflow_queue import WorkflowQueue
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.ade_servers import AdeServerStore
from mdmlib.store.command_queue import CommandQueueStore
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer
from tests.deployment import OBSERVER, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdmlib.apple.declarations import DeclarationSet

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"


class Bus:
    """Reads back what was published from now on."""

    _queues: ClassVar[dict[str, str]] = {}
    """URLs of the queues that listen to a bus, by its name: tests have buses in turn."""

    def __init__(self, emulator: Emulator, bus: str) -> None:
        self._sqs = emulator.sqs
        if bus in self._queues:
            self._url = self._queues[bus]
            self._sqs.purge_queue(QueueUrl=self._url)
            return
        name = OBSERVER + bus
        self._url = self._queues[bus] = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        pattern = json.dumps({"source": [{"prefix": "picomdm"}]})
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        emulator.events.put_rule(Name=name, EventBusName=bus, EventPattern=pattern)
        emulator.events.put_targets(
            Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn, "InputPath": "$.detail"}]
        )

    def take(self) -> list[dict[str, Any]]:
        """Return the documents published since the last call, by their ids."""
        documents = []
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages"):
            documents += [json.loads(message["Body"]) for message in messages]
            self._sqs.delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": each["MessageId"], "ReceiptHandle": each["ReceiptHandle"]} for each in messages],
            )
        return sorted(documents, key=lambda document: str(document["event_id"]))

    def topics(self) -> list[str]:
        """Return the topics published since the last call."""
        return [document["topic"] for document in self.take()]


class Fleet:
    """The services of one deployment. A test may replace any attribute before the first use of :meth:`build`."""

    def __init__(self, emulator: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> None:
        self.emulator, self.settings, self.sealer, self.clock = emulator, settings, sealer, clock
        self.enrollments = EnrollmentStore()
        self.payloads = PayloadStore(lambda: emulator.s3, bucket=settings.payload_bucket, sealer=sealer)
        self.queue = CommandQueueStore(sealer=sealer, payloads=self.payloads)
        self.events = EventPublisher(
            lambda: emulator.events, lambda: emulator.sqs, payloads=self.payloads, sealer=sealer, settings=settings
        )
        self.batch_client: Callable[[], Any] = lambda: boto3.client(
            "dynamodb", config=Config(retries={"total_max_attempts": 1})
        )
        self.order = CommandOrder(now=clock)
        self.declarations_of: Callable[[tables.Enrollment], DeclarationSet] = no_declarations
        self.job_page = 200
        self._event_numbers = count(1)
        self.bus = Bus(emulator, settings.event_bus)

    def new_event_id(self) -> str:
        # Ids of one millisecond sort as they were made: tests read events in order.
        return uuid7(int(self.clock().timestamp() * 1000), next(self._event_numbers).to_bytes(10, "big"))

    @property
    def checkin(self) -> CheckinService:
        return CheckinService(
            enrollments=self.enrollments,
            events=self.events,
            sweeps=self.sweeps,
            users=self.users,
            tokens=Tokens(
                self.token_sources,
                MaidTokenSource(AdeServerStore(sealer=self.sealer), new_id=lambda: str(uuid.uuid4())),
            ),
            return_to_service=self.return_to_service,
            declarations=self.declarations,
            sealer=self.sealer,
            settings=self.settings,
            now=self.clock,
            new_event_id=self.new_event_id,
            random=os.urandom,
        )

    @property
    def users(self) -> ManagedUsers:
        return ManagedUsers(sealer=self.sealer, settings=self.settings, now=self.clock)

    @property
    def token_sources(self) -> TokenSources:
        return TokenSources(lambda: SignedHttpClient(user_agent="Fleet"), sealer=self.sealer, now=self.clock)

    @property
    def return_to_service(self) -> ReturnToServiceProfiles:
        return ReturnToServiceProfiles(sealer=self.sealer, settings=self.settings, now=self.clock)

    @property
    def ddm_keys(self) -> DdmKeys:
        return DdmKeys(sealer=self.sealer, now=self.clock)

    @property
    def declarations(self) -> DeclarationServer:
        if self.settings.ddm_url:
            client = SignedHttpClient(user_agent="Fleet")
            return ForwardedDeclarations(lambda: client, keys=self.ddm_keys, settings=self.settings)
        return Declarations(events=self.events, declarations_of=self.declarations_of, new_event_id=self.new_event_id)

    @property
    def blocking(self) -> Blocking:
        return Blocking(
            enrollments=self.enrollments, events=self.events, now=self.clock, new_event_id=self.new_event_id
        )

    @property
    def connect(self) -> ConnectService:
        return ConnectService(
            enrollments=self.enrollments,
            queue=self.queue,
            events=self.events,
            renewal_profiles=lambda: RenewalProfiles(profiles=self.profiles),
            settings=self.settings,
            now=self.clock,
            new_event_id=self.new_event_id,
        )

    @property
    def profiles(self) -> EnrollmentProfiles:
        return EnrollmentProfiles(
            challenges=ScepChallenges(sealer=self.sealer, now=self.clock),
            push_certificates=PushCertificates(sealer=self.sealer, now=self.clock),
            sealer=self.sealer,
            settings=self.settings,
            now=self.clock,
        )

    @property
    def renewals(self) -> IdentityRenewals:
        return IdentityRenewals(
            enrollments=self.enrollments,
            enqueue=self.enqueuer,
            events=self.events,
            sqs_client=lambda: self.emulator.sqs,
            settings=self.settings,
            now=self.clock,
            order=self.order,
            new_uuid=lambda: str(uuid.uuid4()).upper(),
        )

    @property
    def enqueuer(self) -> EnqueueService:
        return EnqueueService(
            enrollments=self.enrollments,
            queue=self.queue,
            events=self.events,
            pushes=PushQueue(lambda: self.emulator.sqs, queue_url=self.settings.push_queue_url, sealer=self.sealer),
            push_certificates=PushCertificates(sealer=self.sealer, now=self.clock),
            batch_client=self.batch_client,
            sealer=self.sealer,
            settings=self.settings,
            now=self.clock,
            order=self.order,
            new_event_id=self.new_event_id,
        )

    @property
    def jobs(self) -> CommandJobs:
        return CommandJobs(
            enqueue=self.enqueuer,
            sqs_client=lambda: self.emulator.sqs,
            queue_url=self.settings.sweep_queue_url,
            now=self.clock,
            page=self.job_page,
        )

    @property
    def workflow_queue(self) -> WorkflowQueue:
        url = self.settings.workflow_queue_url
        return WorkflowQueue(lambda: self.emulator.sqs, queue_url=url, now=self.clock)

    @property
    def sweeps(self) -> SweepQueue:
        return SweepQueue(lambda: self.emulator.sqs, queue_url=self.settings.sweep_queue_url)

    @property
    def queues(self) -> CommandQueues:
        return CommandQueues(
            enrollments=self.enrollments, queue=self.queue, sweeps=self.sweeps, tell_plan=self.workflow_queue.look_at
        )

    @property
    def vitals(self) -> Vitals:
        settings = self.settings
        queues = {"push": (settings.push_queue_url, settings.push_dead_letter_queue_url)}
        return Vitals(lambda: self.emulator.sqs, queues=queues, ade_sync_every=timedelta(minutes=15), now=self.clock)

    @property
    def push_jobs(self) -> PushJobs:
        return PushJobs(
            enrollments=self.enrollments,
            enqueue=self.enqueuer,
            sqs_client=lambda: self.emulator.sqs,
            queue_url=self.settings.sweep_queue_url,
            now=self.clock,
            new_id=lambda: uuid.uuid4().hex,
        )

    @property
    def push_again(self) -> PushAgain:
        return PushAgain(
            enrollments=self.enrollments,
            enqueue=self.enqueuer,
            vitals=self.vitals,
            sqs_client=lambda: self.emulator.sqs,
            settings=self.settings,
            now=self.clock,
        )

    @property
    def stale(self) -> StaleEnrollments:
        return StaleEnrollments(
            enrollments=self.enrollments,
            events=self.events,
            sqs_client=lambda: self.emulator.sqs,
            settings=self.settings,
            now=self.clock,
        )

    @property
    def release(self) -> SetupRelease:
        return SetupRelease(
            enrollments=self.enrollments,
            enqueue=self.enqueuer,
            now=self.clock,
            new_uuid=lambda: str(uuid.uuid4()).upper(),
        )

    @property
    def housekeeping(self) -> Housekeeping:
        return Housekeeping(
            events=self.events,
            sweeps=self.sweeps,
            renewals=lambda: self.renewals,
            jobs=lambda: self.jobs,
            push_jobs=lambda: self.push_jobs,
            push_again=lambda: self.push_again,
            stale=lambda: self.stale,
            release=lambda: self.release,
            plan_looks=lambda: PlanLooks(workflow_queue=self.workflow_queue, now=self.clock),
            vitals=self.vitals,
            settings=self.settings,
            now=self.clock,
            tell_plan=self.workflow_queue.look_at,
            keep_rules=lambda: None,
        )

    def sweep(self) -> int:
        """Let housekeeping take the messages of the sweep queue, until there are none; return how many there were."""
        queue, taken = self.settings.sweep_queue_url, 0
        while messages := self.emulator.sqs.receive_message(QueueUrl=queue).get("Messages"):
            for message in messages:
                self.housekeeping.take_up(message["Body"])
                self.emulator.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                taken += 1
        return taken

    def enqueue(self, ids: "list[FleetDevice] | list[str]", uuid_: str, **options: Any) -> EnqueueOutcome:
        """Queue a command of this uuid for devices or ids."""
        return self.enqueuer.enqueue(command(uuid_), [str(id_) for id_ in ids], **options)

    def device(self, udid: str = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD", *, enrolled: bool = True) -> "FleetDevice":
        """Return a device, enrolled unless told otherwise."""
        device = FleetDevice(self, udid)
        if enrolled:
            device.authenticate()
            device.token_update()
        return device


class FleetDevice:
    """One channel of one device, at the services' door."""

    def __init__(
        self,
        fleet: Fleet,
        udid: str,
        *,
        user_id: str | None = None,
        identity: str | None = None,
        is_user_enrollment: bool = False,
        is_shared_ipad: bool = False,
    ) -> None:
        """Make a channel; ``udid`` is the EnrollmentID of a User Enrollment, ``user_id`` a Shared iPad's short name."""
        self.fleet = fleet
        self.udid = udid
        self.user_id = user_id
        self.identity = identity or f"identity of {udid}"
        self.is_user_enrollment = is_user_enrollment
        self.is_shared_ipad = is_shared_ipad

    def __str__(self) -> str:
        return f"{self.udid}:{self.user_id}" if self.user_id else self.udid

    @property
    def certificate(self) -> VerifiedCertificate:
        return certificate(self.fleet, self.identity)

    @property
    def record(self) -> tables.Enrollment:
        record = self.fleet.enrollments.get(str(self))
        assert record is not None
        return record

    def user(self, user_id: str = "B0B0B0B0-0000-0000-0000-000000000001") -> "FleetDevice":
        """Return a user channel of this device, which shares its identity."""
        return FleetDevice(
            self.fleet,
            self.udid,
            user_id=user_id,
            identity=self.identity,
            is_user_enrollment=self.is_user_enrollment,
            is_shared_ipad=self.is_shared_ipad,
        )

    def answer(self, message_type: str, **fields: Any) -> CheckinAnswer | None:
        """Check in; return the whole answer."""
        body = plistlib.dumps({"MessageType": message_type, **self.ids, **fields})
        return self.fleet.checkin.receive(self.certificate, decode_checkin(body), {})

    def checkin(self, message_type: str, **fields: Any) -> bytes | None:
        """Check in; return the answer's body, or None for an empty one."""
        answer = self.answer(message_type, **fields)
        return answer.body if answer else None

    def authenticate(self, **fields: Any) -> None:
        self.checkin("Authenticate", **{"Topic": TOPIC, "SerialNumber": "C02XXXX", "OSVersion": "15.1", **fields})

    def token_update(self, token: bytes = b"token", **fields: Any) -> None:
        self.checkin("TokenUpdate", **{"Topic": TOPIC, "PushMagic": "magic", "Token": token, **fields})

    def check_out(self) -> None:
        self.checkin("CheckOut", Topic=TOPIC)

    def report(self, status: str, uuid_: str | None = None, **fields: Any) -> str | None:
        """Connect; return the uuid of the command that is handed out, or None."""
        command = self.command(status, uuid_, **fields)
        return str(command["CommandUUID"]) if command else None

    def command(self, status: str, uuid_: str | None = None, **fields: Any) -> dict[str, Any] | None:
        """Connect; return the command that is handed out, or None."""
        fields |= {"CommandUUID": uuid_} if uuid_ else {}
        body = plistlib.dumps({"Status": status, **self.ids, **fields})
        answer = self.fleet.connect.report(self.certificate, CommandReport.decode(body), {})
        return dict(plistlib.loads(answer)) if answer else None

    def idle(self) -> str | None:
        return self.report("Idle")

    def acknowledge(self, uuid_: str, **fields: Any) -> str | None:
        return self.report("Acknowledged", uuid_, **fields)

    def not_now(self, uuid_: str) -> str | None:
        return self.report("NotNow", uuid_)

    @property
    def ids(self) -> dict[str, str]:
        """What its messages say of who sends them."""
        if self.is_user_enrollment:
            user = {"EnrollmentUserID": self.user_id} if self.user_id else {}
            return {"EnrollmentID": self.udid, **user}
        if self.user_id and self.is_shared_ipad:
            return {"UDID": self.udid, "UserID": SHARED_IPAD_USER_ID, "UserShortName": self.user_id}
        return {"UDID": self.udid, **({"UserID": self.user_id} if self.user_id else {})}


def certificate(fleet: Fleet, name: str) -> VerifiedCertificate:
    """Return a certificate that has been verified, told apart by ``name``."""
    return VerifiedCertificate(
        hash=hashlib.sha256(name.encode()).hexdigest(), not_after=fleet.clock() + timedelta(days=365), der=_any_der()
    )


@cache
def _any_der() -> bytes:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return new_certificate_authority("Fleet", now=now).certificate.public_bytes(Encoding.DER)


def command(uuid_: str, request_type: str = "ProfileList", **fields: Any) -> Command:
    """Return a command of this uuid."""
    return Command.decode(plistlib.dumps({"CommandUUID": uuid_, "Command": {"RequestType": request_type, **fields}}))
