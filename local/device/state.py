"""What of a device commands have changed, whichever channel they came on."""

from dataclasses import dataclass, field
from typing import Any

from local.device.filevault import FileVault


@dataclass
class DeviceState:
    """A device as it is set up now; management that ends takes all of it along."""

    device_name: str
    organization: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    passcode_present: bool = True
    lost_mode: bool = False
    filevault: FileVault = field(default_factory=FileVault)
