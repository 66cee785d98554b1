"""An administrator's own enrollment profile: what is refused, and what is put in."""

import plistlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.enrollment_profile import EnrollmentMode, EnrollmentProfile, ManagedAccount
from mdmlib.apple.profile_template import MAX_BYTES, ProfileTemplate
from mdmlib.errors import BadRequestError, MalformedBodyError
from tests.genuine_devices import Authority
from tests.profile_templates import template

Change = Callable[[dict[str, Any]], object]


def profile(**changes: Any) -> EnrollmentProfile:
    return EnrollmentProfile(
        **{
            "device_url": "https://mdm.example.org",
            "topic": "com.apple.mgmt.External.x",
            "challenge": "s3cret",
            "organization": "PicoMDM",
            **changes,
        }
    )


def filled(document: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the profile made of a template, its SCEP payload and its MDM payload."""
    made = plistlib.loads(ProfileTemplate.decode(plistlib.dumps(document)).to_plist(profile(**changes)))
    by_type = {payload["PayloadType"]: payload for payload in made["PayloadContent"]}
    return made, by_type["com.apple.security.scep"], by_type["com.apple.mdm"]


def test_url_topic_challenge_and_identifiers_are_put_in() -> None:
    made, scep, mdm = filled(template())

    assert scep["PayloadContent"]["URL"] == "https://mdm.example.org/scep"
    assert scep["PayloadContent"]["Challenge"] == "s3cret"
    assert mdm["ServerURL"] == "https://mdm.example.org/mdm/connect"
    assert mdm["CheckInURL"] == "https://mdm.example.org/mdm/checkin"
    assert mdm["Topic"] == "com.apple.mgmt.External.x"
    assert mdm["SignMessage"] is True
    assert mdm["IdentityCertificateUUID"] == scep["PayloadUUID"]
    assert len({made["PayloadUUID"], scep["PayloadUUID"], mdm["PayloadUUID"], "WIFI"}) == 4


def test_everything_else_stays_as_it_was_uploaded() -> None:
    made, scep, mdm = filled(template())

    assert made["PayloadDisplayName"] == "Ours"
    assert made["PayloadIdentifier"] == "org.example.enroll"
    assert made["ConsentText"] == {"default": "Do you?"}
    assert scep["PayloadContent"]["Keysize"] == 4096
    assert scep["PayloadContent"]["Subject"] == [[["O", "Example"]]]
    assert mdm["AccessRights"] == 3
    wifi = next(payload for payload in made["PayloadContent"] if payload["PayloadType"] == "com.apple.wifi.managed")
    assert (wifi["PayloadUUID"], wifi["SSID_STR"]) == ("WIFI", "Example")


def test_who_names_the_identity_names_the_new_one() -> None:
    made, scep, _ = filled(template())

    wifi = next(payload for payload in made["PayloadContent"] if payload["PayloadType"] == "com.apple.wifi.managed")
    assert wifi["PayloadCertificateUUID"] == scep["PayloadUUID"]
    assert wifi["EAPClientConfiguration"] == {"TLSIdentities": [scep["PayloadUUID"]]}


def test_each_profile_has_uuids_and_values_of_its_own() -> None:
    decoded = ProfileTemplate.decode(plistlib.dumps(template()))
    first, second = (plistlib.loads(decoded.to_plist(profile(challenge=each))) for each in ("one", "two"))

    assert first["PayloadUUID"] != second["PayloadUUID"]
    challenges = [each["PayloadContent"][0]["PayloadContent"]["Challenge"] for each in (first, second)]
    assert challenges == ["one", "two"]


def test_an_account_is_put_in_and_a_user_enrollment_claims_no_rights() -> None:
    _, _, mdm = filled(template(), account=ManagedAccount("ada@example.org", EnrollmentMode.USER))
    assert (mdm["EnrollmentMode"], mdm["AssignedManagedAppleID"]) == ("BYOD", "ada@example.org")
    assert "AccessRights" not in mdm

    _, _, mdm = filled(template(), account=ManagedAccount("ada@example.org", EnrollmentMode.DEVICE))
    assert (mdm["EnrollmentMode"], mdm["AccessRights"]) == ("ADDE", 3)


def test_an_identity_says_whom_its_enrollment_is_for_beside_what_the_template_says() -> None:
    _, scep, _ = filled(template(), account=ManagedAccount("ada@example.org", EnrollmentMode.USER))
    _, plain, _ = filled(template())

    own = plain["PayloadContent"].get("Subject", [])
    assert scep["PayloadContent"]["Subject"] == [*own, [["0.9.2342.19200300.100.1.1", "ada@example.org"]]]


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        (lambda top: top.update(PayloadType="Profile Service"), "PayloadType", "not Configuration"),
        (lambda top: top.pop("PayloadIdentifier"), "PayloadIdentifier", "In the profile"),
        (lambda top: top.update(PayloadContent={}), "PayloadContent", "no list of payloads"),
        (lambda top: top.update(PayloadContent=["x"]), "PayloadContent", "no list of payloads"),
        (lambda top: top["PayloadContent"].pop(0), "PayloadContent", "no payloads of type com.apple.security.scep"),
        (lambda top: top["PayloadContent"].pop(1), "PayloadContent", "no payloads of type com.apple.mdm"),
        (
            lambda top: top["PayloadContent"].append(
                top["PayloadContent"][1] | {"PayloadUUID": "OTHER", "PayloadIdentifier": "other"}
            ),
            "PayloadContent",
            "2 payloads of type com.apple.mdm",
        ),
        (lambda top: top["PayloadContent"][2].pop("PayloadType"), "PayloadType", "In payload 3"),
        (lambda top: top["PayloadContent"][2].update(PayloadUUID=5), "PayloadUUID", "In payload 3"),
        (lambda top: top["PayloadContent"][2].update(PayloadUUID="SCEP"), "PayloadUUID", "Two payloads"),
        (lambda top: top["PayloadContent"][2].update(PayloadIdentifier="org.example.scep"), "PayloadIdentifier", "Two"),
        (lambda top: top["PayloadContent"][0].pop("PayloadContent"), "PayloadContent", "SCEP payload"),
        (lambda top: top["PayloadContent"][1].pop("AccessRights"), "AccessRights", "no number"),
        (lambda top: top["PayloadContent"][1].update(AccessRights=True), "AccessRights", "no number"),
        (lambda top: top["PayloadContent"][1].update(AccessRights=2), "AccessRights", "has to have 1"),
        (lambda top: top["PayloadContent"][1].update(ServerCapabilities=["x"]), "ServerCapabilities", "no list of"),
        (lambda top: top["PayloadContent"][1].update(ServerCapabilities="x"), "ServerCapabilities", "no list of"),
        (lambda top: top["PayloadContent"][1].update(EnrollmentMode="BYOD"), "EnrollmentMode", "one person's"),
    ],
)
def test_what_is_wrong_with_a_template_is_told(change: Change, field: str, told: str) -> None:
    document = deepcopy(template())
    change(document)

    with pytest.raises(BadRequestError) as refused:
        ProfileTemplate.decode(plistlib.dumps(document))
    assert refused.value.field == field
    assert told in refused.value.message


def test_a_signed_template_is_recognized() -> None:
    signed = Authority.named("Signer").device().sign(plistlib.dumps(template()))

    with pytest.raises(BadRequestError) as refused:
        ProfileTemplate.decode(signed)
    assert "It is signed" in refused.value.message


def test_a_template_has_its_bounds() -> None:
    with pytest.raises(BadRequestError) as refused:
        ProfileTemplate.decode(b"<" * (MAX_BYTES + 1))
    assert "200,000" in refused.value.message


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises((BadRequestError, MalformedBodyError)):
        ProfileTemplate.decode(noise)
