"""Enrollment records, their last messages and their secrets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, Self

from pynamodb.exceptions import DoesNotExist

from mdmlib.store import tables
from mdmlib.store.at_once import at_once
from mdmlib.store.patience import until_some_are_processed
from mdmlib.store.tables import Certificate, Enrollment, EnrollmentItem, EnrollmentSecret
from mdmlib.store.transactions import change_existing

USER_AUTHENTICATION: Final = "UserAuthentication"
"""Names the secret that says how far a user's login has come."""

LIVE_STATES: Final = frozenset({"authenticated", "enrolled"})
_BATCH_GET: Final = 100
_MAX_KEY_BYTES: Final = 2_048
_ALIVE: Final = ("enrollment_id", "type", "state", "generation", "epoch", "device_epoch", "parent_id")
_HEAD: Final = (
    *_ALIVE,
    "product_name",
    "model",
    "os_version",
    "is_supervised",
    "topic",
    "push",
    "push_failure",
)


class LoginItems(NamedTuple):
    """A user channel, its device, and the state of its user's login."""

    user: Enrollment | None
    device: Enrollment | None
    login: EnrollmentSecret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentHead:
    """What queueing a command has to know of an enrollment: the attributes of its record, under their names."""

    enrollment_id: str
    type: str
    state: str
    generation: str
    epoch: int = 0
    device_epoch: int | None = None
    parent_id: str | None = None
    product_name: str | None = None
    model: str | None = None
    os_version: str | None = None
    is_supervised: bool | None = None
    topic: str | None = None
    push: bytes | None = field(default=None, repr=False)
    push_failure: str | None = None

    @classmethod
    def read(cls, item: Mapping[str, Mapping[str, Any]]) -> Self:
        """Read an item as DynamoDB answers it."""
        values: dict[str, Any] = {name: next(iter(value.values())) for name, value in item.items()}
        for name in ("epoch", "device_epoch"):
            if name in values:
                values[name] = int(values[name])
        return cls(**values)


