"""What administrators store for devices, and what devices tell of themselves."""

from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.apps import Apps
    from mdmlib.services.device_attributes import DeviceAttributeStore
    from mdmlib.services.escrow import Escrow
    from mdmlib.services.filevault import FileVault
    from mdmlib.services.inventory import InventoryStore
    from mdmlib.services.micromdm_users import MicroMDMUsers
    from mdmlib.services.named_profiles import NamedProfiles
    from mdmlib.services.stored_profiles import StoredProfiles


@cache
def stored_profiles() -> "StoredProfiles":
    """Return the stored profiles."""
    from mdmlib.services.stored_profiles import StoredProfiles

    runtime.bind_tables()
    return StoredProfiles(
        sealer=runtime.sealer(),
        payloads=runtime.payloads(),
        now=runtime.now,
        # Asked for when one is stored: it needs the profiles itself.
        on_change=lambda identifier: runtime.blueprint_jobs().on_profile_change(identifier),
    )


@cache
def micromdm_users() -> "MicroMDMUsers":
    """Return the users as MicroMDM's API knows them."""
    import uuid

    from mdmlib.services.micromdm_users import MicroMDMUsers

    return MicroMDMUsers(
        enrollments=runtime.enrollments(), sealer=runtime.sealer(), now=runtime.now, new_uuid=lambda: str(uuid.uuid4())
    )


@cache
def device_attributes() -> "DeviceAttributeStore":
    """Return what administrators say of devices."""
    from mdmlib.services.device_attributes import DeviceAttributeStore

    runtime.bind_tables()
    return DeviceAttributeStore(
        sealer=runtime.sealer(),
        now=runtime.now,
        on_change=lambda said: runtime.blueprint_jobs().on_device_change(said),
    )


@cache
def escrow() -> "Escrow":
    """Return the escrowed secrets of devices."""
    from mdmlib.services.escrow import Escrow

    runtime.bind_tables()
    return Escrow(events=runtime.events(), sealer=runtime.sealer(), now=runtime.now, new_event_id=runtime.new_event_id)


@cache
def inventory() -> "InventoryStore":
    """Return what devices have told of themselves."""
    from mdmlib.services.inventory import InventoryStore

    runtime.bind_tables()
    return InventoryStore(sealer=runtime.sealer(), now=runtime.now)


@cache
def filevault() -> "FileVault":
    """Return whom Macs encrypt their recovery keys for."""
    from mdmlib.services.filevault import FileVault

    runtime.bind_tables()
    return FileVault(sealer=runtime.sealer(), settings=runtime.settings(), now=runtime.now)


@cache
def named_profiles() -> "NamedProfiles":
    """Return NanoCMD's names of profiles."""
    from mdmlib.services.named_profiles import NamedProfiles

    return NamedProfiles(profiles=runtime.stored_profiles())


@cache
def apps() -> "Apps":
    """Return the apps."""
    import uuid

    from mdmlib.services.apps import Apps
    from mdmlib.store.app_objects import AppObjects

    runtime.bind_tables()
    return Apps(
        objects=AppObjects(runtime.s3_presigner, bucket=runtime.settings().payload_bucket),
        workflow_queue=runtime.workflow_queue,
        settings=runtime.settings(),
        now=runtime.now,
        new_id=lambda: uuid.uuid4().hex,
        on_change=lambda name: runtime.blueprint_jobs().on_app_change(name),
    )
