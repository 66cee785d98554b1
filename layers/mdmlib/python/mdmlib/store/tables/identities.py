"""Who issues devices' identities, and which are revoked."""

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


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
