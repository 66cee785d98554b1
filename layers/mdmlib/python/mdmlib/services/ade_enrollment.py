"""Automated Device Enrollment: a device that Apple sent here asks for its profile, before anybody can use it.

It proves by its MachineInfo, which its built-in identity signed, that it is a genuine device with this serial number;
no link is needed. Apple's page: https://developer.apple.com/documentation/devicemanagement/machineinfo.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mdmlib.apple.device_certificate import SignedContent
from mdmlib.apple.error_code import PAIRING_TOKEN_MISSING, SOFTWARE_UPDATE_REQUIRED
from mdmlib.apple.machine_info import MachineInfo
from mdmlib.apple.platforms import is_older
from mdmlib.errors import DeviceInstructedError, ForbiddenError, MalformedBodyError
from mdmlib.observability import logger

if TYPE_CHECKING:
    from mdmlib.services.ade_rules import AdeSerialNumbers, MinimumOsVersions
    from mdmlib.services.device_authorities import DeviceAuthorities
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.settings import Settings


class AdeEnrollment:
    """Hands profiles to devices that prove to be genuine, and to be ours."""

    def __init__(
        self,
        *,
        authorities: "DeviceAuthorities",
        serial_numbers: "AdeSerialNumbers",
        minimum_os: "MinimumOsVersions",
        profiles: "EnrollmentProfiles",
        settings: "Settings",
        new_uuid: Callable[[], str],
    ) -> None:
        self._authorities = authorities
        self._serial_numbers = serial_numbers
        self._minimum_os = minimum_os
        self._profiles = profiles
        self._settings = settings
        self._new_uuid = new_uuid

    def profile(self, message: bytes) -> bytes:
        """Return the enrollment profile for the device that signed ``message``, a MachineInfo.

        The identity that comes of it enrolls no device of another serial number. Raises
        :class:`~mdmlib.errors.MalformedBodyError`, :class:`~mdmlib.errors.IdentityError` for a device that is not
        genuine, :class:`~mdmlib.errors.ForbiddenError` for one that may not enroll, and
        :class:`~mdmlib.errors.DeviceInstructedError` for one that has to do something first.
        """
        signed = SignedContent.verify(message)
        device = MachineInfo.decode(signed.content)
        if self._settings.enrollment_access != "open":
            self._authorities.check(signed)
        if device.serial_number is None:
            raise MalformedBodyError("The MachineInfo has no SERIAL.", field="SERIAL")
        if not self._serial_numbers.permit(device.serial_number):
            raise ForbiddenError(
                f"The device {device.serial_number} is not in the list of those that may enroll.",
                code="serial_number_not_listed",
            )
        self._require_pairing(device)
        require_os(device, self._minimum_os)
        return self._profiles.make(topic=self._profiles.topic(), serial_number=device.serial_number)

    def _require_pairing(self, device: MachineInfo) -> None:
        """Send a watch back to its iPhone for a token that vouches for it.

        The iPhone's server made that token for whom it manages; to us it says that the iPhone is managed at all.
        """
        if device.platform == "watchOS" and device.pairing_token is None:
            raise DeviceInstructedError(
                "The watch has to bring a pairing token of its iPhone.",
                code=PAIRING_TOKEN_MISSING,
                details={"security-token": self._new_uuid()},
            )


def require_os(device: MachineInfo, minimum_os: "MinimumOsVersions") -> None:
    """Send a device to update its OS first, if it is older than what an administrator asks for.

    A device that could not do that (before iOS 17 and macOS 14, or outside of Setup Assistant) is let in: it would be
    of no use to anybody, and once it is enrolled it can be told to update. Raises
    :class:`~mdmlib.errors.DeviceInstructedError`.
    """
    minimum = minimum_os.of(device)
    if minimum is None or not is_older(device.os_version or "", than=minimum.os_version):
        return
    if not device.can_request_software_update:
        logger.warning(
            "Device with an old OS lets nobody update it before it is enrolled",
            product=device.product,
            os_version=device.os_version,
        )
        return
    build = {"BuildVersion": minimum.build_version} if minimum.build_version else {}
    raise DeviceInstructedError(
        f"The device has to update to {device.platform} {minimum.os_version}.",
        code=SOFTWARE_UPDATE_REQUIRED,
        for_people=f"This device needs {device.platform} {minimum.os_version} to be enrolled.",
        details={"OSVersion": minimum.os_version, **build},
    )