class EnrollmentStore:
    """Reads of the enrollment table by enrollment. All reads are strongly consistent."""

    def get(self, enrollment_id: str) -> Enrollment | None:
        """Return the record, or None. A tombstone is returned: its ``state`` is ``deleted``."""
        if not _may_be_an_id(enrollment_id):
            return None
        try:
            return Enrollment.get(enrollment_id, tables.RECORD, consistent_read=True)
        except DoesNotExist:
            return None

    def get_many(self, enrollment_ids: Iterable[str]) -> dict[str, Enrollment]:
        """Return the records that exist, by id, 100 a call."""
        ids = [enrollment_id for enrollment_id in dict.fromkeys(enrollment_ids) if _may_be_an_id(enrollment_id)]
        keys = [(enrollment_id, tables.RECORD) for enrollment_id in ids]
        found: dict[str, Enrollment] = {}
        for start in range(0, len(keys), _BATCH_GET):
            for record in EnrollmentItem.batch_get(keys[start : start + _BATCH_GET], consistent_read=True):
                if isinstance(record, Enrollment):
                    found[record.enrollment_id] = record
        return found

    def heads(self, enrollment_ids: Iterable[str], *, alive: bool = False) -> dict[str, EnrollmentHead]:
        """Return the heads of the records that exist, by id, 100 a call and some calls at a time.

        ``alive``: only what says whether an enrollment lives, and in which of its lives it is. Written out, for 1,000
        of them take pynamodb's way half a second.
        """
        ids = [enrollment_id for enrollment_id in dict.fromkeys(enrollment_ids) if _may_be_an_id(enrollment_id)]
        pages = [ids[start : start + _BATCH_GET] for start in range(0, len(ids), _BATCH_GET)]
        read = partial(_read_heads, _ALIVE if alive else _HEAD)
        return {head.enrollment_id: head for page in at_once(read, pages) for head in page}

    def get_with_secret(self, enrollment_id: str, secret: str) -> tuple[Enrollment | None, EnrollmentSecret | None]:
        """Return the record and one secret (``UnlockToken``, ``BootstrapToken``) in one call."""
        keys = [(enrollment_id, tables.RECORD), (enrollment_id, tables.SECRET + secret)]
        items: Sequence[EnrollmentItem] = list(EnrollmentItem.batch_get(keys, consistent_read=True))
        record = next((item for item in items if isinstance(item, Enrollment)), None)
        value = next((item for item in items if isinstance(item, EnrollmentSecret)), None)
        return record, value

    def get_with_certificate(self, enrollment_id: str, sha256: str) -> tuple[Enrollment | None, Certificate | None]:
        """Return the record and what is known of a certificate (SHA-256, hex), in one call."""
        keys = [(enrollment_id, tables.RECORD), (tables.CERTIFICATE_PARTITION + sha256, tables.RECORD)]
        items: Sequence[EnrollmentItem] = list(EnrollmentItem.batch_get(keys, consistent_read=True))
        record = next((item for item in items if isinstance(item, Enrollment)), None)
        certificate = next((item for item in items if isinstance(item, Certificate)), None)
        return record, certificate

    def get_associated(self, sha256: str) -> Enrollment | None:
        """Return the record of the enrollment that a certificate (SHA-256, hex) is associated with."""
        try:
            certificate = Certificate.get(tables.CERTIFICATE_PARTITION + sha256, tables.RECORD, consistent_read=True)
        except DoesNotExist:
            return None
        return self.get(certificate.associated_id) if certificate.associated_id else None

    def get_login(self, user_id: str, device_id: str) -> LoginItems:
        """Return what is known of a user channel, its device and its user's login, in one call."""
        keys = [
            (user_id, tables.RECORD),
            (device_id, tables.RECORD),
            (user_id, tables.SECRET + USER_AUTHENTICATION),
        ]
        items: Sequence[EnrollmentItem] = list(EnrollmentItem.batch_get(keys, consistent_read=True))
        records = {item.enrollment_id: item for item in items if isinstance(item, Enrollment)}
        login = next((item for item in items if isinstance(item, EnrollmentSecret)), None)
        return LoginItems(records.get(user_id), records.get(device_id), login)

    def ids_of_serial(self, serial_number: str) -> list[str]:
        """Return the ids of a serial number's devices. The index behind this is up to date within a second or so."""
        if not 0 < len(serial_number.encode()) <= _MAX_KEY_BYTES:
            return []
        return [key.enrollment_id for key in EnrollmentItem.by_serial.query(serial_number)]

    def ids_of_parent(self, device_id: str) -> list[str]:
        """Return the ids of a device's user channels, in the same way."""
        return [key.enrollment_id for key in EnrollmentItem.by_parent.query(device_id)]

    def touch(self, record: Enrollment, *, at: int) -> None:
        """Note that the enrollment was seen (epoch seconds)."""
        change_existing(record, "SET last_seen_at = :at", at=at)


def is_live(record: Enrollment | EnrollmentHead, device: Enrollment | EnrollmentHead) -> bool:
    """Say whether an enrollment may receive commands.

    ``device`` is its device's record, for a device channel the record itself. A user channel lives only in the epoch of
    its device that it was enabled under: Authenticate and CheckOut of the device end it with no write of its own.
    """
    if record.state not in LIVE_STATES or device.state not in LIVE_STATES:
        return False
    return record.parent_id is None or record.device_epoch == device.epoch


def _read_heads(attributes: Sequence[str], enrollment_ids: Sequence[str]) -> list[EnrollmentHead]:
    """Read up to 100 records' attributes, strongly."""
    table = str(EnrollmentItem.Meta.table_name)
    names = {f"#{number}": name for number, name in enumerate(attributes)}
    keys: Any = [{"enrollment_id": {"S": id_}, "item": {"S": tables.RECORD}} for id_ in enrollment_ids]
    found: list[EnrollmentHead] = []

    def ask(keys: list[Any]) -> tuple[list[Any], list[Any] | None]:
        wanted: Any = {
            "Keys": keys,
            "ConsistentRead": True,
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        answer: Any = tables.dynamodb_client().batch_get_item(RequestItems={table: wanted})
        return answer["Responses"].get(table, []), answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys")

    while keys:
        items, keys = until_some_are_processed(ask, keys)
        found += [EnrollmentHead.read(item) for item in items]
    return found


def _may_be_an_id(enrollment_id: str) -> bool:
    # An administrator may ask for anything: what holds a "#" is another kind of partition, and DynamoDB refuses a whole
    # batch for one key that is too long.
    return "#" not in enrollment_id and 0 < len(enrollment_id.encode()) <= _MAX_KEY_BYTES
