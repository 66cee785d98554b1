"""The enrollment profile, as a device reads it."""

import plistlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from mdmlib.apple.enrollment_profile import EnrollmentProfile

TOPIC = "com.apple.mgmt.External.3a7c95f2-c214-4b53-a585-a553c2623e04"


def profile(**changes: Any) -> EnrollmentProfile:
    return EnrollmentProfile(
        **{
            "device_url": "https://mdm.example.org",
            "topic": TOPIC,
            "challenge": "s3cret",
            "organization": "Bücher & Söhne",
            **changes,
        }
    )


def payloads(profile: EnrollmentProfile) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the profile, its SCEP payload and its MDM payload."""
    top = plistlib.loads(profile.to_plist())
    by_type = {payload["PayloadType"]: payload for payload in top["PayloadContent"]}
    return top, by_type["com.apple.security.scep"], by_type["com.apple.mdm"]


def counter() -> Callable[[], str]:
    numbers = iter(range(1, 100))
    return lambda: f"UUID-{next(numbers)}"


def test_the_profile_is_one_configuration_of_two_payloads() -> None:
    top, scep, mdm = payloads(profile())

    assert len(top["PayloadContent"]) == 2
    assert top["PayloadType"] == "Configuration"
    assert top["PayloadIdentifier"] == "com.github.picomdm.enroll"
    assert top["PayloadOrganization"] == "Bücher & Söhne"
    assert top["PayloadScope"] == "System"
    assert scep["PayloadIdentifier"] == "com.github.picomdm.enroll.scep"
    assert mdm["PayloadIdentifier"] == "com.github.picomdm.enroll.mdm"
    assert {payload["PayloadVersion"] for payload in (top, scep, mdm)} == {1}


def test_the_device_gets_its_identity_by_scep() -> None:
    _, scep, _ = payloads(profile())

    assert scep["PayloadContent"] == {
        "URL": "https://mdm.example.org/scep",
        "Challenge": "s3cret",
        "Name": "Device Management Identity Certificate",
        "Keysize": 2048,
        "Key Type": "RSA",
        "Key Usage": 5,
        "KeyIsExtractable": False,
        "Subject": [[["O", "Bücher & Söhne"]], [["CN", "Bücher & Söhne Identity (%ComputerName%)"]]],
    }


def test_the_device_manages_itself_with_that_identity() -> None:
    _, scep, mdm = payloads(profile())

    assert mdm["IdentityCertificateUUID"] == scep["PayloadUUID"]
    assert mdm["SignMessage"] is True
    assert mdm["Topic"] == TOPIC
    assert mdm["CheckInURL"] == "https://mdm.example.org/mdm/checkin"
    assert mdm["ServerURL"] == "https://mdm.example.org/mdm/connect"
    assert mdm["AccessRights"] == 8191
    assert mdm["CheckOutWhenRemoved"] is True
    assert mdm["ServerCapabilities"] == [
        "com.apple.mdm.per-user-connections",
        "com.apple.mdm.bootstraptoken",
        "com.apple.mdm.token",
    ]


def test_every_payload_has_a_uuid_of_its_own() -> None:
    top, scep, mdm = payloads(profile(new_uuid=counter()))

    assert {payload["PayloadUUID"] for payload in (top, scep, mdm)} == {"UUID-1", "UUID-2", "UUID-3"}


def test_every_profile_has_fresh_uuids() -> None:
    same = profile()

    uuids = [payload["PayloadUUID"] for _ in range(2) for payload in payloads(same)]

    assert len(set(uuids)) == 6
    assert all(str(UUID(uuid)).upper() == uuid for uuid in uuids)


def test_the_text_of_a_profile_shows_no_challenge() -> None:
    assert "s3cret" not in repr(profile())
