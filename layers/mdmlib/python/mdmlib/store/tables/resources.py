"""What administrators store for devices."""

from pynamodb.attributes import JSONAttribute

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


class StoredProfile(ResourceItem, discriminator="profile"):
    """Collection ``profile``, name = the profile's PayloadIdentifier."""

    profile = BinaryAttribute(null=True, legacy_encoding=False)
    """As it was uploaded, sealed for ``profile/<name>``; above 300 KiB it lies in S3."""
    profile_ref = UnicodeAttribute(null=True)
    size = NumberAttribute()
    uploaded_at = NumberAttribute()


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


class MicroMDMUser(ResourceItem, discriminator="user"):
    """Collection ``user``, name = a UUID: an account for Macs that are set up, as MicroMDM's API knows it."""

    document = BinaryAttribute(legacy_encoding=False)
    """JSON with the fields of ``services.micromdm_users.User``, sealed for ``user/<name>``."""
    changed_at = NumberAttribute()
