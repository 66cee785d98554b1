"""The composition root: builds each service once, on first use.

Nothing is imported before it is needed, so that a function pays for its own services alone (connect never imports
httpx), and importing this module has no effect.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from mdmlib.settings import Settings

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

    from mdmlib.apple.ade_token import AdeToken
    from mdmlib.clients.ade import AdeClient
    from mdmlib.clients.escrow_key_unlock import EscrowKeyUnlockClient
    from mdmlib.clients.reverse_proxy import ReverseProxyClient
    from mdmlib.clients.signed_http import SignedHttpClient
    from mdmlib.services.access_tokens import AccessTokens
    from mdmlib.services.account_driven_enrollment import AccountDrivenEnrollment
    from mdmlib.services.activation_locks import ActivationLocks
    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules
    from mdmlib.services.ade_assignments import AdeAssignments
    from mdmlib.services.ade_devices import AdeDevices
    from mdmlib.services.ade_enrollment import AdeEnrollment
    from mdmlib.services.ade_profiles import AdeProfiles
    from mdmlib.services.ade_rules import AdeSerialNumbers, MinimumOsVersions
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.services.ade_sync import AdeSyncs
    from mdmlib.services.api_keys import ApiKeys
    from mdmlib.services.apps import Apps
    from mdmlib.services.auth_proxy import AuthProxy
    from mdmlib.services.blocking import Blocking
    from mdmlib.services.blueprint_ade import BlueprintAde
    from mdmlib.services.blueprint_jobs import BlueprintJobs
    from mdmlib.services.blueprint_plans import BlueprintPlans
    from mdmlib.services.blueprints import Blueprints
    from mdmlib.services.builtin_plans import BuiltinPlans
    from mdmlib.services.certificate_authorities import CertificateAuthorities
    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.checkin import CheckinService
    from mdmlib.services.command_jobs import CommandJobs
    from mdmlib.services.connect import ConnectService
    from mdmlib.services.ddm_forwarding import DdmKeys
    from mdmlib.services.declarations import DeclarationServer
    from mdmlib.services.device_attributes import DeviceAttributeStore
    from mdmlib.services.device_authorities import DeviceAuthorities
    from mdmlib.services.device_identity import DeviceIdentity
    from mdmlib.services.device_listing import DeviceListing
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.enrollment_links import EnrollmentLinks
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.services.enrollment_query import EnrollmentQuery
    from mdmlib.services.enrollments import Enrollments
    from mdmlib.services.escrow import Escrow
    from mdmlib.services.escrow_key_unlock import EscrowKeyUnlock
    from mdmlib.services.events import EventPublisher
    from mdmlib.services.filevault import FileVault
    from mdmlib.services.housekeeping import Housekeeping
    from mdmlib.services.idempotent_requests import IdempotentRequests
    from mdmlib.services.identity_renewals import IdentityRenewals
    from mdmlib.services.inventory import InventoryStore
    from mdmlib.services.issuing_authorities import IssuingAuthorityStore
    from mdmlib.services.managed_users import ManagedUsers
    from mdmlib.services.micromdm_users import MicroMDMUsers
    from mdmlib.services.migration import Migration
    from mdmlib.services.named_profiles import NamedProfiles
    from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows, WorkflowEvents
    from mdmlib.services.ota_enrollment import OtaEnrollment
    from mdmlib.services.plan_actions import Action
    from mdmlib.services.plans import Plans
    from mdmlib.services.push import PushService
    from mdmlib.services.push_again import PushAgain
    from mdmlib.services.push_certificate_requests import PushCertificateRequests
    from mdmlib.services.push_certificates import PushCertificates
    from mdmlib.services.push_jobs import PushJobs
    from mdmlib.services.push_queue import PushQueue
    from mdmlib.services.queue import CommandQueues
    from mdmlib.services.removal import Removal
    from mdmlib.services.renewal_profiles import RenewalProfiles
    from mdmlib.services.return_to_service import ReturnToServiceProfiles
    from mdmlib.services.revocations import RevocationLists, Revocations
    from mdmlib.services.scep_challenges import ScepChallenges
    from mdmlib.services.setup_release import SetupRelease
    from mdmlib.services.stale_enrollments import StaleEnrollments
    from mdmlib.services.static_challenge import StaticChallenge
    from mdmlib.services.stored_profiles import StoredProfiles
    from mdmlib.services.sweep import SweepQueue
    from mdmlib.services.token_sources import TokenSources
    from mdmlib.services.tokens import Tokens
    from mdmlib.services.vitals import Vitals
    from mdmlib.services.webhook_delivery import WebhookDelivery
    from mdmlib.services.webhook_replays import WebhookReplays
    from mdmlib.services.webhook_rules import WebhookRules
    from mdmlib.services.webhook_tests import WebhookTests
    from mdmlib.services.webhooks import Webhooks
    from mdmlib.services.workflow import Workflow
    from mdmlib.services.workflow_queue import WorkflowQueue
    from mdmlib.store.command_queue import CommandQueueStore
    from mdmlib.store.enrollments import EnrollmentStore
    from mdmlib.store.payloads import PayloadStore
    from mdmlib.store.sealing import Sealer
    from mdmlib.store.stack_secret import StackSecret


def now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


def new_event_id() -> str:
    """Return a new event's id, a UUIDv7: ids sort by time."""
    from mdmlib.apple.event import uuid7

    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def new_uuid() -> str:
    """Return a random UUID."""
    import uuid

    return str(uuid.uuid4())


