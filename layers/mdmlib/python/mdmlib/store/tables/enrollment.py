"""Every item of the enrollment table."""

from pynamodb.attributes import JSONAttribute, ListAttribute

from mdmlib.store.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import EnrollmentItem


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
    former_runs: ListAttribute[str] = ListAttribute(null=True)
    """Runs of the same enrollment whose place it took, the last first: they do not come back when they are asked for
    once more."""
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
