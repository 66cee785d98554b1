"""The SCEP CA in one process, and devices that have their identity from it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.cms import SignerCertificate
from mdmlib.apple.identity import IdentityVerifier, VerifiedCertificate
from mdmlib.services.certificate_authority import CertificateAuthorityService
from mdmlib.services.issuing_authorities import IssuingAuthorityStore
from mdmlib.services.scep_challenges import ScepChallenges
from mdmlib.services.static_challenge import StaticChallenge
from mdmlib.settings import Settings
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, EnrollmentLink
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice
from tests.scep_client import Answer, ScepClient, rsa_key

HOUR = timedelta(hours=1)
LINK = "0123456789abcdef" * 2
UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"


class Interrupted(EnrollmentStore):
    """After a record was read something else happens, once."""

    def __init__(self, interruption: Callable[[], object]) -> None:
        self._interruptions: Iterator[Callable[[], object]] = iter([interruption])

    def get(self, enrollment_id: str) -> Enrollment | None:
        record = super().get(enrollment_id)
        for interruption in self._interruptions:
            interruption()
        return record


class Authority:
    """The service, and what tests need beside it."""

    def __init__(self, settings: Settings, sealer: Sealer, clock: Clock) -> None:
        self.settings, self.sealer, self.clock = settings, sealer, clock
        self.challenges = ScepChallenges(sealer=sealer, now=clock)
        self.authorities = IssuingAuthorityStore(sealer=sealer, settings=settings, now=clock)
        self.service = self.another()

    def another(self, enrollments: EnrollmentStore | None = None, **settings: Any) -> CertificateAuthorityService:
        """Return the service as another environment of the function has it."""
        settings_ = replace(self.settings, **settings)
        return CertificateAuthorityService(
            authorities=IssuingAuthorityStore(sealer=self.sealer, settings=settings_, now=self.clock),
            enrollments=enrollments or EnrollmentStore(),
            challenges=self.challenges,
            static_challenge=StaticChallenge(sealer=self.sealer, now=self.clock),
            settings=settings_,
            now=self.clock,
        )

    @property
    def certificate(self) -> x509.Certificate:
        return self.service.load().certificate

    def client(self, **form: Any) -> ScepClient:
        return ScepClient(self.certificate, **form)

    def link(self, **attributes: Any) -> str:
        expires_at = int((self.clock() + timedelta(days=7)).timestamp())
        defaults: dict[str, Any] = {"topic": "com.apple.mgmt.External.x", "created_at": 1, "expires_at": expires_at}
        EnrollmentLink("enrollment_link", LINK, **defaults | attributes).save()
        return LINK

    def challenge(self, link_id: str | None = LINK, *, good_for: timedelta = HOUR) -> str:
        return self.challenges.new(link_id, self.clock() + good_for)

    def ask(self, client: ScepClient, message: bytes) -> Answer:
        return client.read(self.service.pki_operation(message))

    def enroll(self, client: ScepClient, challenge: str | core.Asn1Value | None) -> Answer:
        return self.ask(client, client.request(challenge))

    def uses(self) -> int:
        return int(EnrollmentLink.get("enrollment_link", LINK).uses)

    def trust(self, certificate: x509.Certificate) -> VerifiedCertificate:
        """Return a certificate as the device edge has it after it verified a signature."""
        verifier = IdentityVerifier(
            self.service.certificates(), grace=timedelta(days=self.settings.identity_grace_days)
        )
        return verifier.verify(SignerCertificate(certificate.public_bytes(Encoding.DER)), at=self.clock())


class IdentifiedDevice(FleetDevice):
    """A device of the fleet with an identity from the CA."""

    def __init__(
        self, fleet: Fleet, udid: str, authority: Authority, client: ScepClient, *, challenge: str | None = None
    ) -> None:
        super().__init__(fleet, udid)
        self.authority, self.client = authority, client
        self.issued = authority.enroll(client, challenge or authority.challenge()).certificate

    @property
    def certificate(self) -> VerifiedCertificate:
        return self.authority.trust(self.issued)

    def newcomer(self) -> "IdentifiedDevice":
        """Return the same device with another identity, as it is when somebody installs the profile again."""
        client = self.authority.client(key=rsa_key("newcomer"))
        return IdentifiedDevice(self.fleet, self.udid, self.authority, client)

    def renewal(self, key: str = "renewed", **form: Any) -> ScepClient:
        return self.client.renewal(self.issued, rsa_key(key), **form)

    def renewal_challenge(self) -> str:
        """Return a challenge as it is in the profile that renews the identity."""
        return self.authority.challenges.new_renewal(self.certificate.hash, self.fleet.clock() + HOUR)

    def end(self, how: str) -> None:
        """Let the enrollment end: it is ``checked out``, or the device is ``blocked``."""
        if how == "checked out":
            self.check_out()
        else:
            self.record.update([Enrollment.blocked.set(True)])
