"""Push certificates, and jobs that wake many."""

from pynamodb.attributes import JSONAttribute, UnicodeSetAttribute

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute
from mdmlib.store.tables import ResourceItem


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
