"""Who may enroll, and with which profile."""

from pynamodb.attributes import JSONAttribute

from mdmlib.store.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


class EnrollmentLink(ResourceItem, discriminator="enrollment_link"):
    """Collection ``enrollment_link``, name = the link's public id (a part of the SHA-256 of its token)."""

    topic = UnicodeAttribute()
    created_at = NumberAttribute()
    expires_at = NumberAttribute()
    max_uses = NumberAttribute(null=True)
    uses = NumberAttribute(default=0)
    revoked = BooleanAttribute(null=True)
    note = UnicodeAttribute(null=True)
    serial_numbers: JSONAttribute = JSONAttribute(null=True)
    """The only devices that may enroll by it; null: any."""


class DeviceCertificateAuthority(ResourceItem, discriminator="device_ca"):
    """Collection ``device_ca``, name = the administrator's: who makes the certificates that are built into devices."""

    certificate = BinaryAttribute(legacy_encoding=False)
    """DER."""
    uploaded_at = NumberAttribute()


class AdeSerialNumber(ResourceItem, discriminator="ade_serial"):
    """Collection ``ade_serial``, name = a serial number that may enroll by ADE; none at all: every genuine device."""

    note = UnicodeAttribute(null=True)
    added_at = NumberAttribute()


class MinimumOsVersion(ResourceItem, discriminator="minimum_os"):
    """Collection ``minimum_os``, name = a platform: what a device has to run before it may enroll by ADE."""

    os_version = UnicodeAttribute()
    build_version = UnicodeAttribute(null=True)


class EnrollmentProfileDesign(ResourceItem, discriminator="enrollment_profile"):
    """Collection ``enrollment_profile``, name ``default``: what an administrator made of enrollment profiles."""

    options: JSONAttribute = JSONAttribute(null=True)
    """Fields of ``apple.enrollment_profile.ProfileOptions``, without the certificates, and ``topic``."""
    trust_certificates = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM."""
    template = BinaryAttribute(null=True, legacy_encoding=False)
    """The ``.mobileconfig``, sealed for ``enrollment_profile/default/template``."""
    template_uploaded_at = NumberAttribute(null=True)
    signing_certificates = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM: the signer's, then its chain."""
    signing_key = BinaryAttribute(null=True, legacy_encoding=False)
    """PEM (PKCS #8), sealed for ``enrollment_profile/default/signing_key``."""


class AccountDrivenEnrollment(ResourceItem, discriminator="account_driven"):
    """Collection ``account_driven``, name ``default``: who may enroll by signing in, and where."""

    options: JSONAttribute = JSONAttribute()
    """Fields of ``services.account_driven_enrollment.SignInOptions``."""
    changed_at = NumberAttribute()
