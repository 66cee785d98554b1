"""Over-the-air enrollment (:mod:`mdmlib.apple.ota`), behind a link or open to everybody, as the deployment is set."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from pynamodb.exceptions import DoesNotExist

from mdmlib.apple import ota
from mdmlib.apple.device_certificate import SignedContent
from mdmlib.apple.identity import IdentityVerifier
from mdmlib.errors import ForbiddenError, IdentityError
from mdmlib.services.device_identity import certificate_revoked
from mdmlib.services.enrollment_links import permits
from mdmlib.services.scep_challenges import serial_hash
from mdmlib.store import tables
from mdmlib.store.tables import Certificate, EnrollmentLink

if TYPE_CHECKING:
    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.device_authorities import DeviceAuthorities
    from mdmlib.services.enrollment_links import EnrollmentLinks
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.services.scep_challenges import ScepChallenges
    from mdmlib.settings import Settings

TICKETS_KEY: Final = "ota-challenge"
"""Names the key of the first phase's challenges: SCEP takes none of them."""

_PATH: Final = "/ota/phase23"


class OtaEnrollment:
    """Answers the three phases. Nothing is written in any of them; SCEP, between the last two, does that."""

    def __init__(
        self,
        *,
        authority: "CertificateAuthorityService",
        device_authorities: "DeviceAuthorities",
        links: "EnrollmentLinks",
        profiles: "EnrollmentProfiles",
        tickets: "ScepChallenges",
        settings: "Settings",
        now: Callable[[], datetime],
        new_uuid: Callable[[], str],
    ) -> None:
        self._authority = authority
        self._device_authorities = device_authorities
        self._links = links
        self._profiles = profiles
        self._tickets = tickets
        self._settings = settings
        self._now = now
        self._new_uuid = new_uuid

    def profile_service(self, token: str | None) -> bytes:
        """Return the first phase's profile: for a link's token, or without one where everybody may enroll.

        Raises as :meth:`~mdmlib.services.enrollment_links.EnrollmentLinks.profile` does.
        """
        link = self._link(self._links.usable(token) if token is not None else None)
        options = self._profiles.options()
        profile = ota.profile_service(
            url=f"{self._settings.device_url}{_PATH}",
            challenge=self._tickets.new(link.name if link else None, self._profiles.expiry(link)),
            identifier=options.identifier,
            organization=options.organization or self._settings.organization,
            uuid=self._new_uuid(),
        )
        return self._profiles.sign(profile)

    def answer(self, message: bytes) -> bytes:
        """Return the profile that the second or the third phase ends with; who signed tells which of them it is.

        Raises :class:`~mdmlib.errors.MalformedBodyError`, :class:`~mdmlib.errors.IdentityError` for a signer that is
        neither a genuine device nor one of ours, and as the first phase does when the link is over by now.
        """
        signed = SignedContent.verify(message)
        device = ota.DeviceAttributes.decode(signed.content)
        if self._is_of_our_authority(signed):
            return self._enrollment(signed, device)
        return self._identity(signed, device)

    def _identity(self, signed: SignedContent, device: ota.DeviceAttributes) -> bytes:
        """Second phase: a genuine device, with the challenge of the first, is given an identity."""
        ticket = self._tickets.recognize(device.challenge)
        if self._tickets.is_over(ticket):
            raise ForbiddenError("The challenge of over-the-air enrollment has expired.", code="challenge_expired")
        if ticket.link_id is not None or self._settings.enrollment_access != "open":
            self._device_authorities.check(signed)
        link = self._link(self._links.still_usable(ticket.link_id) if ticket.link_id else None)
        _require_listed(link, device)
        return self._profiles.make_identity(link=link, serial_number=device.serial_number)

    def _enrollment(self, signed: SignedContent, device: ota.DeviceAttributes) -> bytes:
        """Third phase: the identity of the second one is worth an enrollment profile for the same device."""
        verifier = IdentityVerifier(self._authority.certificates(), grace=timedelta())
        item = _certificate(verifier.verify(signed.signer, at=self._now()).hash)
        if item is None or item.associated_id != tables.OTA_IDENTITY:
            raise IdentityError("The certificate is not one of over-the-air enrollment.", code="certificate_not_of_ota")
        if item.revoked_at is not None:
            raise certificate_revoked()
        if item.serial_hash and item.serial_hash != serial_hash(device.serial_number or ""):
            raise IdentityError("The certificate was issued for another device.", code="certificate_of_another_device")
        link = self._link(self._links.still_usable(item.link) if item.link else None)
        _require_listed(link, device)
        topic = link.topic if link else self._profiles.topic()
        return self._profiles.make(topic=topic, link=link, serial_number=device.serial_number)

    def _link(self, link: EnrollmentLink | None) -> EnrollmentLink | None:
        """Return the link, or None where everybody may enroll without one. Raises ForbiddenError elsewhere."""
        if link is None:
            self._links.require_open()
        return link

    def _is_of_our_authority(self, signed: SignedContent) -> bool:
        """Say whether the signer claims to be of a CA of ours; that it is so has still to be verified."""
        try:
            issuer = x509.load_der_x509_certificate(signed.signer.der).issuer
        except (UnsupportedAlgorithm, x509.InvalidVersion, TypeError, ValueError) as error:
            raise IdentityError("The certificate cannot be read.") from error
        return any(issuer == certificate.subject for certificate in self._authority.certificates())


def _require_listed(link: EnrollmentLink | None, device: ota.DeviceAttributes) -> None:
    if link is not None and not permits(link, device.serial_number):
        raise ForbiddenError(f"The enrollment link {link.name} is for other devices.", code="serial_number_not_listed")


def _certificate(certificate_hash: str) -> Certificate | None:
    try:
        return Certificate.get(tables.CERTIFICATE_PARTITION + certificate_hash, tables.RECORD, consistent_read=True)
    except DoesNotExist:
        return None
