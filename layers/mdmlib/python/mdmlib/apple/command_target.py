"""What is known of an enrollment that bears on what it can do."""

from dataclasses import dataclass
from typing import Self

from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.apple.platforms import platform_of

_USER_ENROLLMENTS = frozenset({EnrollmentType.USER_ENROLLMENT_DEVICE, EnrollmentType.USER_ENROLLMENT})


@dataclass(frozen=True, kw_only=True)
class Target:
    """One enrollment. What is not known is None."""

    platform: str | None
    """One of :data:`mdmlib.apple.command_catalogue.PLATFORMS`: an iPad counts as iOS."""
    os_version: str | None
    type: EnrollmentType
    is_supervised: bool | None = None

    @classmethod
    def of(cls, product: str | None, os_version: str | None, type_: str, *, is_supervised: bool | None = None) -> Self:
        """Tell by what a device said of itself. A device that its user has enrolled is never supervised."""
        platform = platform_of(product) if product else None
        enrollment_type = EnrollmentType(type_)
        return cls(
            platform="iOS" if platform == "iPadOS" else platform,
            os_version=os_version,
            type=enrollment_type,
            is_supervised=False if enrollment_type in _USER_ENROLLMENTS else is_supervised,
        )

    @property
    def is_user_enrollment(self) -> bool:
        """Whether the user has enrolled, and not the device."""
        return self.type in _USER_ENROLLMENTS

    @property
    def is_user_channel(self) -> bool:
        """Whether it is a user's channel."""
        return self.type.is_user_channel

    @property
    def is_shared_ipad(self) -> bool:
        """Whether it is surely one: of its device's channel that is not known."""
        return self.type is EnrollmentType.SHARED_IPAD

    def __str__(self) -> str:
        """Return what a command was found suitable for: as long as this stays the same, it need not be asked again."""
        supervised = "" if self.is_supervised is None else f" {self.is_supervised:d}"
        return f"{self.platform or '?'} {self.os_version or '?'}{supervised}"
