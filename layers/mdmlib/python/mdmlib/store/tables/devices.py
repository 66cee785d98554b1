"""What enrolled devices ask for."""

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


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
