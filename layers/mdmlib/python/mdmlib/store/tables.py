"""The two tables: every item class, its keys and indexes. Their formats are final.

All classes of a table stand here because pynamodb filters each Query by the classes that it knows: one that lived in a
module that was not imported would vanish from results without a word.

The enrollment table (hash ``enrollment_id``, range ``item``), one partition per enrollment:

====================================  ==================================================================
``!``                                 the record (:class:`Enrollment`); sorts first
``c#<generation>#<priority><order>``  pending commands in the order in which they go out
``d#<generation>#<dedup key>``        one pending command per key
``m#Authenticate``, ``m#TokenUpdate`` the last check-in messages, sealed; also those of a newer release of Apple's
``i#current``, ``i#change#<time>…``   what is known of the device, and how that changed, sealed
``p#<kind>``                          plans (:class:`Plan`): what the device is brought to, step by step
``r#<command uuid>``                  results
``s#UnlockToken``, ``s#BootstrapToken`` secrets, sealed
``s#UserAuthentication``              of a user channel: how far its user's login has come, sealed
====================================  ==================================================================

and partitions beside them, whose keys hold a ``#``, which no enrollment's id does:

====================================  ==================================================================
``command#<uuid>``, ``!``             a command with its payload, once for all its enrollments
``cert#<sha256>``, ``!``              a device certificate and the enrollment that it is associated with
``challenge#<nonce>``, ``!``          a SCEP challenge that was redeemed
``serial#<serial number>``, ``!``     the hash of a certificate that was issued here, by its serial number (hex)
``issued#<sha256>``, ``!``            a certificate issued by SCEP, for clients that lost the answer
``escrow#<owner>``, ``<kind>#<id>``   keys and PINs that outlive an enrollment, by serial number, sealed
``outbox#<shard>``, ``<event id>``    events that were committed with a record and not yet published
``awaiting#``, ``<id>#<epoch>``       enrollments that wait in Setup Assistant to be told that they are configured
====================================  ==================================================================

The resource table (hash ``collection``, range ``name``) holds everything that administrators name.

Times that are compared are epoch seconds (``*_at`` numbers); ``ttl`` is the attribute that DynamoDB deletes by.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from zlib import crc32

from pynamodb.attributes import DiscriminatorAttribute, JSONAttribute, ListAttribute, UnicodeSetAttribute
from pynamodb.indexes import GlobalSecondaryIndex, IncludeProjection

from mdmlib.store.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.items import Item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RECORD: Final = "!"
PENDING: Final = "c#"
DEDUP: Final = "d#"
MESSAGE: Final = "m#"
PLAN: Final = "p#"
INVENTORY: Final = "i#"
RESULT: Final = "r#"
SECRET: Final = "s#"  # noqa: S105 - a key's prefix

COMMAND_PARTITION: Final = "command#"
CERTIFICATE_PARTITION: Final = "cert#"
CHALLENGE_PARTITION: Final = "challenge#"
ISSUED_PARTITION: Final = "issued#"
SERIAL_PARTITION: Final = "serial#"
OUTBOX_PARTITION: Final = "outbox#"
ESCROW_PARTITION: Final = "escrow#"
AWAITING_PARTITION: Final = "awaiting#"

OTA_IDENTITY: Final = "ota#"
"""In place of an enrollment's id: the certificate is of over-the-air enrollment, and enrolls nobody."""

SHARDS: Final = 16
"""How many shards the ``listing``, ``expiring`` and ``waiting`` indexes and the outbox have: ``0`` to ``f``."""

LONGEST_ID: Final = 1_023
"""Bytes of an enrollment's id: a hash key has one more."""

FIRST_GENERATION: Final = "ffffffff"
"""Generations are 8 hex digits that count down, so that the living one sorts directly after the record."""


# pynamodb adds `cls IN (...)` to each Query, on indexes too: each index has to carry `cls`.
class ByParent(GlobalSecondaryIndex["EnrollmentItem"]):
    """The user channels of a device."""

    class Meta:
        index_name = "by_parent"
        projection = IncludeProjection(["cls", "type", "state"])

    parent_id = UnicodeAttribute(hash_key=True)
    enrollment_id = UnicodeAttribute(range_key=True)


class BySerial(GlobalSecondaryIndex["EnrollmentItem"]):
    """The enrollments of a serial number."""

    class Meta:
        index_name = "by_serial"
        projection = IncludeProjection(["cls", "type", "state"])

    serial_number = UnicodeAttribute(hash_key=True)
    enrollment_id = UnicodeAttribute(range_key=True)


LISTING_ATTRIBUTES: Final = (
    "cls",
    "type",
    "parent_id",
    "state",
    "blocked",
    "serial_number",
    "model",
    "product_name",
    "os_version",
    "device_name",
    "enrolled_at",
    "last_seen_at",
)


class Listing(GlobalSecondaryIndex["EnrollmentItem"]):
    """All enrollments, in 16 shards, with what a list of them shows."""

    class Meta:
        index_name = "listing"
        projection = IncludeProjection(list(LISTING_ATTRIBUTES))

    listing_shard = UnicodeAttribute(hash_key=True)
    enrollment_id = UnicodeAttribute(range_key=True)


class Expiring(GlobalSecondaryIndex["EnrollmentItem"]):
    """Enrollments by the end of their identity's validity."""

    class Meta:
        index_name = "expiring"
        projection = IncludeProjection(["cls", "state"])

    expiring_shard = UnicodeAttribute(hash_key=True)
    identity_not_after = NumberAttribute(range_key=True)


class Waiting(GlobalSecondaryIndex["EnrollmentItem"]):
    """Pending commands by age."""

    class Meta:
        index_name = "waiting"
        projection = IncludeProjection(["cls", "command_uuid"])

    waiting_shard = UnicodeAttribute(hash_key=True)
    enqueued_at = NumberAttribute(range_key=True)


