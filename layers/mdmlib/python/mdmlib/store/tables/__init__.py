"""The two tables: every item class, its keys and indexes. Their formats are final.

Everything that lies in the partition of an enrollment stands in one module, which is imported with this one: pynamodb
filters each Query by the classes that it knows, and one that was not imported would vanish from results without a word.
What administrators name stands in a module for each area, which is imported when it is asked for: there each Query is
of one class.

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

from pynamodb.attributes import DiscriminatorAttribute
from pynamodb.indexes import GlobalSecondaryIndex, IncludeProjection

from mdmlib.areas import looked_for_in
from mdmlib.store.attributes import NumberAttribute, UnicodeAttribute
from mdmlib.store.items import Item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from mdmlib.store.tables.ade import *
    from mdmlib.store.tables.commands import *
    from mdmlib.store.tables.devices import *
    from mdmlib.store.tables.enrolling import *
    from mdmlib.store.tables.enrollment import *
    from mdmlib.store.tables.identities import *
    from mdmlib.store.tables.pushes import *
    from mdmlib.store.tables.resources import *
    from mdmlib.store.tables.schedules import *
    from mdmlib.store.tables.webhook_subscriptions import *
    from mdmlib.store.tables.workflows import *

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

    enrollment_id = UnicodeAttribute(hash_key=True)
    item = UnicodeAttribute(range_key=True)
    cls = DiscriminatorAttribute()
    ttl = NumberAttribute(null=True)

    by_parent = ByParent()
    by_serial = BySerial()
    listing = Listing()
    expiring = Expiring()
    waiting = Waiting()


class ResourceItem(Item):
    """Any item of the resource table."""

    class Meta:
        table_name: ClassVar[str | None] = None  # bind() says

    collection = UnicodeAttribute(hash_key=True)
    name = UnicodeAttribute(range_key=True)
    cls = DiscriminatorAttribute()
    ttl = NumberAttribute(null=True)


def bind(*, enrollment_table: str, resource_table: str, client: "DynamoDBClient") -> None:
    """Tell the item classes their tables. Called by :mod:`mdmlib.runtime` before the first use.

    ``client`` is used for both, instead of one that pynamodb would make for each.
    """
    for base, table in ((EnrollmentItem, enrollment_table), (ResourceItem, resource_table)):
        meta: Any = base.Meta
        meta.table_name = table
        # On the base class, so that its subclasses find this one: each would make a client of its own.
        base._connection = None  # noqa: SLF001 - a table's name may change between tests
        base._get_connection()  # noqa: SLF001
        connection: Any = base._get_connection().connection  # noqa: SLF001
        connection._client = client  # noqa: SLF001


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


from mdmlib.store.tables import enrollment  # noqa: E402, F401  # made of what stands above, and always there

if not TYPE_CHECKING:
    __getattr__ = looked_for_in(
        __name__,
        (
            "enrollment",
            "identities",
            "devices",
            "enrolling",
            "commands",
            "pushes",
            "ade",
            "resources",
            "workflows",
            "webhook_subscriptions",
            "schedules",
        ),
    )
