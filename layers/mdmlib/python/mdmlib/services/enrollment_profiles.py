"""Enrollment profiles: what devices are handed, as an administrator designed them.

One design serves every way of enrolling: links, ADE, over-the-air and account-driven enrollment.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.enrollment_profile import EnrollmentProfile, ManagedAccount, ProfileOptions
from mdmlib.apple.profile_signing import SigningIdentity
from mdmlib.apple.profile_template import ProfileTemplate
from mdmlib.errors import BadRequestError, ConflictError
from mdmlib.services.scep_challenges import Purpose
from mdmlib.store.tables import EnrollmentLink
from mdmlib.store.tables import EnrollmentProfileDesign as DesignItem
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

    from mdmlib.services.push_certificates import PushCertificates
    from mdmlib.services.scep_challenges import ScepChallenges
    from mdmlib.settings import Settings
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "enrollment_profile"
_NAME: Final = "default"
_TEMPLATE_PLACE: Final = f"{_COLLECTION}/{_NAME}/template"
_KEY_PLACE: Final = f"{_COLLECTION}/{_NAME}/signing_key"

_CHALLENGE_VALIDITY: Final = timedelta(hours=1)
"""From the download of a profile to its installation. A device forgets a profile that was not installed sooner."""
_KEEP: Final = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class ProfileDesign:
    """What an administrator made of enrollment profiles; as long as nobody did, the defaults."""

    options: ProfileOptions = field(default_factory=ProfileOptions)
    topic: str | None = None
    """The push topic where nothing else says one, for a deployment with several."""
    template: ProfileTemplate | None = None
    template_uploaded_at: int | None = None
    """Epoch seconds."""
    signing: SigningIdentity | None = None


class EnrollmentProfiles:
    """Makes profiles, and keeps their design. What was read of it is kept for a minute."""

    def __init__(
        self,
        *,
        challenges: "ScepChallenges",
        push_certificates: "PushCertificates",
        sealer: "Sealer",
        settings: "Settings",
        now: Callable[[], datetime],
    ) -> None:
        self._challenges = challenges
        self._push_certificates = push_certificates
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._kept: tuple[datetime, ProfileDesign] | None = None

    def make(
        self,
        *,
        topic: str,
        link: EnrollmentLink | None = None,
        serial_number: str | None = None,
        account: ManagedAccount | None = None,
    ) -> bytes:
        """Return a fresh enrollment profile (``.mobileconfig``), whose challenge is good for one identity.

        With ``serial_number`` no other device can enroll with it. It is signed if there is an identity for that.
        """
        design = self._design()
        profile = self._profile(design, topic, link, serial_number, Purpose.ENROLLMENT)
        profile = replace(profile, account=account)
        return _signed(design, design.template.to_plist(profile) if design.template else profile.to_plist())

    def make_identity(self, *, link: EnrollmentLink | None, serial_number: str | None) -> bytes:
        """Return a profile whose identity is good for the third phase of over-the-air enrollment alone."""
        design = self._design()
        profile = self._profile(design, "", link, serial_number, Purpose.OTA)
        return _signed(design, profile.identity_to_plist())

    def make_renewal(self, *, topic: str, identity: str, account: ManagedAccount | None) -> bytes:
        """Return a profile to take the place of the one that an enrollment has, and to renew its identity.

        ``topic`` and ``account`` are the enrollment's, for no device lets them be changed, and ``identity`` is the
        SHA-256 (hex) of its certificate. Its challenge is good for this enrollment alone.
        """
        design = self._design()
        profile = EnrollmentProfile(
            device_url=self._settings.device_url,
            topic=topic,
            challenge=self._challenges.new_renewal(identity, self.expiry(None)),
            organization=self._settings.organization,
            options=design.options,
            account=account,
            mdm_url=self._settings.mdm_url,
        )
        return _signed(design, design.template.to_plist(profile) if design.template else profile.to_plist())

    def expiry(self, link: EnrollmentLink | None) -> datetime:
        """Return until when what is handed out now is good: nothing that comes from a link outlives it."""
        expires_at = self._now() + _CHALLENGE_VALIDITY
        return min(expires_at, datetime.fromtimestamp(int(link.expires_at), UTC)) if link else expires_at

    def sign(self, profile: bytes) -> bytes:
        """Return another profile (its plist) as those of enrollment are: signed, if there is an identity for that."""
        return _signed(self._design(), profile)

    def options(self) -> ProfileOptions:
        """Return the options as a device sees them: everything has its value."""
        options = self._design().options
        return replace(options, organization=options.organization or self._settings.organization)

    def topic(self, asked: str | None = None) -> str:
        """Return the push topic that a profile shall have.

        Raises :class:`~mdmlib.errors.BadRequestError` for one that there is no certificate for, or when there are
        several and none was chosen, and :class:`~mdmlib.errors.ConflictError` while there is no push certificate.
        """
        known = [certificate.topic for certificate in self._push_certificates.topics()]
        if not known:
            raise ConflictError(
                "There is no push certificate yet: devices could enroll, but never be woken. Upload one first.",
                code="push_certificate_not_found",
            )
        topic = asked or self._design().topic
        if topic is None and len(known) == 1:
            return known[0]
        if topic is None:
            raise BadRequestError("There are several push certificates: say which topic.", field="topic")
        if topic not in known:
            raise BadRequestError("There is no push certificate for this topic.", field="topic")
        return topic

    def design(self) -> ProfileDesign:
        """Return the design as it is stored now."""
        design = self._decoded(_stored())
        self._kept = self._now(), design
        return design

    def set_options(
        self, options: ProfileOptions, *, topic: str | None, only_if: OnlyIf[ProfileDesign] | None = None
    ) -> ProfileDesign:
        """Replace all options; the template and the signing identity stay.

        Raises :class:`~mdmlib.errors.BadRequestError` for a topic that there is no certificate for, and what
        ``only_if`` raises.
        """
        if topic is not None:
            self.topic(topic)
        plain: dict[str, Any] = asdict(options) | {"topic": topic}
        pem = b"".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in plain.pop("trust_certificates")
        )
        return self._change(
            DesignItem.options.set(plain),
            DesignItem.trust_certificates.set(pem) if pem else DesignItem.trust_certificates.remove(),
            only_if=only_if,
        )

    def upload_template(self, body: bytes) -> ProfileDesign:
        """Make all profiles from this ``.mobileconfig`` (:mod:`mdmlib.apple.profile_template`).

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with it.
        """
        ProfileTemplate.decode(body)
        return self._change(
            DesignItem.template.set(self._sealer.seal(body, place=_TEMPLATE_PLACE)),
            DesignItem.template_uploaded_at.set(int(self._now().timestamp())),
        )

    def remove_template(self) -> None:
        """Make profiles from the options again."""
        self._change(DesignItem.template.remove(), DesignItem.template_uploaded_at.remove())

    def upload_signing_identity(self, pem: bytes) -> ProfileDesign:
        """Sign all profiles from now on (:class:`~mdmlib.apple.profile_signing.SigningIdentity`).

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with it.
        """
        identity = SigningIdentity.decode(pem)
        return self._change(
            DesignItem.signing_certificates.set(identity.certificates_pem),
            DesignItem.signing_key.set(self._sealer.seal(identity.private_key_pem, place=_KEY_PLACE)),
        )

    def remove_signing_identity(self) -> None:
        """Sign profiles no more."""
        self._change(DesignItem.signing_certificates.remove(), DesignItem.signing_key.remove())

    def _profile(
        self,
        design: ProfileDesign,
        topic: str,
        link: EnrollmentLink | None,
        serial_number: str | None,
        purpose: Purpose,
    ) -> EnrollmentProfile:
        expires_at = self.expiry(link)
        return EnrollmentProfile(
            device_url=self._settings.device_url,
            topic=topic,
            challenge=self._challenges.new(
                link.name if link else None,
                expires_at,
                serial_number=serial_number,
                listed=link is not None and bool(link.serial_numbers),
                purpose=purpose,
            ),
            organization=self._settings.organization,
            options=design.options,
            mdm_url=self._settings.mdm_url,
        )

    def _design(self) -> ProfileDesign:
        if self._kept is None or self._now() - self._kept[0] > _KEEP:
            return self.design()
        return self._kept[1]

    def _change(self, *actions: "Action", only_if: OnlyIf[ProfileDesign] | None = None) -> ProfileDesign:
        of_item = (lambda item: only_if(self._decoded(item))) if only_if else None
        with only_while(DesignItem, _stored, of_item) as condition:
            DesignItem(_COLLECTION, _NAME).update([DesignItem.cls.set(DesignItem), *actions], condition)
        return self.design()

    def _decoded(self, item: DesignItem | None) -> ProfileDesign:
        if item is None:
            return ProfileDesign()
        stored: Mapping[str, Any] = item.options or {}
        template = self._sealer.open(item.template, place=_TEMPLATE_PLACE) if item.template else None
        signing = None
        if item.signing_key is not None:
            key = self._sealer.open(item.signing_key, place=_KEY_PLACE)
            signing = SigningIdentity.decode(bytes(item.signing_certificates) + key)
        return ProfileDesign(
            options=_options(stored, item.trust_certificates),
            topic=stored.get("topic"),
            template=ProfileTemplate.decode(template) if template else None,
            template_uploaded_at=None if item.template_uploaded_at is None else int(item.template_uploaded_at),
            signing=signing,
        )


def _options(stored: Mapping[str, Any], trust_certificates: bytes | None) -> ProfileOptions:
    known = {name: value for name, value in stored.items() if name in ProfileOptions.__dataclass_fields__}
    if "server_capabilities" in known:
        known["server_capabilities"] = tuple(known["server_capabilities"])
    certificates = x509.load_pem_x509_certificates(bytes(trust_certificates)) if trust_certificates else []
    return ProfileOptions(
        **known, trust_certificates=tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    )


def _stored() -> DesignItem | None:
    try:
        return DesignItem.get(_COLLECTION, _NAME, consistent_read=True)
    except DoesNotExist:
        return None


def _signed(design: ProfileDesign, profile: bytes) -> bytes:
    return design.signing.sign(profile) if design.signing else profile