class EnrollmentItem(Item):
    """Any item of the enrollment table."""

    class Meta:
        table_name: ClassVar[str | None] = None  # bind() says
        region: ClassVar[str | None] = None
        host: ClassVar[str | None] = None
        connect_timeout_seconds = 2
        read_timeout_seconds = 5
        max_retry_attempts = 3

    enrollment_id = UnicodeAttribute(hash_key=True)
    item = UnicodeAttribute(range_key=True)
    cls = DiscriminatorAttribute()
    ttl = NumberAttribute(null=True)

    by_parent = ByParent()
    by_serial = BySerial()
    listing = Listing()
    expiring = Expiring()
    waiting = Waiting()


class Enrollment(EnrollmentItem, discriminator="enrollment"):
    """An enrollment's record, item ``!``.

    ``state`` is ``authenticated`` (between Authenticate and TokenUpdate), ``enrolled``, ``checked_out`` or ``deleted``
    (a tombstone, which keeps the generation).
    """

    type = UnicodeAttribute()
    state = UnicodeAttribute()
    blocked = BooleanAttribute(null=True)
    parent_id = UnicodeAttribute(null=True)
    listing_shard = UnicodeAttribute(null=True)

    serial_number = UnicodeAttribute(null=True)
    model = UnicodeAttribute(null=True)
    model_name = UnicodeAttribute(null=True)
    product_name = UnicodeAttribute(null=True)
    os_version = UnicodeAttribute(null=True)
    build_version = UnicodeAttribute(null=True)
    device_name = UnicodeAttribute(null=True)
    imei = UnicodeAttribute(null=True)
    meid = UnicodeAttribute(null=True)
    is_supervised = BooleanAttribute(null=True)
    """As it last answered to DeviceInformation; null: it was never asked."""
    user_short_name = UnicodeAttribute(null=True)
    user_long_name = UnicodeAttribute(null=True)

    topic = UnicodeAttribute(null=True)
    push = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed JSON ``{"token": hex, "magic": str}``, as of the last TokenUpdate."""
    push_token_hash = UnicodeAttribute(null=True)
    """SHA-256 of the token: APNs' refusal of an older one must not disable a newer one."""
    push_failure = UnicodeAttribute(null=True)
    """APNs' final reason for refusing this token (``Unregistered``, ``BadDeviceToken``); a TokenUpdate ends it."""
    push_failed_at = NumberAttribute(null=True)
    push_failed_by = UnicodeAttribute(null=True)
    """The ``apns-id`` of the push that was refused: when its message comes again, it failed when it did."""

    identity = UnicodeAttribute(null=True)
    """SHA-256 (hex) of the associated certificate."""
    expected_identity = UnicodeAttribute(null=True)
    """Of an enrollment that another server knew: the hash of the certificate that it had there. No other will do."""
    identity_not_after = NumberAttribute(null=True)
    expiring_shard = UnicodeAttribute(null=True)
    previous_identity = UnicodeAttribute(null=True)
    previous_identity_until = NumberAttribute(null=True)
    renewed_identities: ListAttribute[str] = ListAttribute(null=True)
    """SHA-256 (hex) of certificates that renewals have issued and that the device has not used yet, in their order."""
    revoked_identities: ListAttribute[str] = ListAttribute(null=True)
    """SHA-256 (hex) of those among the above that were revoked."""
    renewal_stage = NumberAttribute(null=True)
    """Days before the identity's end (0: its end itself) that were last told of by ``mdm.IdentityExpiring``."""
    renewal_attempts = NumberAttribute(null=True)
    """How often a renewal of this identity was queued."""
    renewal_queued_at = NumberAttribute(null=True)

    generation = UnicodeAttribute()
    epoch = NumberAttribute(default=0)
    """Of a device: counts its Authenticates and CheckOuts; one write ends all user channels of older epochs."""
    device_epoch = NumberAttribute(null=True)
    """Of a user channel: the device's epoch that it was enabled under."""
    token_update_tally = NumberAttribute(default=0)
    awaiting_configuration = BooleanAttribute(null=True)
    auth_token_hash = UnicodeAttribute(null=True)
    """Of a network user's channel: SHA-256 (hex) of the AuthToken that each of its messages has to carry."""

    authenticate_hash = UnicodeAttribute(null=True)
    """SHA-256 over the last Authenticate's body and certificate: tells a repeat from a new enrollment."""
    authenticate_event_id = UnicodeAttribute(null=True)
    authenticated_at = NumberAttribute(null=True)
    token_update_hash = UnicodeAttribute(null=True)
    """SHA-256 over the last TokenUpdate's body and certificate: a repeat is published again under the same id."""
    token_update_event_id = UnicodeAttribute(null=True)
    token_updated_at = NumberAttribute(null=True)
    enrolled_at = NumberAttribute(null=True)
    checked_out_at = NumberAttribute(null=True)
    last_seen_at = NumberAttribute(null=True)
    stale_stage = NumberAttribute(null=True)
    """After how many days of silence ``mdm.EnrollmentStale`` last told of it."""
    stale_since = NumberAttribute(null=True)
    """The ``last_seen_at`` that it was silent since; with another one ``stale_stage`` is of a former silence."""
    link = UnicodeAttribute(null=True)
    """The enrollment link (its public id) that the identity was issued under."""


