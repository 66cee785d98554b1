"""What a device keeps while it is switched off: who it is, its enrollment, what it has settled, what is installed."""

import plistlib
from dataclasses import asdict
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from local.device.cms import Identity
from local.device.configuration_profile import ConfigurationProfile
from local.device.device import SimulatedDevice
from local.device.hardware import Hardware, Platform
from local.device.profile import EnrollmentMode, EnrollmentProfile

_VERSION: Final = 2


def remember(device: SimulatedDevice) -> bytes:
    """Return what an enrolled device keeps, as a property list with its private key and its tokens.

    Its users' channels are not among it: they log in again. Raises :class:`~local.device.errors.Unenrolled`.
    """
    key = device.identity.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return plistlib.dumps(
        {
            "Version": _VERSION,
            "Hardware": {name: value for name, value in asdict(device.hardware).items() if value is not None},
            "UnlockToken": device.unlock_token,
            "EnrollmentProfile": device.profile.body,
            "Account": {
                name: value
                for name, value in {
                    "EnrollmentID": device.management.enrollment_id,
                    "EnrollmentMode": device.profile.mode,
                    "AccessToken": device.enrollment.access_token,
                }.items()
                if value is not None
            },
            "Identity": {"Certificate": device.identity.certificate_der, "Key": key},
            "PushToken": device.push_token,
            "PushMagic": device.channel.push_magic,
            "Settled": sorted(device.channel.settled),
            "Profiles": [dict(profile.fields) for profile in device.commands.profiles.values()],
        },
        fmt=plistlib.FMT_BINARY,
    )


def hardware_of(memory: bytes) -> Hardware:
    """Return which device it is that has this memory."""
    fields = _read(memory)["Hardware"]
    return Hardware(**fields | {"platform": Platform(fields["platform"])})


def recall(device: SimulatedDevice, memory: bytes) -> None:
    """Let a device, made of :func:`hardware_of` its memory, go on where it was switched off."""
    kept = _read(memory)
    key = serialization.load_der_private_key(kept["Identity"]["Key"], password=None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise TypeError("The memory holds no key of a device.")
    device.unlock_token = kept["UnlockToken"]
    account = kept["Account"]
    mode = EnrollmentMode(account["EnrollmentMode"]) if "EnrollmentMode" in account else None
    device.resume(
        EnrollmentProfile.decode(kept["EnrollmentProfile"], mode=mode),
        Identity(key, x509.load_der_x509_certificate(kept["Identity"]["Certificate"])),
        push_token=kept["PushToken"],
        push_magic=kept["PushMagic"],
        enrollment_id=account.get("EnrollmentID"),
        access_token=account.get("AccessToken"),
        settled=frozenset(kept["Settled"]),
    )
    for fields in kept["Profiles"]:
        profile = ConfigurationProfile.decode(plistlib.dumps(fields))
        device.commands.profiles[profile.identifier] = profile


def _read(memory: bytes) -> dict[str, Any]:
    kept: dict[str, Any] = plistlib.loads(memory)
    if kept.get("Version") != _VERSION:
        raise ValueError("The memory is of another release of the simulated device.")
    return kept
