"""Inventory: what devices last told of themselves, searchable, and how it changed.

Devices tell it when the plan ``inventory`` asks. The names of what is known are NanoCMD's.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from pynamodb.exceptions import DoesNotExist

from mdmlib.errors import BadRequestError, NotFoundError, UnavailableError
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, EnrollmentItem, Inventory, InventoryChange
from mdmlib.store.transactions import Check, ConditionsFailedError, Put, Write, transact

KEYS: Final = (
    "serial_number",
    "model",
    "model_name",
    "product_name",
    "device_name",
    "build_version",
    "os_version",
    "ethernet_mac",
    "sip_enabled",
    "fde_enabled",
    "prk_escrowed",
    "supervised",
    "has_battery",
    "is_multiuser",
    "supports_lom",
    "apple_silicon",
    "last_source",
    "modified",
)
"""All that may be known, beside apps and certificates. ``product_name`` (``Mac16,1``) is not NanoCMD's."""

SEARCHED: Final = tuple(key for key in KEYS if key not in {"last_source", "modified"})

QUERIES: Final = (
    "Model",
    "SerialNumber",
    "ModelName",
    "ProductName",
    "DeviceName",
    "BuildVersion",
    "OSVersion",
    "EthernetMAC",
    "IsAppleSilicon",
    "HasBattery",
    "IsMultiUser",
    "SupportsLOMDevice",
    "IsSupervised",
)

_OF_DEVICE: Final = {
    "Model": "model",
    "SerialNumber": "serial_number",
    "ModelName": "model_name",
    "ProductName": "product_name",
    "DeviceName": "device_name",
    "BuildVersion": "build_version",
    "OSVersion": "os_version",
    "EthernetMAC": "ethernet_mac",
    "IsAppleSilicon": "apple_silicon",
    "HasBattery": "has_battery",
    "IsMultiUser": "is_multiuser",
    "SupportsLOMDevice": "supports_lom",
    "IsSupervised": "supervised",
}
_OF_SECURITY: Final = {"SystemIntegrityProtectionEnabled": "sip_enabled", "FDE_Enabled": "fde_enabled"}
_CURRENT: Final = f"{tables.INVENTORY}current"
_CHANGE: Final = f"{tables.INVENTORY}change#"
_SHARD: Final = "inventory-"
_MAX_ENTRIES: Final = 3_000
_MAX_TEXT: Final = 500
_MAX_CHANGES: Final = 500
_CHANGES_KEPT: Final = timedelta(days=400)
_TURNS: Final = 5
_EXAMINED: Final = 500
_READ_AT_ONCE: Final = 50

Value = str | bool | int | float


@dataclass
class Known:
    """What is known of a device."""

    keys: dict[str, Value] = field(default_factory=dict)
    apps: dict[str, str] = field(default_factory=dict)
    """Versions by bundle identifier."""
    app_names: dict[str, str] = field(default_factory=dict)
    certificates: dict[str, dict[str, str]] = field(default_factory=dict)
    """By SHA-256: ``common_name``, ``not_after``, ``is_identity``."""
    sources: list[str] = field(default_factory=list)
    """What it has answered by now: the first answer of a kind changes nothing, for nothing was known before."""


@dataclass(frozen=True)
class Found:
    """A device's inventory."""

    enrollment_id: str
    collected_at: int
    known: Known


@dataclass(frozen=True)
class Searched:
    """A page of a search."""

    found: Sequence[Found]
    examined: int
    """How many inventories were read for it."""
    position: str | None
    """Where the next page begins; None: this was the last."""