class PendingCommand(EnrollmentItem, discriminator="pending"):
    """A command that waits for its enrollment."""

    command_uuid = UnicodeAttribute()
    request_type = UnicodeAttribute()
    payload = BinaryAttribute(null=True, legacy_encoding=False)
    """The raw plist, sealed for ``<enrollment id>/<item>``, when it is at most 4 KiB; else it is the command's."""
    enqueued_at = NumberAttribute()
    waiting_shard = UnicodeAttribute()
    expires_at = NumberAttribute()
    not_before = NumberAttribute(null=True)
    not_now_at = NumberAttribute(null=True)
    """When it was first answered NotNow."""
    not_now_tally = NumberAttribute(null=True)
    dedup_key = UnicodeAttribute(null=True)
    suits = UnicodeAttribute(null=True)
    """What its device was when the command was found to suit it; null: it is handed out whatever the device is."""
    kind = UnicodeAttribute(null=True)
    """``renewal_profile``: its payload is made when it is handed out."""


class DedupKey(EnrollmentItem, discriminator="dedup"):
    """Holds the place of the one pending command with this key."""

    command_uuid = UnicodeAttribute()


class Message(EnrollmentItem, discriminator="message"):
    """The last message of its type, whole: Authenticate, TokenUpdate, or one that this release does not know."""

    body = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``<enrollment id>/<item>``."""
    received_at = NumberAttribute()


class EnrollmentSecret(EnrollmentItem, discriminator="secret"):
    """An unlock token, a bootstrap token, or the state of a login."""

    value = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``<enrollment id>/<item>``."""
    received_at = NumberAttribute()


class CommandResult(EnrollmentItem, discriminator="result"):
    """What a device finally reported on a command."""

    command_uuid = UnicodeAttribute()
    request_type = UnicodeAttribute(null=True)
    status = UnicodeAttribute()
    event_id = UnicodeAttribute()
    """A repeated report is published again under this id."""
    error_chain: JSONAttribute = JSONAttribute(null=True)
    payload = BinaryAttribute(null=True, legacy_encoding=False)
    """The whole report, sealed for ``<enrollment id>/<item>``; above 16 KiB it lies in S3."""
    payload_ref = UnicodeAttribute(null=True)
    reported_at = NumberAttribute()


class Plan(EnrollmentItem, discriminator="plan"):
    """What a device is brought to, step by step: the last plan of its kind.

    Each change is written on the condition that nobody else made one, together with the commands that it queues.
    """

    run = UnicodeAttribute()
    """Tells one beginning of the plan from the next; who begins the same run again finds it begun."""
    epoch = NumberAttribute()
    """The device's, under which it began: with the enrollment its plans end."""
    generation = UnicodeAttribute()
    """Under which its commands were queued: when an administrator clears the queue, they are gone."""
    state = UnicodeAttribute()
    """``running``, ``done`` or ``failed`` (it is over, and a step of it failed)."""
    cause = UnicodeAttribute()
    """Why it began: ``enrollment``, ``change`` or ``request``."""
    version = NumberAttribute()
    document = BinaryAttribute(legacy_encoding=False)
    """Its steps and what it has learned, JSON (:class:`mdmlib.services.plan_document.PlanDocument`), sealed for
    ``<enrollment id>/<item>``: commands of administrators may hold secrets."""
    begun_at = NumberAttribute()
    changed_at = NumberAttribute()
    finished_at = NumberAttribute(null=True)
    waiting_shard = UnicodeAttribute(null=True)
    """``plan-<shard>`` while it is running, ``failed-<shard>`` once it failed: the index ``waiting`` finds both."""
    enqueued_at = NumberAttribute(null=True)
    """For that index: when a running one is looked at, should nothing happen until then; when a failed one failed."""


class Inventory(EnrollmentItem, discriminator="inventory"):
    """Item ``i#current``: what a device last told of itself."""

    document = BinaryAttribute(legacy_encoding=False)
    """Fields of ``services.inventory.Known``, JSON, sealed for ``<enrollment id>/<item>``."""
    version = NumberAttribute()
    waiting_shard = UnicodeAttribute()
    """``inventory-<shard>``: by the index ``waiting`` all of them are found."""
    enqueued_at = NumberAttribute()
    """When the device told, for that index."""


class InventoryChange(EnrollmentItem, discriminator="inventory_change"):
    """Items ``i#change#<milliseconds>#<version>``: what was another thing before."""

    changes = BinaryAttribute(legacy_encoding=False)
    """``{"<what>": [<before>, <after>]}``, JSON, sealed for ``<enrollment id>/<item>``."""
    changed_at = NumberAttribute()


class EscrowedSecret(EnrollmentItem, discriminator="escrowed"):
    """Partition ``escrow#<serial number or enrollment>``, items ``<kind>#<id>``: a key or a PIN, never overwritten."""

    kind = UnicodeAttribute()
    """``filevault_key`` or ``lock_pin``."""
    value = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``<partition>/<item>``."""
    owner_enrollment = UnicodeAttribute()
    """The enrollment that it came from."""
    escrowed_at = NumberAttribute()
    revealed_at = NumberAttribute(null=True)
    """When somebody last read it."""


class Command(EnrollmentItem, discriminator="command"):
    """A command as an administrator queued it, in a partition of its own."""

    request_type = UnicodeAttribute()
    body_hash = UnicodeAttribute()
    """SHA-256 (hex) of the raw plist."""
    order = UnicodeAttribute()
    """``<priority><order>``: with an enrollment's generation this is the key of its pending item."""
    payload = BinaryAttribute(null=True, legacy_encoding=False)
    """The raw plist, sealed for ``command#<uuid>/!``; above 350 KiB it lies in S3."""
    payload_ref = UnicodeAttribute(null=True)
    created_at = NumberAttribute()
    expires_at = NumberAttribute()
    dedup_key = UnicodeAttribute(null=True)
    """As in its pending item, for a report that has to settle it without having read that."""


