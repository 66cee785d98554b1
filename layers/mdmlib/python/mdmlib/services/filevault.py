"""FileVault: the identity that Macs encrypt their recovery keys for, and the steps that turn it on and rotate keys."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from pynamodb.exceptions import DoesNotExist, PutError

from mdmlib.apple import filevault
from mdmlib.apple.stored_profile import payload_uuid
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.services.escrow import FILEVAULT_KEY, Escrow, owner_of
from mdmlib.services.plan_actions import Again, NotFulfilled, PlannedDevice, Send, Unneeded
from mdmlib.services.plan_document import PlanDocument, Step
from mdmlib.settings import Settings
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import FileVaultIdentity

if TYPE_CHECKING:
    from mdmlib.services.inventory import InventoryStore

COLLECTION: Final = "filevault"

_NAME: Final = "default"
_PLACE: Final = "filevault/default"
_SOON_SECONDS: Final = 120
_LATER_SECONDS: Final = 900
_SOON: Final = 30
"""So many looks two minutes apart: then a quarter of an hour, for nobody has logged out yet."""
_LOOKS: Final = 300
"""About three days."""


@dataclass(frozen=True)
class Identity:
    """Whom Macs encrypt their recovery keys for."""

    certificate: bytes
    """DER."""
    private_key: rsa.RSAPrivateKey = field(repr=False)


class FileVault:
    """The identity, made once for a deployment, and its profile."""

    def __init__(self, *, sealer: Sealer, settings: Settings, now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._identity: Identity | None = None

    def identity(self) -> Identity:
        """Return the identity, which is made when it is first asked for. It does not change."""
        if self._identity is None:
            item = self._item() or self._made()
            key = load_der_private_key(self._sealer.open(item.private_key, place=_PLACE), password=None)
            if not isinstance(key, rsa.RSAPrivateKey):
                raise TypeError("FileVault's key is no RSA key.")
            self._identity = Identity(bytes(item.certificate), key)
        return self._identity

    def profile(self) -> bytes:
        """Return the profile that turns FileVault on."""
        return filevault.profile(self.identity().certificate, organization=self._settings.organization)

    def recovery_key(self, envelope: bytes) -> str:
        """Return the recovery key that a Mac has encrypted. Raises :class:`~mdmlib.errors.BadRequestError`."""
        identity = self.identity()
        return filevault.recovery_key(envelope, identity.certificate, identity.private_key)

    def _item(self) -> FileVaultIdentity | None:
        try:
            return FileVaultIdentity.get(COLLECTION, _NAME, consistent_read=True)
        except DoesNotExist:
            return None

    def _made(self) -> FileVaultIdentity:
        certificate, key = filevault.new_identity(self._now())
        item = FileVaultIdentity(
            COLLECTION,
            _NAME,
            certificate=certificate,
            private_key=self._sealer.seal(key, place=_PLACE),
            created_at=int(self._now().timestamp()),
        )
        try:
            item.save(FileVaultIdentity.name.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise
            # Somebody else made one in the same moment: that is it.
            return FileVaultIdentity.get(COLLECTION, _NAME, consistent_read=True)
        return item


class InstallFileVaultProfile(Send):
    """Turns FileVault on."""

    def __init__(self, vault: FileVault) -> None:
        self._vault = vault

    def command(self, _step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return InstallProfile, unless the Mac has the profile."""
        profile = self._vault.profile()
        if (plan.profiles or {}).get(filevault.PROFILE_IDENTIFIER, "").upper() == payload_uuid(profile):
            raise Unneeded("It is installed.")
        return {"RequestType": "InstallProfile", "Payload": profile}


class AwaitRecoveryKey(Send):
    """Asks again and again until FileVault is on, and escrows the key."""

    at_once = True

    def __init__(self, vault: FileVault, escrow: Escrow, inventory: "InventoryStore") -> None:
        self._vault = vault
        self._escrow = escrow
        self._inventory = inventory

    def command(self, _step: Step, _plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return SecurityInfo."""
        return {"RequestType": "SecurityInfo"}

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Escrow the key, or ask again."""
        told = answer.get("SecurityInfo")
        told = told if isinstance(told, Mapping) else {}
        envelope = told.get("FDE_PersonalRecoveryKeyCMS")
        if told.get("FDE_Enabled") is not True or not isinstance(envelope, bytes):
            if step.attempts >= _LOOKS:
                raise NotFulfilled("FileVault was not turned on in three days: nobody has logged in, or agreed.")
            after = _SOON_SECONDS if step.attempts < _SOON else _LATER_SECONDS
            raise Again("FileVault is not on yet: its user has to log in.", after=after)
        _escrow_key(self._vault, self._escrow, self._inventory, device, envelope)
        self._inventory.take(device.record, "SecurityInfo", answer)


class RotateRecoveryKey(Send):
    """Has a Mac make another recovery key, by the one that is escrowed."""

    at_once = True

    def __init__(self, vault: FileVault, escrow: Escrow, inventory: "InventoryStore") -> None:
        self._vault = vault
        self._escrow = escrow
        self._inventory = inventory

    def command(self, _step: Step, _plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return RotateFileVaultKey."""
        if not self._escrow.has(device.record, FILEVAULT_KEY):
            raise NotFoundError("No recovery key of this Mac is escrowed.", code="nothing_escrowed")
        revealed = self._escrow.reveal(
            owner_of(device.record), FILEVAULT_KEY, who="the plan filevault_rotate", why="to rotate the recovery key"
        )
        return {
            "RequestType": "RotateFileVaultKey",
            "KeyType": "personal",
            "FileVaultUnlock": {"Password": revealed.value},
            "ReplyEncryptionCertificate": self._vault.identity().certificate,
        }

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Escrow the new key."""
        result = answer.get("RotateResult")
        envelope = result.get("EncryptedNewRecoveryKey") if isinstance(result, Mapping) else None
        if not isinstance(envelope, bytes):
            raise NotFulfilled("The Mac did not tell its new recovery key.")
        _escrow_key(self._vault, self._escrow, self._inventory, device, envelope)


def _escrow_key(
    vault: FileVault, escrow: Escrow, inventory: "InventoryStore", device: PlannedDevice, envelope: bytes
) -> None:
    try:
        key = vault.recovery_key(envelope)
    except BadRequestError as error:
        raise NotFulfilled(f"The recovery key cannot be read: {error.message}") from error
    # The same key again is the same entry.
    escrow.put_once(device.record, FILEVAULT_KEY, lambda: key, name=hashlib.sha256(key.encode()).hexdigest()[:32])
    inventory.note(device.record, prk_escrowed=True)
