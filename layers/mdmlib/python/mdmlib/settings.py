"""What a deployment can set. The template puts each into the functions' environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

IDENTITY_METHODS: Final = frozenset({"signature", "header", "mtls"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One deployment's settings.

    Read with :meth:`from_environment`, once, by :mod:`mdmlib.runtime`. URLs carry no trailing slash.
    """

    stack_name: str
    enrollment_table: str
    resource_table: str
    payload_bucket: str
    event_bus: str
    secret_id: str
    push_queue_url: str
    sweep_queue_url: str
    workflow_queue_url: str
    event_fallback_queue_url: str
    webhook_queue_arn: str
    webhook_queue_url: str
    webhook_dead_letter_queue_url: str
    target_dead_letter_queue_arn: str
    """Where the event bus puts what it cannot bring to the webhook queue."""
    push_dead_letter_queue_url: str
    sweep_dead_letter_queue_url: str
    workflow_dead_letter_queue_url: str
    event_fallback_dead_letter_queue_url: str
    target_dead_letter_queue_url: str
    event_archive_arn: str
    """The archive of the event bus, which events are replayed from; empty: none are kept."""
    device_url: str
    """Where devices reach this deployment, as enrollment profiles say it: ``https://mdm.example.org``."""
    admin_api_id: str
    """The API whose requests are signed with SigV4, and checked by API Gateway; those of any other need a password."""
    apns_url: str = "https://api.push.apple.com"
    apns_trust_anchor: str = field(default="", repr=False)
    """PEM certificates to trust for ``apns_url`` and ``escrow_key_unlock_url`` instead of the system's; empty: the
    system's."""
    escrow_key_unlock_url: str = "https://deviceservices-external.apple.com/deviceservicesworkers/escrowKeyUnlock"
    """Where Apple takes the escrow key that ends a device's Activation Lock."""
    organization: str = "PicoMDM"
    """Shown to users as the sender of profiles."""
    enrollment_access: str = "link"
    """``link``: only with an enrollment link; ``open``: whoever reaches ``/mdm/enroll`` (MicroMDM's behaviour)."""
    identity: str = "signature"
    """What proves who a device is: one or several of ``signature`` (of each message), ``header`` (a proxy's) and
    ``mtls``, separated by commas."""
    certificate_header: str = "Client-Cert"
    """The header in which a proxy tells of the client's certificate."""
    proxy_secret_hash: str = ""
    """SHA-256 (hex) of the secret by which that proxy is known; empty: there is none."""
    mtls_domain_name: str = ""
    """The domain of the API that speaks mutual TLS; empty: there is none."""
    identity_days: int = 365
    """Validity of the certificates that the SCEP CA issues."""
    renewal_days: int = 60
    """So many days before their end identities are renewed; 0: never."""
    identity_grace_days: int = 30
    """For how long an expired but associated certificate is still accepted."""
    previous_identity_hours: int = 24
    """For how long a replaced certificate may still report results."""
    retroactive_association: str = "off"
    """``on`` lets an enrollment that has no certificate yet, one of another server's, have the first that it uses."""
    last_seen_minutes: int = 60
    """``last_seen`` is written at most once in so many minutes."""
    stale_days: int = 30
    """A device that was not heard of for so many days is told of; 0: none is."""
    setup_minutes: int = 10
    """A device that waits in Setup Assistant is told after so many minutes, at the latest, that it is configured."""
    command_days: int = 180
    """A pending command expires after so many days, unless it says otherwise."""
    result_days: int = 90
    """A command's result is kept for so many days."""
    pushes_per_second: int = 500
    """Pace of one push worker."""
    user_authenticate: str = "decline"
    """What a network user who logs in on a Mac gets: ``decline`` (410: not managed), ``empty`` (managed, with no proof
    of who it is) or ``digest`` (managed after proving to be one of the managed users)."""
    user_realm: str = "PicoMDM"
    """Goes into the digests of managed users' passwords; with another one they all have to be set anew."""
    return_to_service: str = "off"
    """``on`` lets devices in return-to-service mode erase themselves for their next user."""
    ddm_url: str = ""
    """Another server for declarative management, which devices' requests are forwarded to; empty: this one."""
    ade_url: str = "https://mdmenrollment.apple.com"
    """Apple's device enrollment service."""
    ade_sync_minutes: int = 15
    """So often Apple is asked what happened to the devices of ADE servers."""
    ade_unverified: str = "off"
    """``on`` lets devices enroll by ADE and over the air although no authority was uploaded to verify them with."""
    auth_proxy_url: str = ""
    """Where ``/authproxy/`` leads enrolled devices to; empty: nowhere."""
    archive_days: int = 14
    """For so many days the archive keeps events."""
    url_suffix: str = "amazonaws.com"
    """What the names of AWS' servers end with in this partition."""
    webhook_url: str = ""
    """The first webhook subscription, made by the template; empty: none."""

    @property
    def identity_methods(self) -> frozenset[str]:
        """What proves who a device is. Raises ``ValueError`` for an unknown word: it might be the one that counts."""
        methods = frozenset(self.identity.split(","))
        if not methods <= IDENTITY_METHODS:
            raise ValueError(f"IDENTITY is a list of {', '.join(sorted(IDENTITY_METHODS))}.")
        return methods

    @property
    def mdm_url(self) -> str:
        """Where enrolled devices report, as enrollment profiles say it."""
        return f"https://{self.mtls_domain_name}" if self.mtls_domain_name else self.device_url

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from upper-case variables of the fields' names.

        Raises ``KeyError`` for a missing one that has no default: the template sets them all.
        """
        return cls(
            stack_name=environment["STACK_NAME"],
            enrollment_table=environment["ENROLLMENT_TABLE"],
            resource_table=environment["RESOURCE_TABLE"],
            payload_bucket=environment["PAYLOAD_BUCKET"],
            event_bus=environment["EVENT_BUS"],
            secret_id=environment["SECRET_ID"],
            push_queue_url=environment["PUSH_QUEUE_URL"],
            sweep_queue_url=environment["SWEEP_QUEUE_URL"],
            workflow_queue_url=environment["WORKFLOW_QUEUE_URL"],
            event_fallback_queue_url=environment["EVENT_FALLBACK_QUEUE_URL"],
            webhook_queue_arn=environment["WEBHOOK_QUEUE_ARN"],
            webhook_queue_url=environment["WEBHOOK_QUEUE_URL"],
            webhook_dead_letter_queue_url=environment["WEBHOOK_DEAD_LETTER_QUEUE_URL"],
            target_dead_letter_queue_arn=environment["TARGET_DEAD_LETTER_QUEUE_ARN"],
            push_dead_letter_queue_url=environment["PUSH_DEAD_LETTER_QUEUE_URL"],
            sweep_dead_letter_queue_url=environment["SWEEP_DEAD_LETTER_QUEUE_URL"],
            workflow_dead_letter_queue_url=environment["WORKFLOW_DEAD_LETTER_QUEUE_URL"],
            event_fallback_dead_letter_queue_url=environment["EVENT_FALLBACK_DEAD_LETTER_QUEUE_URL"],
            target_dead_letter_queue_url=environment["TARGET_DEAD_LETTER_QUEUE_URL"],
            event_archive_arn=environment["EVENT_ARCHIVE_ARN"],
            device_url=environment["DEVICE_URL"].rstrip("/"),
            admin_api_id=environment["ADMIN_API_ID"],
            apns_url=environment.get("APNS_URL", cls.apns_url).rstrip("/"),
            apns_trust_anchor=environment.get("APNS_TRUST_ANCHOR", ""),
            escrow_key_unlock_url=environment.get("ESCROW_KEY_UNLOCK_URL", cls.escrow_key_unlock_url).rstrip("/"),
            organization=environment.get("ORGANIZATION", cls.organization),
            enrollment_access=environment.get("ENROLLMENT_ACCESS", cls.enrollment_access),
            identity=environment.get("IDENTITY", cls.identity),
            certificate_header=environment.get("CERTIFICATE_HEADER", cls.certificate_header),
            proxy_secret_hash=environment.get("PROXY_SECRET_HASH", ""),
            mtls_domain_name=environment.get("MTLS_DOMAIN_NAME", ""),
            identity_days=int(environment.get("IDENTITY_DAYS", cls.identity_days)),
            renewal_days=int(environment.get("RENEWAL_DAYS", cls.renewal_days)),
            identity_grace_days=int(environment.get("IDENTITY_GRACE_DAYS", cls.identity_grace_days)),
            previous_identity_hours=int(environment.get("PREVIOUS_IDENTITY_HOURS", cls.previous_identity_hours)),
            retroactive_association=environment.get("RETROACTIVE_ASSOCIATION", cls.retroactive_association),
            last_seen_minutes=int(environment.get("LAST_SEEN_MINUTES", cls.last_seen_minutes)),
            stale_days=int(environment.get("STALE_DAYS", cls.stale_days)),
            setup_minutes=int(environment.get("SETUP_MINUTES", cls.setup_minutes)),
            command_days=int(environment.get("COMMAND_DAYS", cls.command_days)),
            result_days=int(environment.get("RESULT_DAYS", cls.result_days)),
            pushes_per_second=int(environment.get("PUSHES_PER_SECOND", cls.pushes_per_second)),
            user_authenticate=environment.get("USER_AUTHENTICATE", cls.user_authenticate),
            user_realm=environment.get("USER_REALM", cls.user_realm),
            return_to_service=environment.get("RETURN_TO_SERVICE", cls.return_to_service),
            ddm_url=environment.get("DDM_URL", "").rstrip("/"),
            ade_url=environment.get("ADE_URL", cls.ade_url).rstrip("/"),
            ade_sync_minutes=int(environment.get("ADE_SYNC_MINUTES", cls.ade_sync_minutes)),
            ade_unverified=environment.get("ADE_UNVERIFIED", cls.ade_unverified),
            auth_proxy_url=environment.get("AUTH_PROXY_URL", "").rstrip("/"),
            archive_days=int(environment.get("ARCHIVE_DAYS", cls.archive_days)),
            url_suffix=environment.get("URL_SUFFIX", cls.url_suffix),
            webhook_url=environment.get("WEBHOOK_URL", ""),
        )