class Certificate(EnrollmentItem, discriminator="certificate"):
    """A device's certificate. The conditional write of ``associated_id`` is what keeps it at one enrollment."""

    associated_id = UnicodeAttribute(null=True)
    associated_at = NumberAttribute(null=True)
    not_after = NumberAttribute(null=True)
    replaces = UnicodeAttribute(null=True)
    """SHA-256 (hex) of the certificate that this one renewed."""
    link = UnicodeAttribute(null=True)
    serial_hash = UnicodeAttribute(null=True)
    """Of the serial number of the only device that may enroll with it, where that was known when it was issued."""
    issuer = UnicodeAttribute(null=True)
    """The name of the CA of ours that issued it."""
    serial_number = UnicodeAttribute(null=True)
    """The certificate's own, hex without leading zeros; known of those that were issued here."""
    revoked_at = NumberAttribute(null=True)


class CertificateSerial(EnrollmentItem, discriminator="serial"):
    """Leads from the serial number of a certificate that was issued here to its hash."""

    certificate_hash = UnicodeAttribute()


class RedeemedChallenge(EnrollmentItem, discriminator="challenge"):
    """A SCEP challenge that was used; its ``ttl`` is after the challenge's own expiry."""

    link = UnicodeAttribute(null=True)


class IssuedCertificate(EnrollmentItem, discriminator="issued"):
    """What SCEP answered to a transaction ID and key."""

    certificate = BinaryAttribute(legacy_encoding=False)
    """DER; public."""


class OutboxEvent(EnrollmentItem, discriminator="outbox"):
    """An event committed with the state that it tells of."""

    topic = UnicodeAttribute()
    detail = UnicodeAttribute()
    """JSON, exactly what goes to the bus."""
    created_at = NumberAttribute()


class AwaitedConfiguration(EnrollmentItem, discriminator="awaited_configuration"):
    """An enrollment that waits in Setup Assistant, in one of its lives, until it is told that it is configured."""

    due_at = NumberAttribute()
    """When it is told so, or told again, at the latest."""
    attempts = NumberAttribute(default=0)


class ResourceItem(Item):
    """Any item of the resource table."""

    class Meta:
        table_name: ClassVar[str | None] = None  # bind() says
        region: ClassVar[str | None] = None
        host: ClassVar[str | None] = None
        connect_timeout_seconds = 2
        read_timeout_seconds = 5
        max_retry_attempts = 3

    collection = UnicodeAttribute(hash_key=True)
    name = UnicodeAttribute(range_key=True)
    cls = DiscriminatorAttribute()
    ttl = NumberAttribute(null=True)


class CertificateAuthority(ResourceItem, discriminator="ca"):
    """Collection ``ca``: the CAs of SCEP (``scep``, ``scep-2`` …; no other name begins so) and uploaded ones."""

    certificate = BinaryAttribute(legacy_encoding=False)
    """DER."""
    intermediates = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM: the other certificates of an uploaded bundle."""
    private_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PKCS #8 DER, sealed for ``ca/<name>``."""
    activates_at = NumberAttribute(null=True)
    """When one of ours comes, or came, into use; null: nobody said yet (``scep`` itself: from the beginning)."""
    created_at = NumberAttribute()


class RevokedCertificate(ResourceItem, discriminator="revoked_certificate"):
    """Collection ``revoked_certificate``, name = the certificate's SHA-256 (hex): of these CRLs are made."""

    serial_number = UnicodeAttribute(null=True)
    """As its :class:`Certificate` has it; without it, it is in no CRL."""
    issuer = UnicodeAttribute(null=True)
    """The name of the CA of ours that issued it."""
    enrollment_id = UnicodeAttribute(null=True)
    reason = UnicodeAttribute()
    """Of RFC 5280, in snake case."""
    revoked_at = NumberAttribute()
    not_after = NumberAttribute()