@cache
def settings() -> Settings:
    """Return the deployment's settings."""
    return Settings.from_environment(os.environ)


def _client_config(**options: Any) -> "Config":  # noqa: ANN401 - options of botocore's Config
    from botocore.config import Config

    # The SDK puts its long User-Agent together twice a call and checks each parameter against the service's model:
    # together a fifth of a call's CPU, and our calls are made in one place each, where tests see them.
    return Config(user_agent="PicoMDM", parameter_validation=False, **options)


def _client(service: str, **options: Any) -> Any:  # noqa: ANN401 - each caller names its client's type
    import boto3

    make: Any = boto3.client  # its overloads know names of services only as literals
    return make(service, config=_client_config(**options))


@cache
def secretsmanager_client() -> "SecretsManagerClient":
    """Return the client of Secrets Manager."""
    # The SDK would wait for a minute, five times, and API Gateway for half of one.
    retries = {"total_max_attempts": 2, "mode": "standard"}
    client: SecretsManagerClient = _client("secretsmanager", connect_timeout=1, read_timeout=3, retries=retries)
    return client


@cache
def sqs_client() -> "SQSClient":
    """Return the client of SQS: while a device or an administrator waits."""
    retries = {"total_max_attempts": 2, "mode": "standard"}
    client: SQSClient = _client("sqs", connect_timeout=1, read_timeout=3, retries=retries)
    return client


@cache
def dynamodb_client() -> "DynamoDBClient":
    """Return the client of DynamoDB that all items are read and written with."""
    retries = {"total_max_attempts": 3, "mode": "standard"}
    return _of_one_account(_client("dynamodb", connect_timeout=1, read_timeout=3, retries=retries))


@cache
def dynamodb_batch_client() -> "DynamoDBClient":
    """Return a client of DynamoDB that tries once: for batches, which must not be repeated blindly."""
    return _of_one_account(_client("dynamodb", connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}))


def _of_one_account(client: "DynamoDBClient") -> "DynamoDBClient":
    # A table can be named by an ARN, which may be of another account with another address: for that the SDK searches
    # each batch and transaction, at a twentieth of its CPU. Ours are named by their names.
    for operation in ("BatchGetItem", "BatchWriteItem", "TransactWriteItems"):
        client.meta.service_model.operation_model(operation).operation_context_parameters = []
    return client


@cache
def s3_client() -> "S3Client":
    """Return the client of S3."""
    # Nothing here is larger than 4.4 MB.
    retries = {"total_max_attempts": 2, "mode": "standard"}
    client: S3Client = _client("s3", connect_timeout=1, read_timeout=5, retries=retries)
    return client


@cache
def events_client() -> "EventBridgeClient":
    """Return the client of EventBridge: quick to give up, for the publisher retries and has a fallback queue."""
    retries = {"total_max_attempts": 1}
    client: EventBridgeClient = _client("events", connect_timeout=1, read_timeout=2, retries=retries)
    return client


@cache
def lambda_client() -> "LambdaClient":
    """Return the client of Lambda: for functions that others go on with."""
    retries = {"total_max_attempts": 3, "mode": "standard"}
    client: LambdaClient = _client("lambda", connect_timeout=1, read_timeout=5, retries=retries)
    return client


@cache
def stack_secret() -> "StackSecret":
    """Return the stack's secret."""
    from mdmlib.store.stack_secret import StackSecret

    return StackSecret(secretsmanager_client, secret_id=settings().secret_id, now=now)


@cache
def sealer() -> "Sealer":
    """Return the sealer under the stack's keys."""
    from mdmlib.store.sealing import Sealer

    return Sealer(stack_secret())


@cache
def api_keys() -> "ApiKeys":
    """Return the passwords of HTTP Basic."""
    from mdmlib.services.api_keys import ApiKeys

    return ApiKeys(stack_secret(), now=now)


@cache
def bind_tables() -> None:
    """Tell the item classes which tables they are of."""
    from mdmlib.store import tables

    tables.bind(
        enrollment_table=settings().enrollment_table,
        resource_table=settings().resource_table,
        client=dynamodb_client(),
    )


@cache
def payloads() -> "PayloadStore":
    """Return the store of what is too large for an item."""
    from mdmlib.store.payloads import PayloadStore

    return PayloadStore(s3_client, bucket=settings().payload_bucket, sealer=sealer())


@cache
def enrollments() -> "EnrollmentStore":
    """Return the store of enrollment records."""
    from mdmlib.store.enrollments import EnrollmentStore

    bind_tables()
    return EnrollmentStore()


@cache
def command_queue() -> "CommandQueueStore":
    """Return the store of commands, pending commands and results."""
    from mdmlib.store.command_queue import CommandQueueStore

    bind_tables()
    return CommandQueueStore(sealer=sealer(), payloads=payloads())


