"""The command that renews an identity: its payload is made when it is handed out.

It is the enrollment profile once more, in place of the one that is installed. A device that installs it asks SCEP for
another certificate, vouched for by its present one or by the profile's challenge, which is good for an hour: hence not
sooner.
"""

from typing import TYPE_CHECKING, Final

from cryptography import x509

from mdmlib.apple import plist
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.apple.enrollment_profile import ACCOUNT_OID, EnrollmentMode, ManagedAccount

if TYPE_CHECKING:
    from mdmlib.apple.identity import VerifiedCertificate
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.store.tables import Enrollment, PendingCommand

_ACCOUNT: Final = x509.ObjectIdentifier(ACCOUNT_OID)


class RenewalProfiles:
    """Makes the payloads of pending commands of the kind ``renewal_profile``."""

    def __init__(self, *, profiles: "EnrollmentProfiles") -> None:
        self._profiles = profiles

    def payload(self, pending: "PendingCommand", device: "Enrollment", certificate: "VerifiedCertificate") -> bytes:
        """Return the raw plist of the command, for the device that is let in with ``certificate``, its identity."""
        profile = self._profiles.make_renewal(
            topic=device.topic, identity=certificate.hash, account=_account(device, certificate)
        )
        command = {"RequestType": pending.request_type, "Payload": profile}
        return plist.dumps({"Command": command, "CommandUUID": pending.command_uuid})


def _account(device: "Enrollment", certificate: "VerifiedCertificate") -> ManagedAccount | None:
    """Return whom an account-driven enrollment is for: its identity has said so since it was first issued."""
    subject = x509.load_der_x509_certificate(certificate.der).subject
    names = subject.get_attributes_for_oid(_ACCOUNT)
    if not names:
        return None
    is_users_own = device.type == EnrollmentType.USER_ENROLLMENT_DEVICE
    return ManagedAccount(str(names[0].value), EnrollmentMode.USER if is_users_own else EnrollmentMode.DEVICE)