class InventoryStore:
    """What is known of all devices."""

    def __init__(self, *, sealer: Sealer, now: Callable[[], datetime], examined: int = _EXAMINED) -> None:
        """Keep them. A page of a search reads ``examined`` inventories at most."""
        self._sealer = sealer
        self._now = now
        self._examined = examined

    def take(self, record: Enrollment, request_type: str, answer: Mapping[str, Any]) -> None:
        """Note what a device answered to one of the inventory's questions. The same again changes nothing."""

        def change(known: Known) -> None:
            _TAKE[request_type](known, answer)
            known.keys["last_source"] = request_type
            if request_type not in known.sources:
                known.sources.append(request_type)

        self.change(record, change)

    def note(self, record: Enrollment, **keys: Value) -> None:
        """Note what is known otherwise."""
        self.change(record, lambda known: known.keys.update(keys))

    def change(self, record: Enrollment, change: Callable[[Known], None]) -> None:
        """Change what is known of a device, and note what was another thing before."""
        id_ = record.enrollment_id
        for _ in range(_TURNS):
            item = _item(id_)
            known = self._opened(item).known if item is not None else Known()
            before = Known(**json.loads(json.dumps(asdict(known))))
            change(known)
            now = self._now()
            differs = _differences(before, known)
            if not differs and item is not None:
                known.keys["modified"] = before.keys.get("modified", "")
            else:
                known.keys["modified"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
            try:
                told = differs if before.sources == known.sources else {}
                transact(self._writes(record, item, known, told, now))
            except ConditionsFailedError as failed:
                if "record" in failed.names:
                    return  # Whoever it was of has enrolled anew.
            else:
                return
        raise UnavailableError("Others kept changing the inventory.")

    def get(self, enrollment_id: str) -> Found:
        """Return what is known of a device. Raises :class:`~mdmlib.errors.NotFoundError`."""
        item = _item(enrollment_id)
        if item is None:
            raise NotFoundError(
                f"Nothing is known of a device {enrollment_id[:200]} yet; a plan of the kind inventory asks one.",
                code="no_inventory",
            )
        return self._opened(item)

    def changes(self, enrollment_id: str, *, limit: int) -> list[tuple[int, dict[str, list[Any]]]]:
        """Return how that changed, the newest first: when, and what was what before and is now."""
        if _item(enrollment_id) is None:
            self.get(enrollment_id)
        return [
            (
                int(item.changed_at),
                json.loads(self._sealer.open(item.changes, place=f"{enrollment_id}/{item.item}")),
            )
            for item in InventoryChange.query(
                enrollment_id, EnrollmentItem.item.startswith(_CHANGE), scan_index_forward=False, limit=limit
            )
            if isinstance(item, InventoryChange)
        ]

    def search(self, filters: Mapping[str, str], *, limit: int, after: str) -> Searched:
        """Return a page of the devices that fit all of the filters.

        A filter is a key and its value, ``app`` (a bundle identifier, or ``identifier@version``) or ``certificate`` (a
        common name, or a SHA-256). A page may be empty and not the last. Whoever tells anew while somebody turns the
        pages may be found twice, and is never left out.
        """
        for name in filters:
            if name not in {*SEARCHED, "app", "certificate"}:
                raise BadRequestError(f"{name} is nothing to search for.", code="unknown_field", field=name)
        first_shard, first_key = _read_position(after)
        found: list[Found] = []
        examined, most = 0, self._examined
        for shard in range(first_shard, tables.SHARDS):
            key = first_key if shard == first_shard else None
            for some in _pages(f"{_SHARD}{shard:x}", key):
                there = self._read(some)
                for entry in some:
                    one = there.get(entry.enrollment_id)
                    found += [one] if one is not None and _fits(one.known, filters) else []
                    examined += 1
                    if len(found) == limit or examined == most:
                        at = {"shard": shard, "key": [int(entry.enqueued_at), entry.enrollment_id]}
                        return Searched(found, examined, json.dumps(at, separators=(",", ":")))
        return Searched(found, examined, None)

    def _read(self, keys: Sequence[Inventory]) -> dict[str, Found]:
        wanted = [(key.enrollment_id, _CURRENT) for key in keys]
        items = EnrollmentItem.batch_get(wanted, consistent_read=True)
        return {item.enrollment_id: self._opened(item) for item in items if isinstance(item, Inventory)}

    def _writes(
        self, record: Enrollment, item: Inventory | None, known: Known, differs: Mapping[str, Any], now: datetime
    ) -> list[Write]:
        id_, seconds = record.enrollment_id, int(now.timestamp())
        version = int(item.version) + 1 if item is not None else 1
        current = Inventory(
            id_,
            _CURRENT,
            document=self._sealer.seal(json.dumps(asdict(known)).encode(), place=f"{id_}/{_CURRENT}"),
            version=version,
            waiting_shard=f"{_SHARD}{tables.shard_of(id_)}",
            enqueued_at=seconds,
        )
        unchanged = Inventory.version == item.version if item is not None else Inventory.item.does_not_exist()
        writes: list[Write] = [
            Put("current", current, unchanged),
            Check("record", Enrollment(id_, tables.RECORD), Enrollment.epoch == record.epoch),
        ]
        if differs and item is not None:
            name = f"{_CHANGE}{int(now.timestamp() * 1000):013d}#{version}"
            writes.append(
                Put(
                    "change",
                    InventoryChange(
                        id_,
                        name,
                        changes=self._sealer.seal(json.dumps(differs).encode(), place=f"{id_}/{name}"),
                        changed_at=seconds,
                        ttl=int((now + _CHANGES_KEPT).timestamp()),
                    ),
                )
            )
        return writes

    def _opened(self, item: Inventory) -> Found:
        document = self._sealer.open(item.document, place=f"{item.enrollment_id}/{item.item}")
        return Found(item.enrollment_id, int(item.enqueued_at), Known(**json.loads(document)))


def _take_device(known: Known, answer: Mapping[str, Any]) -> None:
    _take_keys(known, answer.get("QueryResponses"), _OF_DEVICE)


def _take_security(known: Known, answer: Mapping[str, Any]) -> None:
    _take_keys(known, answer.get("SecurityInfo"), _OF_SECURITY)


def _take_keys(known: Known, told: object, names: Mapping[str, str]) -> None:
    if not isinstance(told, Mapping):
        return
    for key, name in names.items():
        value = told.get(key)
        if isinstance(value, str):
            known.keys[name] = value[:_MAX_TEXT]
        elif isinstance(value, bool | int | float):
            known.keys[name] = value


def _take_apps(known: Known, answer: Mapping[str, Any]) -> None:
    known.apps, known.app_names = {}, {}
    for entry in _entries(answer.get("InstalledApplicationList")):
        identifier = entry.get("Identifier")
        if isinstance(identifier, str) and identifier:
            identifier = identifier[:_MAX_TEXT]
            known.apps[identifier] = str(entry.get("ShortVersion") or entry.get("Version") or "")[:_MAX_TEXT]
            known.app_names[identifier] = str(entry.get("Name") or "")[:_MAX_TEXT]


def _take_certificates(known: Known, answer: Mapping[str, Any]) -> None:
    known.certificates = {}
    for entry in _entries(answer.get("CertificateList")):
        data = entry.get("Data")
        if not isinstance(data, bytes):
            continue
        try:
            not_after = x509.load_der_x509_certificate(data).not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            not_after = ""
        known.certificates[hashlib.sha256(data).hexdigest()] = {
            "common_name": str(entry.get("CommonName") or "")[:_MAX_TEXT],
            "not_after": not_after,
            "is_identity": "true" if entry.get("IsIdentity") is True else "false",
        }


_TAKE: Final[dict[str, Callable[[Known, Mapping[str, Any]], None]]] = {
    "DeviceInformation": _take_device,
    "SecurityInfo": _take_security,
    "InstalledApplicationList": _take_apps,
    "CertificateList": _take_certificates,
}


def _entries(value: object) -> Iterator[Mapping[str, Any]]:
    for entry in value[:_MAX_ENTRIES] if isinstance(value, list) else ():
        if isinstance(entry, Mapping):
            yield entry


def _differences(before: Known, after: Known) -> dict[str, list[Any]]:
    """Return what changed: ``[before, after]``; None is what is not there."""
    told: dict[str, list[Any]] = {}
    for name in (*before.keys, *after.keys):
        if name not in {"modified", "last_source"} and before.keys.get(name) != after.keys.get(name):
            told[name] = [before.keys.get(name), after.keys.get(name)]
    for name in (*before.apps, *after.apps):
        if before.apps.get(name) != after.apps.get(name):
            told[f"app {name}"] = [before.apps.get(name), after.apps.get(name)]
    for hash_ in (*before.certificates, *after.certificates):
        was, is_ = before.certificates.get(hash_), after.certificates.get(hash_)
        if was != is_:
            name = (is_ or was or {}).get("common_name", "")
            told[f"certificate {name} {hash_[:16]}"] = [was and was["not_after"], is_ and is_["not_after"]]
    return dict(list(told.items())[:_MAX_CHANGES])


def _fits(known: Known, filters: Mapping[str, str]) -> bool:
    for name, wanted in filters.items():
        if name == "app":
            identifier, _, version = wanted.partition("@")
            if identifier not in known.apps or (version and known.apps[identifier] != version):
                return False
        elif name == "certificate":
            if wanted.lower() not in known.certificates and not any(
                one["common_name"] == wanted for one in known.certificates.values()
            ):
                return False
        elif str(known.keys.get(name, "")).lower() != wanted.lower():
            return False
    return True


def _item(enrollment_id: str) -> Inventory | None:
    if not 0 < len(enrollment_id.encode()) <= 1_023 or "#" in enrollment_id:  # noqa: PLR2004 - as ids are
        return None
    try:
        return Inventory.get(enrollment_id, _CURRENT, consistent_read=True)
    except DoesNotExist:
        return None


def _read_position(after: str) -> tuple[int, list[Any] | None]:
    """Return the shard that a page begins in, and the key there that it begins behind; whoever asks may make it up."""
    if not after:
        return 0, None
    try:
        position = json.loads(after)
        enqueued_at, enrollment_id = position["key"]
        shard, key = int(position["shard"]), [int(enqueued_at), str(enrollment_id)]
    except (ValueError, TypeError, KeyError, OverflowError):
        shard, key = -1, []
    if shard < 0 or not key[1]:
        raise BadRequestError("The cursor is none of this list.", code="invalid_cursor", field="cursor")
    return shard, key


def _pages(shard: str, key: Sequence[Any] | None) -> Iterator[list[Inventory]]:
    begin = None
    if key is not None:
        begin = {
            "waiting_shard": {"S": shard},
            "enqueued_at": {"N": str(key[0])},
            "enrollment_id": {"S": key[1]},
            "item": {"S": _CURRENT},
        }
    page: list[Inventory] = []
    for entry in EnrollmentItem.waiting.query(shard, last_evaluated_key=begin, page_size=_READ_AT_ONCE):
        if isinstance(entry, Inventory):
            page.append(entry)
        if len(page) == _READ_AT_ONCE:
            yield page
            page = []
    if page:
        yield page