@cache
def events() -> "EventPublisher":
    """Return the publisher of events."""
    from mdmlib.services.events import EventPublisher

    return EventPublisher(events_client, sqs_client, payloads=payloads(), sealer=sealer(), settings=settings())


@cache
def sweeps() -> "SweepQueue":
    """Return the queue of sweeps."""
    from mdmlib.services.sweep import SweepQueue

    return SweepQueue(sqs_client, queue_url=settings().sweep_queue_url)


@cache
def device_identity() -> "DeviceIdentity":
    """Return what proves devices' identities."""
    from mdmlib.services.device_identity import DeviceIdentity

    bind_tables()
    return DeviceIdentity(settings=settings(), now=now)


@cache
def checkin_service() -> "CheckinService":
    """Return the service behind ``/mdm/checkin``."""
    from mdmlib.services.checkin import CheckinService

    return CheckinService(
        enrollments=enrollments(),
        events=events(),
        sweeps=sweeps(),
        users=managed_users(),
        tokens=tokens(),
        return_to_service=return_to_service_profiles(),
        declarations=declarations(),
        sealer=sealer(),
        settings=settings(),
        now=now,
        new_event_id=new_event_id,
        random=os.urandom,
    )


@cache
def managed_users() -> "ManagedUsers":
    """Return the users who may log in on Macs."""
    from mdmlib.services.managed_users import ManagedUsers

    bind_tables()
    return ManagedUsers(sealer=sealer(), settings=settings(), now=now)


@cache
def return_to_service_profiles() -> "ReturnToServiceProfiles":
    """Return the profiles for devices that return to service."""
    from mdmlib.services.return_to_service import ReturnToServiceProfiles

    bind_tables()
    return ReturnToServiceProfiles(sealer=sealer(), settings=settings(), now=now)


@cache
def signed_http_client() -> "SignedHttpClient":
    """Return the client of an administrator's own servers."""
    from mdmlib import __version__
    from mdmlib.clients.signed_http import SignedHttpClient

    return SignedHttpClient(user_agent=f"PicoMDM/{__version__}")


@cache
def token_sources() -> "TokenSources":
    """Return the servers of administrators that make tokens."""
    from mdmlib.services.token_sources import TokenSources

    bind_tables()
    return TokenSources(signed_http_client, sealer=sealer(), now=now)


@cache
def tokens() -> "Tokens":
    """Return the registry of token sources: an administrator's choice goes before what is built in."""
    import uuid

    from mdmlib.services.tokens import MaidTokenSource, Tokens
    from mdmlib.store.ade_servers import AdeServerStore

    bind_tables()
    return Tokens(token_sources(), MaidTokenSource(AdeServerStore(sealer=sealer()), new_id=lambda: str(uuid.uuid4())))


@cache
def ddm_keys() -> "DdmKeys":
    """Return the keys that are shared with another server for declarative management."""
    from mdmlib.services.ddm_forwarding import DdmKeys

    bind_tables()
    return DdmKeys(sealer=sealer(), now=now)


@cache
def declarations() -> "DeclarationServer":
    """Return what answers declarative management: this deployment, or the server that DDM_URL names."""
    if settings().ddm_url:
        from mdmlib.services.ddm_forwarding import ForwardedDeclarations

        return ForwardedDeclarations(signed_http_client, keys=ddm_keys(), settings=settings())
    from mdmlib.services.declarations import Declarations, no_declarations

    return Declarations(events=events(), declarations_of=no_declarations, new_event_id=new_event_id)


@cache
def blocking() -> "Blocking":
    """Return what blocks and unblocks devices."""
    from mdmlib.services.blocking import Blocking

    return Blocking(enrollments=enrollments(), events=events(), now=now, new_event_id=new_event_id)


@cache
def connect_service() -> "ConnectService":
    """Return the service behind ``/mdm/connect``."""
    from mdmlib.services.connect import ConnectService

    return ConnectService(
        enrollments=enrollments(),
        queue=command_queue(),
        events=events(),
        renewal_profiles=renewal_profiles,
        settings=settings(),
        now=now,
        new_event_id=new_event_id,
    )


@cache
def renewal_profiles() -> "RenewalProfiles":
    """Return what makes the payloads of renewals."""
    from mdmlib.services.renewal_profiles import RenewalProfiles

    return RenewalProfiles(profiles=enrollment_profiles())