class StaticScepChallenge(ResourceItem, discriminator="scep_challenge"):
    """Collection ``scep_challenge``, name ``static``: whoever knows it gets an identity."""

    challenge = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``scep_challenge/static``."""
    set_at = NumberAttribute()


class PushCertificate(ResourceItem, discriminator="push_certificate"):
    """Collection ``push_certificate``, name = topic."""

    certificate = BinaryAttribute(legacy_encoding=False)
    """PEM."""
    private_key = BinaryAttribute(legacy_encoding=False)
    """PEM (PKCS #8), sealed for ``push_certificate/<topic>``."""
    not_after = NumberAttribute()
    uploaded_at = NumberAttribute()


class PushCertificateRequest(ResourceItem, discriminator="push_certificate_request"):
    """Collection ``push_certificate_request``, name = a random id: a key that waits for its push certificate."""

    csr = BinaryAttribute(legacy_encoding=False)
    """DER."""
    certificate = BinaryAttribute(legacy_encoding=False)
    """DER: self-signed, for who answers with an envelope."""
    private_key = BinaryAttribute(legacy_encoding=False)
    """PKCS #8 DER, sealed for ``push_certificate_request/<id>``."""
    created_at = NumberAttribute()


class EnrollmentLink(ResourceItem, discriminator="enrollment_link"):
    """Collection ``enrollment_link``, name = the link's public id (a part of the SHA-256 of its token)."""

    topic = UnicodeAttribute()
    created_at = NumberAttribute()
    expires_at = NumberAttribute()
    max_uses = NumberAttribute(null=True)
    uses = NumberAttribute(default=0)
    revoked = BooleanAttribute(null=True)
    note = UnicodeAttribute(null=True)
    serial_numbers: JSONAttribute = JSONAttribute(null=True)
    """The only devices that may enroll by it; null: any."""


class WebhookSubscription(ResourceItem, discriminator="webhook"):
    """Collection ``webhook``, name = the subscription's id."""

    url = UnicodeAttribute()
    topics: JSONAttribute = JSONAttribute(null=True)
    """Filter: a list of topics; null: all. So are the next three."""
    enrollment_types: JSONAttribute = JSONAttribute(null=True)
    request_types: JSONAttribute = JSONAttribute(null=True)
    statuses: JSONAttribute = JSONAttribute(null=True)
    redact = UnicodeAttribute(null=True)
    """What is left out of what is delivered: ``secrets`` or ``payload``; null: nothing."""
    headers = BinaryAttribute(null=True, legacy_encoding=False)
    """The customer's own, a JSON object, sealed for ``webhook/<id>/headers``: they may hold a token."""
    header_names: JSONAttribute = JSONAttribute(null=True)
    hmac_key = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed for ``webhook/<id>``."""
    next_hmac_key = BinaryAttribute(null=True, legacy_encoding=False)
    """The key that takes over; sealed for ``webhook/<id>/next``."""
    created_at = NumberAttribute()
    paused_at = NumberAttribute(null=True)
    """Since then nothing is posted, until an administrator says so."""
    drops_events = BooleanAttribute(null=True)
    """While it is paused, events are dropped; else they wait."""
    held_until = NumberAttribute(null=True)
    """While it keeps failing, its messages are postponed until then."""
    failures = NumberAttribute(default=0)
    slow_ms = NumberAttribute(null=True)
    """How long its receiver takes, when that is long; null: it is quick."""
    next_turn_ms = NumberAttribute(null=True)
    """While it is slow: when the next delivery that asks may go out, milliseconds since 1970."""
    last_test = BinaryAttribute(null=True, legacy_encoding=False)
    """What became of the last test, a JSON object, sealed for ``webhook/<id>/test``: the answer is anybody's words."""


class ManagedUser(ResourceItem, discriminator="managed_user"):
    """Collection ``managed_user``, name = the user's short name in the directory."""

    digest = BinaryAttribute(legacy_encoding=False)
    """H(A1) of RFC 7616, hex, sealed for ``managed_user/<name>``: as good as the password for who knows it."""
    realm = UnicodeAttribute()
    """What the digest was made with; in another one it is of no use."""
    user_id = UnicodeAttribute(null=True)
    """The only UserID (GUID in the directory) that this user may log in as."""
    created_at = NumberAttribute()


class RemoteTokenSource(ResourceItem, discriminator="token_source"):
    """Collection ``token_source``, name = a TokenServiceType: who makes its tokens."""

    url = UnicodeAttribute()
    hmac_key = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``token_source/<name>``."""
    created_at = NumberAttribute()


class AdeServer(ResourceItem, discriminator="ade_server"):
    """Collection ``ade_server``, name = the administrator's name for a server in Apple Business or School Manager."""

    server_uuid = UnicodeAttribute(null=True)
    """Apple's identifier of the server, once it was asked."""
    certificate = BinaryAttribute(null=True, legacy_encoding=False)
    """DER: what Apple was given for this server."""
    private_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PKCS #8 DER, sealed for ``ade_server/<name>``."""
    staged_certificate = BinaryAttribute(null=True, legacy_encoding=False)
    """DER: what Apple is to be given; it takes the other's place when a token for it arrives."""
    staged_private_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PKCS #8 DER, sealed for ``ade_server/<name>/staged``."""
    token = BinaryAttribute(null=True, legacy_encoding=False)
    """Apple's JSON, sealed for ``ade_server/<name>/token``."""
    token_expires_at = NumberAttribute(null=True)
    token_imported_at = NumberAttribute(null=True)
    consumer_hash = UnicodeAttribute(null=True)
    """SHA-256 (hex) of the token's consumer key, which stays when a token is renewed: with another one, it is another
    server of Apple's, and what was defined or fetched before is not there."""
    account: JSONAttribute = JSONAttribute(null=True)
    """What Apple last told of the server and its organization."""
    account_asked_at = NumberAttribute(null=True)
    account_problem: JSONAttribute = JSONAttribute(null=True)
    """Why Apple did not tell when it was last asked: ``{"code", "detail"}``."""
    base_url = UnicodeAttribute(null=True)
    """Where this server is asked for, in place of ADE_URL."""
    created_at = NumberAttribute(null=True)


class AdeProfile(ResourceItem, discriminator="ade_profile"):
    """Collection ``ade_profile``, name = the administrator's: what devices do when they are switched on."""

    document: JSONAttribute = JSONAttribute()
    """What the administrator said, under Apple's keys; what was left out is filled in when Apple is told."""
    changed_at = NumberAttribute()


class AdeProfileDefinition(ResourceItem, discriminator="ade_profile_definition"):
    """Collection ``ade_profile_definition``, name = ``<server>/<profile>``: a profile as Apple knows it at a server."""

    profile_uuid = UnicodeAttribute()
    digest = UnicodeAttribute()
    """SHA-256 (hex) of what Apple was told, and of which server: with another one it has to be told anew."""
    defined_at = NumberAttribute()


class ActivationLock(ResourceItem, discriminator="activation_lock"):
    """Collection ``activation_lock``, name = serial number: what ends the lock that was put on a device from here."""

    bypass_code = BinaryAttribute(legacy_encoding=False)
    """16 bytes, sealed for ``activation_lock/<name>``."""
    server = UnicodeAttribute()
    """The ADE server that Apple was asked by."""
    status = UnicodeAttribute(null=True)
    """Apple's word for what became of it; null: no answer came."""
    created_at = NumberAttribute()
    locked_at = NumberAttribute(null=True)
    unlocked_at = NumberAttribute(null=True)


class DdmServer(ResourceItem, discriminator="ddm_server"):
    """Collection ``ddm_server``, name ``default``: the keys shared with the server that DDM_URL names."""

    send_key = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed for ``ddm_server/default/send``."""
    receive_key = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed for ``ddm_server/default/receive``."""
    changed_at = NumberAttribute()


class ReturnToServiceProfile(ResourceItem, discriminator="return_to_service"):
    """Collection ``return_to_service``, name ``wifi`` or ``mdm``: what a device installs after it erased itself."""

    profile = BinaryAttribute(legacy_encoding=False)
    """The profile as it was uploaded, sealed for ``return_to_service/<name>``."""
    uploaded_at = NumberAttribute()


class StoredProfile(ResourceItem, discriminator="profile"):
    """Collection ``profile``, name = the profile's PayloadIdentifier."""

    profile = BinaryAttribute(null=True, legacy_encoding=False)
    """As it was uploaded, sealed for ``profile/<name>``; above 300 KiB it lies in S3."""
    profile_ref = UnicodeAttribute(null=True)
    size = NumberAttribute()
    uploaded_at = NumberAttribute()


class Blueprint(ResourceItem, discriminator="blueprint"):
    """Collection ``blueprint``, name = the administrator's name for what devices shall have."""

    uuid = UnicodeAttribute()
    """Of MicroMDM's clients, which tell blueprints by it."""
    revision = NumberAttribute()
    """Counts its changes."""
    document = BinaryAttribute(legacy_encoding=False)
    """JSON with the fields of ``services.blueprint_content.Content``, sealed for ``blueprint/<name>``: its commands may
    hold secrets."""
    changed_at = NumberAttribute()


class DeviceAttributes(ResourceItem, discriminator="device_attributes"):
    """Collection ``device_attributes``, name = a serial number: what an administrator says of a device."""

    tags: JSONAttribute = JSONAttribute(null=True)
    values = BinaryAttribute(null=True, legacy_encoding=False)
    """Values of variables, a JSON object of texts, sealed for ``device_attributes/<serial number>``."""
    changed_at = NumberAttribute()


class FileVaultIdentity(ResourceItem, discriminator="filevault"):
    """Collection ``filevault``, name ``default``: whom Macs encrypt their recovery keys for."""

    certificate = BinaryAttribute(legacy_encoding=False)
    """DER."""
    private_key = BinaryAttribute(legacy_encoding=False)
    """PKCS #8 DER, sealed for ``filevault/default``."""
    created_at = NumberAttribute()


class ProfileName(ResourceItem, discriminator="profile_name"):
    """Collection ``profile_name``, name = NanoCMD's name for a stored profile."""

    identifier = UnicodeAttribute()


class CommandPlan(ResourceItem, discriminator="command_plan"):
    """Collection ``command_plan``, name = NanoCMD's name for a list of profiles and apps."""

    definition: JSONAttribute = JSONAttribute()
    """``{"profile_names": […], "manifest_urls": […], "device_configured": bool}``."""


class WorkflowEvent(ResourceItem, discriminator="workflow_event"):
    """Collection ``workflow_event``, name = NanoCMD's: what begins by itself when something happens to a device."""

    event = UnicodeAttribute()
    workflow = UnicodeAttribute()
    context = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``workflow_event/<name>``: texts that go into profiles may be secret."""
    event_context = UnicodeAttribute(null=True)
    """Of ``IdleNotStartedSince``: seconds."""


class App(ResourceItem, discriminator="app"):
    """Collection ``app``, name = a file's in ``/repo/``: a package, or a manifest that an administrator has made."""

    kind = UnicodeAttribute()
    """``package`` or ``manifest``."""
    manifest = BinaryAttribute(null=True, legacy_encoding=False)
    """Of a manifest: the property list as it was uploaded."""
    object_key = UnicodeAttribute(null=True)
    """Of a package: where it lies in the payload bucket, as it was uploaded: devices fetch it from there."""
    size = NumberAttribute()
    facts: JSONAttribute = JSONAttribute(null=True)
    """Fields of ``apple.package.PackageFacts``."""
    sha256s: JSONAttribute = JSONAttribute(null=True)
    """Of each chunk, hex."""
    uploaded_at = NumberAttribute()


class AppUpload(ResourceItem, discriminator="app_upload"):
    """Collection ``app_upload``, name = a random id: a package on its way into the bucket."""

    app = UnicodeAttribute()
    """The name that it is to have."""
    size = NumberAttribute()
    state = UnicodeAttribute()
    """``uploading``, ``hashing``, ``ready`` or ``refused``."""
    reason = UnicodeAttribute(null=True)
    facts: JSONAttribute = JSONAttribute(null=True)
    sha256s: JSONAttribute = JSONAttribute(null=True)
    """Of the chunks that have been read by now."""
    created_at = NumberAttribute()


class BlueprintJob(ResourceItem, discriminator="blueprint_job"):
    """Collection ``blueprint_job``, name = the job's id: blueprints on their way to many devices, page by page."""

    blueprints: JSONAttribute = JSONAttribute(null=True)
    """Names; null: whatever suits a device."""
    options: JSONAttribute = JSONAttribute()
    """``remove``: take away what is in these blueprints no more; ``again``: send also what does not differ."""
    cause = UnicodeAttribute()
    state = UnicodeAttribute()
    """``running``, ``done``."""
    step = NumberAttribute(default=0)
    """Counts the pages that are done: only who has done this one may write down the next."""
    position = UnicodeAttribute(default="")
    examined = NumberAttribute(default=0)
    begun = NumberAttribute(default=0)
    """For so many devices a plan was begun."""
    changed_at = NumberAttribute(null=True)
    """When the last page was done."""
    created_at = NumberAttribute()
    finished_at = NumberAttribute(null=True)


class MicroMDMUser(ResourceItem, discriminator="user"):
    """Collection ``user``, name = a UUID: an account for Macs that are set up, as MicroMDM's API knows it."""

    document = BinaryAttribute(legacy_encoding=False)
    """JSON with the fields of ``services.micromdm_users.User``, sealed for ``user/<name>``."""
    changed_at = NumberAttribute()


class DeviceCertificateAuthority(ResourceItem, discriminator="device_ca"):
    """Collection ``device_ca``, name = the administrator's: who makes the certificates that are built into devices."""

    certificate = BinaryAttribute(legacy_encoding=False)
    """DER."""
    uploaded_at = NumberAttribute()


class AdeSerialNumber(ResourceItem, discriminator="ade_serial"):
    """Collection ``ade_serial``, name = a serial number that may enroll by ADE; none at all: every genuine device."""

    note = UnicodeAttribute(null=True)
    added_at = NumberAttribute()


class AdeDevice(ResourceItem, discriminator="ade_device"):
    """Collections ``ade_device#<server>#<shard>``, name = serial number: a device in Apple's list of a server.

    It stays when it leaves the list: ``deleted_at`` says since when. Written by whoever holds the server's lease.
    """

    record: JSONAttribute = JSONAttribute()
    """All that Apple said of it the last time."""
    model = UnicodeAttribute(null=True)
    device_family = UnicodeAttribute(null=True)
    profile_uuid = UnicodeAttribute(null=True)
    """The profile that Apple gives it at its next activation, as far as is known."""
    profile_status = UnicodeAttribute(null=True)
    op_type = UnicodeAttribute(null=True)
    op_date = UnicodeAttribute(null=True)
    deleted_at = NumberAttribute(null=True)
    fetched_in = NumberAttribute(default=0)
    """The number of the fetch (:class:`AdeSync`) that it was last told of in, or after."""
    added_in = NumberAttribute(null=True)
    """Of one that a fetch found, and no sync told of: that fetch's number."""
    deleted_in = NumberAttribute(null=True)
    """Of one that a fetch did not tell of any more: that fetch's number."""
    rule = UnicodeAttribute(null=True)
    """The rule that decides on its profile."""
    wanted_profile = UnicodeAttribute(null=True)
    """The profile's name, where the rule has one."""
    wanted_uuid = UnicodeAttribute(null=True)
    assignment = UnicodeAttribute(default="none")
    """``none`` (no rule wants any), ``pending``, ``assigned``, or ``other`` (somebody chose another one since)."""
    assigned_at = NumberAttribute(null=True)
    attempts = NumberAttribute(default=0)
    """How often Apple was asked in vain."""
    retry_at = NumberAttribute(null=True)
    """Of one that is pending: not before then."""
    refusal = UnicodeAttribute(null=True)
    """Apple's last word against it: ``THROTTLED``, ``FAILED``, ``NOT_ACCESSIBLE``, or an error's code."""
    first_seen_at = NumberAttribute()
    changed_at = NumberAttribute()


class AdeAssignment(ResourceItem, discriminator="ade_assignment"):
    """Collections ``ade_assignment#<server>``, name = ``<retry_at, 10 digits>#<serial number>``: look at this device.

    No more than a pointer: one whose device is not pending, or pending for another time, is of no use any more.
    """


class AdeSync(ResourceItem, discriminator="ade_sync"):
    """Collection ``ade_sync``, name = the server's: how far Apple's list was read, and who is reading on.

    Each write after the lease was taken is on the condition that ``token`` is still the one that came with it.
    """

    phase = UnicodeAttribute(default="fetch")
    """``fetch`` (all devices) or ``sync`` (what happened to them since)."""
    cursor = UnicodeAttribute(null=True)
    cursor_at = NumberAttribute(default=0)
    """When it was given; of no cursor: when the fetch began."""
    fetch = NumberAttribute(default=1)
    """The number of the fetch; another one begins when Apple knows a cursor no more."""
    walk: JSONAttribute = JSONAttribute(null=True)
    """A look at all devices that is under way: ``{"position": "<shard><serial>", "digest", "absent": bool}``."""
    digest = UnicodeAttribute(null=True)
    """Of the rules that all devices were last held against."""
    token = NumberAttribute(default=0)
    """Counts the leases."""
    lease_until = NumberAttribute(default=0)
    requested_ms = NumberAttribute(default=0)
    """When somebody last asked for it, milliseconds since 1970: a run that began before is followed by another."""
    answered_ms = NumberAttribute(default=0)
    """When the run began that was the last to come to its end, or to fail: who asked before has their answer."""
    started_at = NumberAttribute(null=True)
    finished_at = NumberAttribute(null=True)
    """When the last one came to its end, or failed; null: one is under way, maybe in several runs."""
    synced_at = NumberAttribute(null=True)
    """When the list was last read to its end."""
    error_code = UnicodeAttribute(null=True)
    """Why the last run did not come to its end; null: it did."""
    error = UnicodeAttribute(null=True)
    failed_at = NumberAttribute(null=True)
    counts: JSONAttribute = JSONAttribute(null=True)
    """What the last one has done until now: ``{"pages", "devices", "added", "modified", "deleted", …}``."""


class AdeAssignmentRule(ResourceItem, discriminator="ade_assignment_rule"):
    """Collection ``ade_assignment_rule``, name = the administrator's: which profile some devices get."""

    server = UnicodeAttribute(null=True)
    """The only server whose devices it is for; null: all."""
    serial_numbers: JSONAttribute = JSONAttribute(null=True)
    models: JSONAttribute = JSONAttribute(null=True)
    device_families: JSONAttribute = JSONAttribute(null=True)
    profile = UnicodeAttribute(null=True)
    """The name of a profile here."""
    profile_uuid = UnicodeAttribute(null=True)
    """Or Apple's of one that was defined otherwise; neither: its devices are left as they are."""
    changed_at = NumberAttribute()


class MinimumOsVersion(ResourceItem, discriminator="minimum_os"):
    """Collection ``minimum_os``, name = a platform: what a device has to run before it may enroll by ADE."""

    os_version = UnicodeAttribute()
    build_version = UnicodeAttribute(null=True)


class EnrollmentProfileDesign(ResourceItem, discriminator="enrollment_profile"):
    """Collection ``enrollment_profile``, name ``default``: what an administrator made of enrollment profiles."""

    options: JSONAttribute = JSONAttribute(null=True)
    """Fields of ``apple.enrollment_profile.ProfileOptions``, without the certificates, and ``topic``."""
    trust_certificates = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM."""
    template = BinaryAttribute(null=True, legacy_encoding=False)
    """The ``.mobileconfig``, sealed for ``enrollment_profile/default/template``."""
    template_uploaded_at = NumberAttribute(null=True)
    signing_certificates = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM: the signer's, then its chain."""
    signing_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM (PKCS #8), sealed for ``enrollment_profile/default/signing_key``."""


class IdempotentRequest(ResourceItem, discriminator="idempotent_request"):
    """Collection ``idempotent_request``, name = hash of a request's route and key: what it was answered, for a day."""

    body_hash = UnicodeAttribute()
    until = NumberAttribute()
    """A request without an answer is over then."""
    answer = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed for ``idempotent_request/<name>``."""


class AccountDrivenEnrollment(ResourceItem, discriminator="account_driven"):
    """Collection ``account_driven``, name ``default``: who may enroll by signing in, and where."""

    options: JSONAttribute = JSONAttribute()
    """Fields of ``services.account_driven_enrollment.SignInOptions``."""
    changed_at = NumberAttribute()


class CommandJob(ResourceItem, discriminator="command_job"):
    """Collection ``command_job``, name = the job's id: a command on its way to many enrollments, page by page."""

    command_uuid = UnicodeAttribute()
    request_type = UnicodeAttribute()
    state = UnicodeAttribute()
    """``running``, ``done``, ``cancelled``, ``failed``."""
    selection: JSONAttribute = JSONAttribute()
    """``{"types": […] | null}``, or ``{"serial_numbers": <how many>}``."""
    selection_hash = UnicodeAttribute()
    options: JSONAttribute = JSONAttribute()
    """``push``, ``force`` and ``not_before`` (epoch seconds)."""
    step = NumberAttribute(default=0)
    """Counts the pages that are done: only who has done this one may write down the next."""
    position = UnicodeAttribute(default="")
    """Where the next page begins."""
    examined = NumberAttribute(default=0)
    queued = NumberAttribute(default=0)
    refused = NumberAttribute(default=0)
    errors: JSONAttribute = JSONAttribute(null=True)
    """The first refusals: ``[{"target", "code", "detail"}]``."""
    created_at = NumberAttribute()
    finished_at = NumberAttribute(null=True)


class CommandJobSerialNumbers(ResourceItem, discriminator="command_job_serial_numbers"):
    """Collection ``command_job_serial_numbers``, name = the job's id and its selection's hash: whom it is for."""

    serial_numbers = BinaryAttribute(legacy_encoding=False)
    """JSON, compressed."""


class PushJob(ResourceItem, discriminator="push_job"):
    """Collection ``push_job``, name = the job's id: many that are being woken."""

    selection: JSONAttribute = JSONAttribute()
    """``{"types": […] | null, "topic": … | null, "ids": <how many> | null}``."""
    expiration = NumberAttribute(null=True)
    parts = NumberAttribute()
    ended = NumberAttribute(default=0)
    """How many of the parts are done."""
    pages: UnicodeSetAttribute = UnicodeSetAttribute(null=True)
    """``<part>.<page>`` of those that are counted."""
    woken = NumberAttribute(default=0)
    not_woken = NumberAttribute(default=0)
    created_at = NumberAttribute()


class ScheduleRun(ResourceItem, discriminator="schedule"):
    """Collection ``schedule``, name = a task of housekeeping: when it was last done."""

    ran_at = NumberAttribute()


class Measurement(ResourceItem, discriminator="measurement"):
    """Collection ``measurement``, name ``default``: what takes too long to be counted each time that somebody asks.

    ``unwell`` is what administrators were told of.
    """

    devices_enrolled = NumberAttribute()
    unwell = UnicodeSetAttribute(null=True)
    measured_at = NumberAttribute()


def bind(
    *,
    enrollment_table: str,
    resource_table: str,
    region: str | None = None,
    host: str | None = None,
    client: "DynamoDBClient | None" = None,
) -> None:
    """Tell the item classes their tables. Called by :mod:`mdmlib.runtime` before the first use.

    ``client`` is used for both, instead of one that pynamodb would make for each.
    """
    for base, table in ((EnrollmentItem, enrollment_table), (ResourceItem, resource_table)):
        meta: Any = base.Meta
        meta.table_name, meta.region, meta.host = table, region, host
        # On the base class, so that its subclasses find this one: each would make a client of its own.
        base._connection = None  # noqa: SLF001 - a table's name may change between tests
        base._get_connection()  # noqa: SLF001
        connection: Any = base._get_connection().connection  # noqa: SLF001
        connection._client = client or dynamodb_client()  # noqa: SLF001


def dynamodb_client() -> "DynamoDBClient":
    """Return the client that both tables share, for what pynamodb would do at a higher price."""
    client: Any = EnrollmentItem._get_connection().connection.client  # noqa: SLF001
    return cast("DynamoDBClient", client)


def shard_of(key: str) -> str:
    """Return the shard, ``0`` to ``f``, that a key belongs to; stable across processes and releases."""
    return f"{crc32(key.encode()) % SHARDS:x}"


def next_generation(generation: str) -> str:
    """Return the generation after this one; generations count down."""
    return f"{int(generation, 16) - 1:08x}"
