"""The enrollment profile, as a device reads it."""

import plistlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.enrollment_profile import (
    EnrollmentMode,
    EnrollmentProfile,
    ManagedAccount,
    ProfileOptions,
    check_access_rights,
)
from mdmlib.errors import BadRequestError
from tests.genuine_devices import Authority

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

    assert {payload["PayloadUUID"] for payload in (top, scep)} == {"UUID-1", "UUID-2"}
    assert UUID(mdm["PayloadUUID"])


def test_every_profile_has_fresh_uuids_but_updates_the_same_enrollment() -> None:
    (top, scep, mdm), (other_top, other_scep, other_mdm) = (payloads(profile()) for _ in range(2))

    uuids = [payload["PayloadUUID"] for payload in (top, scep, other_top, other_scep)]
    assert len(set(uuids)) == 4
    assert all(str(UUID(uuid)).upper() == uuid for uuid in uuids)
    assert mdm["PayloadUUID"] == other_mdm["PayloadUUID"]


def test_the_text_of_a_profile_shows_no_challenge() -> None:
    assert "s3cret" not in repr(profile())


# What an administrator decides


def test_an_administrator_decides_on_names_rights_capabilities_and_key_size() -> None:
    options = ProfileOptions(
        identifier="org.example.mdm",
        organization="School",
        display_name="School iPad",
        description="For lessons.",
        access_rights=3,
        server_capabilities=("com.apple.mdm.bootstraptoken",),
        key_size=4096,
    )

    top, scep, mdm = payloads(profile(options=options))

    assert (top["PayloadDisplayName"], top["PayloadDescription"]) == ("School iPad", "For lessons.")
    assert {payload["PayloadOrganization"] for payload in (top, scep, mdm)} == {"School"}
    assert [payload["PayloadIdentifier"] for payload in (top, scep, mdm)] == [
        "org.example.mdm",
        "org.example.mdm.scep",
        "org.example.mdm.mdm",
    ]
    assert scep["PayloadContent"]["Keysize"] == 4096
    assert scep["PayloadContent"]["Subject"][0] == [["O", "School"]]
    assert (mdm["AccessRights"], mdm["ServerCapabilities"]) == (3, ["com.apple.mdm.bootstraptoken"])


def test_certificates_to_trust_keep_their_identifiers() -> None:
    authority = Authority.named("Private Root")
    below = Authority.named("Private Intermediate", above=authority)
    trusted = tuple(each.certificate.public_bytes(Encoding.DER) for each in (authority, below))

    first, second = (
        plistlib.loads(profile(options=ProfileOptions(trust_certificates=trusted)).to_plist()) for _ in range(2)
    )

    found = first["PayloadContent"][2:]
    assert [payload["PayloadType"] for payload in found] == ["com.apple.security.root", "com.apple.security.pkcs1"]
    assert tuple(payload["PayloadContent"] for payload in found) == trusted
    assert [payload["PayloadIdentifier"] for payload in found] == [
        payload["PayloadIdentifier"] for payload in second["PayloadContent"][2:]
    ]
    assert len({payload["PayloadUUID"] for payload in first["PayloadContent"]}) == 4


@pytest.mark.parametrize("rights", [0, -1, 8192, 2, 128, 2 | 64, 1 | 128])
def test_rights_that_a_device_refuses_are_refused_here(rights: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_access_rights(rights, name="access_rights")
    assert refused.value.field == "access_rights"


@pytest.mark.parametrize("rights", [1, 3, 8191, 64 | 128])
def test_rights_that_a_device_takes_are_taken(rights: int) -> None:
    check_access_rights(rights, name="access_rights")


# Accounts


def test_a_user_enrollment_has_its_account_and_claims_no_rights() -> None:
    account = ManagedAccount("ada@example.org", EnrollmentMode.USER)

    _, _, mdm = payloads(profile(account=account))

    assert (mdm["EnrollmentMode"], mdm["AssignedManagedAppleID"]) == ("BYOD", "ada@example.org")
    assert "AccessRights" not in mdm
    assert "ada" not in repr(profile(account=account))


def test_an_account_driven_device_enrollment_has_both() -> None:
    _, _, mdm = payloads(profile(account=ManagedAccount("ada@example.org", EnrollmentMode.DEVICE)))

    assert (mdm["EnrollmentMode"], mdm["AssignedManagedAppleID"]) == ("ADDE", "ada@example.org")
    assert mdm["AccessRights"] == 8191


def test_other_enrollments_have_no_account() -> None:
    _, _, mdm = payloads(profile())

    assert not {"EnrollmentMode", "AssignedManagedAppleID"} & set(mdm)


def test_a_profile_that_renews_updates_the_mdm_payload_and_replaces_the_identity() -> None:
    _, first_scep, first_mdm = payloads(profile())
    _, second_scep, second_mdm = payloads(profile(challenge="another", organization="Renamed"))

    for key in ("PayloadIdentifier", "PayloadUUID", "ServerURL", "CheckInURL", "Topic", "AccessRights"):
        assert first_mdm[key] == second_mdm[key]
    assert first_scep["PayloadUUID"] != second_scep["PayloadUUID"] == second_mdm["IdentityCertificateUUID"]


def test_a_device_may_report_to_another_address_than_it_enrolled_at() -> None:
    _, scep, mdm = payloads(profile(mdm_url="https://mtls.example.org"))

    assert scep["PayloadContent"]["URL"] == "https://mdm.example.org/scep"
    assert mdm["CheckInURL"] == "https://mtls.example.org/mdm/checkin"
    assert mdm["ServerURL"] == "https://mtls.example.org/mdm/connect"


def test_an_identity_says_which_account_its_enrollment_is_for() -> None:
    _, scep, _ = payloads(profile(account=ManagedAccount("ada@example.org", EnrollmentMode.USER)))

    assert scep["PayloadContent"]["Subject"][-1] == [["0.9.2342.19200300.100.1.1", "ada@example.org"]]
