"""The command that renews an identity: its payload is made when it is handed out.

It is the enrollment profile once more, in place of the one that is installed. A device that installs it asks SCEP for
another certificate, vouched for by its present one or by the profile's challenge, which is good for an hour: hence not
sooner.
"""

from typing import TYPE_CHECKING

from mdmlib.apple import plist

if TYPE_CHECKING:
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.store.tables import Enrollment, PendingCommand


class RenewalProfiles:
    """Makes the payloads of pending commands of the kind ``renewal_profile``."""

    def __init__(self, *, profiles: "EnrollmentProfiles") -> None:
        self._profiles = profiles

    def payload(self, pending: "PendingCommand", device: "Enrollment") -> bytes:
        """Return the raw plist of the command, for the device that is let in with its identity."""
        profile = self._profiles.make_renewal(topic=device.topic, identity=device.identity)
        command = {"RequestType": pending.request_type, "Payload": profile}
        return plist.dumps({"Command": command, "CommandUUID": pending.command_uuid})