@cache
def identity_renewals() -> "IdentityRenewals":
    """Return what has identities renewed in time."""
    import uuid

    from mdmlib.services.command_order import CommandOrder
    from mdmlib.services.identity_renewals import IdentityRenewals

    return IdentityRenewals(
        enrollments=enrollments(),
        enqueue=enqueue_service(),
        events=events(),
        sqs_client=sqs_client,
        settings=settings(),
        now=now,
        order=CommandOrder(now=now),
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def push_again() -> "PushAgain":
    """Return what wakes devices again that have left commands unanswered."""
    from mdmlib.services.push_again import PushAgain

    return PushAgain(
        enrollments=enrollments(),
        enqueue=enqueue_service(),
        vitals=vitals(),
        sqs_client=sqs_client,
        settings=settings(),
        now=now,
    )


@cache
def stale_enrollments() -> "StaleEnrollments":
    """Return what finds devices that stay silent."""
    from mdmlib.services.stale_enrollments import StaleEnrollments

    return StaleEnrollments(
        enrollments=enrollments(), events=events(), sqs_client=sqs_client, settings=settings(), now=now
    )


@cache
def setup_release() -> "SetupRelease":
    """Return what lets no device wait in Setup Assistant for ever."""
    import uuid

    from mdmlib.services.setup_release import SetupRelease

    return SetupRelease(
        enrollments=enrollments(), enqueue=enqueue_service(), now=now, new_uuid=lambda: str(uuid.uuid4()).upper()
    )


@cache
def enqueue_service() -> "EnqueueService":
    """Return the service that queues commands."""
    from mdmlib.services.command_order import CommandOrder
    from mdmlib.services.enqueue import EnqueueService

    return EnqueueService(
        enrollments=enrollments(),
        queue=command_queue(),
        events=events(),
        pushes=push_queue(),
        push_certificates=push_certificates(),
        batch_client=dynamodb_batch_client,
        sealer=sealer(),
        settings=settings(),
        now=now,
        order=CommandOrder(now=now),
        new_event_id=new_event_id,
    )


@cache
def command_jobs() -> "CommandJobs":
    """Return the jobs that queue a command for many."""
    from mdmlib.services.command_jobs import CommandJobs

    return CommandJobs(enqueue=enqueue_service(), sqs_client=sqs_client, queue_url=settings().sweep_queue_url, now=now)


@cache
def push_jobs() -> "PushJobs":
    """Return the jobs that wake many."""
    import uuid

    from mdmlib.services.push_jobs import PushJobs

    return PushJobs(
        enrollments=enrollments(),
        enqueue=enqueue_service(),
        sqs_client=sqs_client,
        queue_url=settings().sweep_queue_url,
        now=now,
        new_id=lambda: uuid.uuid4().hex,
    )


@cache
def migration() -> "Migration":
    """Return what takes in check-in messages of another server."""
    from mdmlib.services.migration import Migration

    return Migration(enrollments=enrollments(), sweeps=sweeps(), sealer=sealer(), now=now)


@cache
def command_queues() -> "CommandQueues":
    """Return what clears queues and takes commands back."""
    from mdmlib.services.queue import CommandQueues

    return CommandQueues(
        enrollments=enrollments(), queue=command_queue(), sweeps=sweeps(), tell_plan=workflow_queue().look_at
    )


@cache
def enrollment_service() -> "Enrollments":
    """Return what administrators may see of enrollments."""
    from mdmlib.services.enrollments import Enrollments

    return Enrollments(enrollments=enrollments(), queue=command_queue(), now=now)


@cache
def push_queue() -> "PushQueue":
    """Return the queue of pushes."""
    from mdmlib.services.push_queue import PushQueue

    return PushQueue(sqs_client, queue_url=settings().push_queue_url, sealer=sealer())


@cache
def push_certificates() -> "PushCertificates":
    """Return the push certificates."""
    from mdmlib.services.push_certificates import PushCertificates

    bind_tables()
    return PushCertificates(sealer=sealer(), now=now)


@cache
def push_certificate_requests() -> "PushCertificateRequests":
    """Return the requests for push certificates."""
    import uuid

    from mdmlib.services.push_certificate_requests import PushCertificateRequests

    bind_tables()
    return PushCertificateRequests(sealer=sealer(), now=now, new_id=lambda: uuid.uuid4().hex)


@cache
def idempotent_requests() -> "IdempotentRequests":
    """Return what remembers the answers of requests that have a key."""
    from mdmlib.services.idempotent_requests import IdempotentRequests

    bind_tables()
    return IdempotentRequests(sealer=sealer(), now=now)


@cache
def push_service() -> "PushService":
    """Return the service that wakes devices."""
    import random
    from functools import partial

    from mdmlib.clients.apns import ApnsClient
    from mdmlib.services.push import PushService
    from mdmlib.services.push_pace import PushPace
    from mdmlib.services.push_refusals import PushRefusals

    return PushService(
        connect=partial(ApnsClient, url=settings().apns_url, trust_anchor=settings().apns_trust_anchor),
        certificates=push_certificates(),
        queue=push_queue(),
        refusals=PushRefusals(enrollments=enrollments(), events=events(), sealer=sealer(), now=now),
        sealer=sealer(),
        pace=PushPace(settings().pushes_per_second, clock=time.time, sleep=time.sleep),
        now=now,
        jitter=random.random,
    )


@cache
def scep_challenges() -> "ScepChallenges":
    """Return what makes SCEP challenges."""
    from mdmlib.services.scep_challenges import ScepChallenges

    return ScepChallenges(sealer=sealer(), now=now)


@cache
def certificate_authority() -> "CertificateAuthorityService":
    """Return what issues identities over SCEP."""
    from mdmlib.services.certificate_authority import CertificateAuthorityService

    return CertificateAuthorityService(
        authorities=issuing_authorities(),
        enrollments=enrollments(),
        challenges=scep_challenges(),
        static_challenge=static_challenge(),
        settings=settings(),
        now=now,
    )


@cache
def static_challenge() -> "StaticChallenge":
    """Return the static SCEP challenge."""
    from mdmlib.services.static_challenge import StaticChallenge

    bind_tables()
    return StaticChallenge(sealer=sealer(), now=now)


@cache
def issuing_authorities() -> "IssuingAuthorityStore":
    """Return the deployment's own CAs."""
    from mdmlib.services.issuing_authorities import IssuingAuthorityStore

    bind_tables()
    return IssuingAuthorityStore(sealer=sealer(), settings=settings(), now=now)


@cache
def revocations() -> "Revocations":
    """Return what revokes certificates."""
    from mdmlib.services.revocations import Revocations

    bind_tables()
    return Revocations(enrollments=enrollments(), settings=settings(), now=now)


@cache
def revocation_lists() -> "RevocationLists":
    """Return the CRLs."""
    from mdmlib.services.revocations import RevocationLists

    return RevocationLists(authorities=issuing_authorities(), now=now)


@cache
def certificate_authorities() -> "CertificateAuthorities":
    """Return the authorities whose certificates prove identities."""
    from mdmlib.services.certificate_authorities import CertificateAuthorities

    bind_tables()
    return CertificateAuthorities(issuing=issuing_authorities(), now=now)


@cache
def enrollment_links() -> "EnrollmentLinks":
    """Return the enrollment links."""
    from mdmlib.services.enrollment_links import EnrollmentLinks

    bind_tables()
    return EnrollmentLinks(profiles=enrollment_profiles(), settings=settings(), now=now)


@cache
def enrollment_profiles() -> "EnrollmentProfiles":
    """Return the enrollment profiles."""
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles

    bind_tables()
    return EnrollmentProfiles(
        challenges=scep_challenges(),
        push_certificates=push_certificates(),
        sealer=sealer(),
        settings=settings(),
        now=now,
    )


@cache
def ota_enrollment() -> "OtaEnrollment":
    """Return the service behind over-the-air enrollment."""
    import uuid

    from mdmlib.services.ota_enrollment import TICKETS_KEY, OtaEnrollment
    from mdmlib.services.scep_challenges import ScepChallenges

    return OtaEnrollment(
        authority=certificate_authority(),
        device_authorities=device_authorities(),
        links=enrollment_links(),
        profiles=enrollment_profiles(),
        tickets=ScepChallenges(sealer=sealer(), now=now, key=TICKETS_KEY),
        settings=settings(),
        now=now,
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def access_tokens() -> "AccessTokens":
    """Return what verifies access tokens."""
    from mdmlib.services.access_tokens import AccessTokens

    return AccessTokens(signed_http_client, now=now)


@cache
def account_driven_enrollment() -> "AccountDrivenEnrollment":
    """Return the service behind account-driven enrollment."""
    from mdmlib.services.account_driven_enrollment import AccountDrivenEnrollment

    bind_tables()
    return AccountDrivenEnrollment(tokens=access_tokens(), profiles=enrollment_profiles(), settings=settings(), now=now)


@cache
def reverse_proxy_client() -> "ReverseProxyClient":
    """Return the client of the server behind the authenticating proxy."""
    from mdmlib.clients.reverse_proxy import ReverseProxyClient

    return ReverseProxyClient()


@cache
def auth_proxy() -> "AuthProxy":
    """Return the authenticating proxy."""
    from mdmlib.services.auth_proxy import AuthProxy

    return AuthProxy(
        identity=device_identity(),
        enrollments=enrollments(),
        client=reverse_proxy_client,
        settings=settings(),
        now=now,
    )


@cache
def device_authorities() -> "DeviceAuthorities":
    """Return the authorities whose certificates are built into devices."""
    from mdmlib.services.device_authorities import DeviceAuthorities

    bind_tables()
    return DeviceAuthorities(settings=settings(), now=now)


@cache
def ade_serial_numbers() -> "AdeSerialNumbers":
    """Return the devices that may enroll by ADE."""
    from mdmlib.services.ade_rules import AdeSerialNumbers

    bind_tables()
    return AdeSerialNumbers(is_ours=lambda serial_number: ade_devices().is_ours(serial_number), now=now)


@cache
def minimum_os_versions() -> "MinimumOsVersions":
    """Return what devices have to run before they may enroll by ADE."""
    from mdmlib.services.ade_rules import MinimumOsVersions

    bind_tables()
    return MinimumOsVersions(now=now)


@cache
def ade_servers() -> "AdeServers":
    """Return the servers of Apple Business and School Manager."""
    from mdmlib.services.ade_servers import AdeServers

    def make_client(token: "AdeToken", base_url: str) -> "AdeClient":
        from mdmlib import __version__
        from mdmlib.clients.ade import AdeClient

        return AdeClient(token, user_agent=f"PicoMDM/{__version__}", base_url=base_url)

    bind_tables()
    return AdeServers(make_client=make_client, sealer=sealer(), settings=settings(), now=now)


@cache
def ade_profiles() -> "AdeProfiles":
    """Return what devices do when they are switched on."""
    from mdmlib.services.ade_profiles import AdeProfiles

    bind_tables()
    return AdeProfiles(servers=ade_servers(), settings=settings(), now=now)


@cache
def ade_assignment_rules() -> "AdeAssignmentRules":
    """Return the rules that say which ADE profile a device gets."""
    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules

    bind_tables()
    return AdeAssignmentRules(
        profile_uuid=lambda server, profile: ade_profiles().profile_uuid(profile, server),
        check_profile=lambda profile: ade_profiles().get(profile),
        check_server=lambda server: ade_servers().get(server),
        now=now,
    )


@cache
def ade_syncs() -> "AdeSyncs":
    """Return what reads Apple's lists of devices."""
    from mdmlib.services.ade_sync import AdeSyncs
    from mdmlib.services.ade_sync_runs import AdeSyncRuns
    from mdmlib.store.ade_devices import AdeDeviceStore

    bind_tables()
    return AdeSyncs(
        names=ade_servers().names,
        client_of=ade_servers().client,
        run_later=AdeSyncRuns(lambda_client, function=f"{settings().stack_name}-dep_sync").request,
        rules=ade_assignment_rules(),
        devices=AdeDeviceStore(),
        events=events(),
        now=now,
    )


@cache
def ade_assignments() -> "AdeAssignments":
    """Return what asks Apple about single devices."""
    from mdmlib.services.ade_assignments import AdeAssignments

    return AdeAssignments(servers=ade_servers(), profiles=ade_profiles())


@cache
def activation_locks() -> "ActivationLocks":
    """Return the Activation Locks that were put on devices from here."""
    import uuid

    from mdmlib.services.activation_locks import ActivationLocks

    return ActivationLocks(
        servers=ade_servers(),
        unlocking=escrow_key_unlock(),
        enrollments=enrollments(),
        sealer=sealer(),
        settings=settings(),
        now=now,
        random=os.urandom,
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def ade_devices() -> "AdeDevices":
    """Return the devices in Apple's lists."""
    from mdmlib.services.ade_devices import AdeDevices
    from mdmlib.store.ade_devices import AdeDeviceStore

    return AdeDevices(devices=AdeDeviceStore(), enrollments=enrollments(), now=now)


@cache
def ade_enrollment() -> "AdeEnrollment":
    """Return the service behind ADE's requests for a profile."""
    import uuid

    from mdmlib.services.ade_enrollment import AdeEnrollment

    return AdeEnrollment(
        authorities=device_authorities(),
        serial_numbers=ade_serial_numbers(),
        minimum_os=minimum_os_versions(),
        profiles=enrollment_profiles(),
        settings=settings(),
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def webhook_rules() -> "WebhookRules":
    """Return the rules that bring events to the webhook queue."""
    from mdmlib.services.webhook_rules import WebhookRules

    return WebhookRules(events_client, settings=settings())


@cache
def webhooks() -> "Webhooks":
    """Return the webhook subscriptions."""
    from mdmlib.services.webhooks import Webhooks

    bind_tables()
    return Webhooks(webhook_rules(), sealer=sealer(), settings=settings(), now=now)


@cache
def webhook_tests() -> "WebhookTests":
    """Return what tries receivers out."""
    from mdmlib.services.webhook_tests import WebhookTests

    return WebhookTests(events_client, webhooks=webhooks(), settings=settings(), now=now, new_event_id=new_event_id)


@cache
def webhook_replays() -> "WebhookReplays":
    """Return what brings events out of the archive again."""
    from mdmlib.services.webhook_replays import WebhookReplays

    return WebhookReplays(events_client, webhooks=webhooks(), rules=webhook_rules(), settings=settings(), now=now)


@cache
def webhook_delivery() -> "WebhookDelivery":
    """Return what delivers the webhook queue's messages."""
    import random

    from mdmlib import __version__
    from mdmlib.clients.webhook import WebhookClient
    from mdmlib.services.webhook_delivery import WebhookDelivery
    from mdmlib.services.webhook_documents import WebhookDocuments
    from mdmlib.services.webhook_receivers import WebhookReceivers

    return WebhookDelivery(
        client=WebhookClient(user_agent=f"PicoMDM/{__version__}"),
        webhooks=webhooks(),
        receivers=WebhookReceivers(webhooks(), now=now),
        documents=WebhookDocuments(payloads=payloads(), sealer=sealer()),
        sqs_client=sqs_client,
        settings=settings(),
        now=now,
        monotonic=time.monotonic,
        random=random.random,
    )


@cache
def housekeeping() -> "Housekeeping":
    """Return what does later what others left."""
    from mdmlib.services.housekeeping import Housekeeping

    bind_tables()
    return Housekeeping(
        events=events(),
        sweeps=sweeps(),
        renewals=identity_renewals,
        jobs=command_jobs,
        push_jobs=push_jobs,
        push_again=push_again,
        stale=stale_enrollments,
        release=setup_release,
        vitals=vitals(),
        settings=settings(),
        now=now,
        tell_plan=lambda enrollment_id, command_uuid: workflow_queue().look_at(enrollment_id, command_uuid),
    )


@cache
def vitals() -> "Vitals":
    """Return what looks at certificates, schedules, queues and Apple's lists of devices."""
    from mdmlib.services.vitals import Vitals

    bind_tables()
    known = settings()
    queues = {
        "push": (known.push_queue_url, known.push_dead_letter_queue_url),
        "webhook": (known.webhook_queue_url, known.webhook_dead_letter_queue_url),
        "sweep": (known.sweep_queue_url, known.sweep_dead_letter_queue_url),
        "workflow": (known.workflow_queue_url, known.workflow_dead_letter_queue_url),
        "events": (known.event_fallback_queue_url, known.event_fallback_dead_letter_queue_url),
        "targets": (None, known.target_dead_letter_queue_url),
    }
    every = timedelta(minutes=known.ade_sync_minutes)
    return Vitals(sqs_client, queues=queues, ade_sync_every=every, now=now)


@cache
def device_listing() -> "DeviceListing":
    """Return the list of devices."""
    from mdmlib.services.device_listing import DeviceListing

    return DeviceListing(enrollments=enrollments())


@cache
def enrollment_query() -> "EnrollmentQuery":
    """Return what finds enrollments."""
    from mdmlib.services.enrollment_query import EnrollmentQuery

    return EnrollmentQuery(enrollments=enrollments(), sealer=sealer())


@cache
def removal() -> "Removal":
    """Return what has enrollments forgotten."""
    from mdmlib.services.removal import Removal

    return Removal(enrollments=enrollments(), sweeps=sweeps())


@cache
def stored_profiles() -> "StoredProfiles":
    """Return the stored profiles."""
    from mdmlib.services.stored_profiles import StoredProfiles

    bind_tables()
    return StoredProfiles(
        sealer=sealer(),
        payloads=payloads(),
        now=now,
        # Asked for when one is stored: it needs the profiles itself.
        on_change=lambda identifier: blueprint_jobs().on_profile_change(identifier),
    )


@cache
def micromdm_users() -> "MicroMDMUsers":
    """Return the users as MicroMDM's API knows them."""
    import uuid

    from mdmlib.services.micromdm_users import MicroMDMUsers

    return MicroMDMUsers(enrollments=enrollments(), sealer=sealer(), now=now, new_uuid=lambda: str(uuid.uuid4()))


@cache
def workflow_queue() -> "WorkflowQueue":
    """Return the queue of workflows."""
    from mdmlib.services.workflow_queue import WorkflowQueue

    return WorkflowQueue(sqs_client, queue_url=settings().workflow_queue_url, now=now)


@cache
def device_attributes() -> "DeviceAttributeStore":
    """Return what administrators say of devices."""
    from mdmlib.services.device_attributes import DeviceAttributeStore

    bind_tables()
    return DeviceAttributeStore(sealer=sealer(), now=now)


@cache
def plan_actions() -> "dict[str, Action]":
    """Return how the steps of plans are done."""
    from mdmlib.services.builtin_plans import ListCertificates, LockDevice, ReplaceCertificateProfile, TakeInventory
    from mdmlib.services.filevault import AwaitRecoveryKey, InstallFileVaultProfile, RotateRecoveryKey
    from mdmlib.services.install_actions import (
        CreateAccounts,
        InstallApp,
        InstallProfile,
        RemoveApp,
        RemoveProfile,
        SendCommand,
    )
    from mdmlib.services.plan_actions import ListApps, ListProfiles, ReleaseDevice, Send

    of_keys = filevault(), escrow(), inventory()
    return {
        "await_recovery_key": AwaitRecoveryKey(*of_keys),
        "create_accounts": CreateAccounts(micromdm_users()),
        "install_app": InstallApp(apps()),
        "install_filevault_profile": InstallFileVaultProfile(filevault()),
        "install_profile": InstallProfile(stored_profiles()),
        "list_apps": ListApps(),
        "list_certificates": ListCertificates(),
        "list_profiles": ListProfiles(),
        "lock_device": LockDevice(escrow()),
        "release": ReleaseDevice(),
        "remove_app": RemoveApp(),
        "remove_profile": RemoveProfile(),
        "replace_certificate_profile": ReplaceCertificateProfile(stored_profiles(), now),
        "rotate_recovery_key": RotateRecoveryKey(*of_keys),
        "send": Send(),
        "send_command": SendCommand(),
        "take_inventory": TakeInventory(inventory()),
    }


@cache
def plans() -> "Plans":
    """Return the plans of devices."""
    from mdmlib.services.plans import Plans

    return Plans(
        queue=command_queue(),
        enqueue=enqueue_service(),
        events=events(),
        attributes=device_attributes(),
        workflow_queue=workflow_queue(),
        actions=plan_actions(),
        sealer=sealer(),
        now=now,
        new_event_id=new_event_id,
    )


@cache
def escrow() -> "Escrow":
    """Return the escrowed secrets of devices."""
    from mdmlib.services.escrow import Escrow

    bind_tables()
    return Escrow(events=events(), sealer=sealer(), now=now, new_event_id=new_event_id)


@cache
def inventory() -> "InventoryStore":
    """Return what devices have told of themselves."""
    from mdmlib.services.inventory import InventoryStore

    bind_tables()
    return InventoryStore(sealer=sealer(), now=now)


@cache
def filevault() -> "FileVault":
    """Return whom Macs encrypt their recovery keys for."""
    from mdmlib.services.filevault import FileVault

    bind_tables()
    return FileVault(sealer=sealer(), settings=settings(), now=now)


@cache
def named_profiles() -> "NamedProfiles":
    """Return NanoCMD's names of profiles."""
    from mdmlib.services.named_profiles import NamedProfiles

    return NamedProfiles(profiles=stored_profiles())


@cache
def builtin_plans() -> "BuiltinPlans":
    """Return the plans that need no blueprint."""
    import uuid

    from mdmlib.services.builtin_plans import BuiltinPlans

    return BuiltinPlans(
        plans=plans(), names=named_profiles(), workflow_queue=workflow_queue, new_id=lambda: uuid.uuid4().hex
    )


@cache
def nanocmd_workflows() -> "NanoCMDWorkflows":
    """Return the plans by the names that NanoCMD gives them."""
    from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows

    return NanoCMDWorkflows(builtin=builtin_plans(), names=named_profiles())


@cache
def workflow_events() -> "WorkflowEvents":
    """Return what begins when a device enrolls, as NanoCMD has it."""
    from mdmlib.services.nanocmd_workflows import WorkflowEvents

    return WorkflowEvents(workflows=nanocmd_workflows(), names=named_profiles())


@cache
def s3_presigner() -> "S3Client":
    """Return the client of S3 that makes URLs: in all regions they are good, and of the bucket's own address."""
    client: S3Client = _client("s3", signature_version="s3v4", s3={"addressing_style": "virtual"})
    return client


@cache
def apps() -> "Apps":
    """Return the apps."""
    import uuid

    from mdmlib.services.apps import Apps
    from mdmlib.store.app_objects import AppObjects

    bind_tables()
    return Apps(
        objects=AppObjects(s3_presigner, bucket=settings().payload_bucket),
        workflow_queue=workflow_queue,
        settings=settings(),
        now=now,
        new_id=lambda: uuid.uuid4().hex,
    )


@cache
def blueprints() -> "Blueprints":
    """Return the blueprints."""
    from mdmlib.services.blueprints import Blueprints

    return Blueprints(
        profiles=stored_profiles(),
        users=micromdm_users(),
        sealer=sealer(),
        now=now,
        has_app=lambda name: apps().has_package(name),
        check_ade=lambda content: blueprint_ade().check(content) if content.ade_profile is not None else None,
        tell_ade=lambda uuid_, content: blueprint_ade().tell(uuid_, content),
    )


@cache
def blueprint_ade() -> "BlueprintAde":
    """Return what gives devices the ADE profiles of their blueprints."""
    from mdmlib.services.blueprint_ade import BlueprintAde

    return BlueprintAde(
        rules=ade_assignment_rules(),
        check_profile=lambda profile: ade_profiles().get(profile),
        check_server=lambda server: ade_servers().get(server),
        read_list=lambda server: ade_syncs().nudge(server),
    )


def _ade_server_of(serial_number: str | None) -> str | None:
    """Return the server in whose list at Apple a device is."""
    from mdmlib.services.blueprint_ade import ade_server_of
    from mdmlib.store.ade_devices import AdeDeviceStore

    return ade_server_of(serial_number, ade_servers().names, AdeDeviceStore())


@cache
def blueprint_plans() -> "BlueprintPlans":
    """Return what brings devices to blueprints."""
    from mdmlib.services.blueprint_plans import BlueprintPlans

    return BlueprintPlans(
        plans=plans(),
        blueprints=blueprints(),
        profiles=stored_profiles(),
        ade_server_of=_ade_server_of,
    )


@cache
def blueprint_jobs() -> "BlueprintJobs":
    """Return the jobs that bring many devices to blueprints."""
    import uuid

    from mdmlib.services.blueprint_jobs import BlueprintJobs

    return BlueprintJobs(
        plans=blueprint_plans(),
        blueprints=blueprints(),
        workflow_queue=workflow_queue(),
        now=now,
        new_id=lambda: uuid.uuid4().hex,
    )


@cache
def workflow() -> "Workflow":
    """Return what moves plans on."""
    from mdmlib.services.workflow import Workflow

    return Workflow(
        plans=plans(),
        blueprint_plans=blueprint_plans(),
        jobs=blueprint_jobs(),
        apps=apps(),
        builtin=builtin_plans(),
        events=workflow_events(),
        workflow_queue=workflow_queue(),
        now=now,
    )


@cache
def escrow_key_unlock() -> "EscrowKeyUnlock":
    """Return the way to Apple's service that ends Activation Locks."""
    from mdmlib.services.escrow_key_unlock import EscrowKeyUnlock

    def client() -> "EscrowKeyUnlockClient":
        from mdmlib import __version__
        from mdmlib.clients.escrow_key_unlock import EscrowKeyUnlockClient

        return EscrowKeyUnlockClient(
            url=settings().escrow_key_unlock_url,
            trust_anchor=settings().apns_trust_anchor,
            user_agent=f"PicoMDM/{__version__}",
        )

    return EscrowKeyUnlock(push_certificates=push_certificates(), client=client)


def forget() -> None:
    """Forget everything that was built: for tests that change the environment."""
    for built in list(globals().values()):
        if hasattr(built, "cache_clear"):
            built.cache_clear()
