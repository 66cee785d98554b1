"""Who is a genuine device: signed contents, and the authorities of devices' certificates."""

import contextlib
import plistlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.device_certificate import (
    MAX_MESSAGE_BYTES,
    DeviceCertificateVerifier,
    SignedContent,
    load_authority,
)
from mdmlib.errors import BadRequestError, IdentityError, MalformedBodyError
from tests.genuine_devices import IPHONE, Authority, GenuineDevice, with_sha1
from tests.scep_client import indefinite


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.named("Fruit Phone Device CA")


@pytest.fixture(scope="module")
def device(authority: Authority) -> GenuineDevice:
    return authority.device()


def verify(message: bytes, *authorities: x509.Certificate) -> bytes:
    """Return the content of a message that a device of these authorities signed."""
    signed = SignedContent.verify(message)
    DeviceCertificateVerifier(authorities).verify(signed)
    return signed.content


def test_what_a_genuine_device_signed_is_accepted_although_its_authority_ended(
    authority: Authority, device: GenuineDevice
) -> None:
    assert plistlib.loads(verify(device.machine_info(), authority.certificate)) == IPHONE


def test_indefinite_lengths_are_read(authority: Authority, device: GenuineDevice) -> None:
    assert plistlib.loads(verify(indefinite(device.machine_info(), depth=4), authority.certificate)) == IPHONE


def test_either_certificate_of_an_authority_verifies_its_devices(authority: Authority, device: GenuineDevice) -> None:
    sha1 = authority.with_sha1

    assert type(sha1.signature_hash_algorithm).__name__ == "SHA1"
    assert sha1.serial_number != authority.certificate.serial_number
    assert verify(device.machine_info(), sha1)


def test_a_device_whose_certificate_is_signed_with_sha1_is_accepted(
    authority: Authority, device: GenuineDevice
) -> None:
    old = GenuineDevice(with_sha1(device.certificate, authority.key), device.key, device.info)

    assert verify(old.machine_info(), authority.certificate)


def test_an_authority_between_may_come_along(authority: Authority) -> None:
    below = Authority.named("Fruit Accessories", above=authority)
    message = below.device().sign(b"content", below.certificate)

    assert verify(message, authority.certificate) == b"content"
    with pytest.raises(IdentityError):
        verify(below.device().machine_info(), authority.certificate)


def test_a_device_cannot_vouch_for_another(authority: Authority) -> None:
    no_authority = Authority.named("just a device", above=authority, ca=False)
    message = no_authority.device().sign(b"content", no_authority.certificate)

    with pytest.raises(IdentityError) as refused:
        verify(message, authority.certificate)
    assert refused.value.code == "device_not_verified"


@pytest.mark.parametrize("above", [None, "elsewhere"])
def test_whoever_only_has_the_name_of_an_authority_is_none(device: GenuineDevice, above: str | None) -> None:
    namesake = Authority(
        Authority.named("Fruit Phone Device CA").certificate, Authority.named("somebody else's").key
    ).device()

    with pytest.raises(IdentityError):
        verify(namesake.machine_info(), Authority.named("Fruit Phone Device CA").certificate)
    with pytest.raises(IdentityError):
        verify(device.machine_info(), *([Authority.named(above).certificate] if above else []))


def test_another_content_under_the_same_signature_is_refused(device: GenuineDevice) -> None:
    message = device.machine_info()

    with pytest.raises(IdentityError):
        SignedContent.verify(message.replace(b"C39XK123N70M", b"C39XK123N70X"))


@pytest.mark.parametrize("message", [b"", b"\x30\x00", b"<plist/>", bytes(MAX_MESSAGE_BYTES + 1)])
def test_what_is_no_signed_content_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        SignedContent.verify(message)


@given(position=st.integers(0, 3000), change=st.integers(1, 255))
def test_a_damaged_message_is_refused_and_nothing_else(position: int, change: int) -> None:
    authority = Authority.named("Fruit Phone Device CA")
    message = bytearray(authority.device().sign(b"content"))
    message[position % len(message)] ^= change

    with contextlib.suppress(BadRequestError):
        verify(bytes(message), authority.certificate)


# Uploads


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_an_authority_is_uploaded_in_either_encoding(authority: Authority, encoding: Encoding) -> None:
    assert load_authority(authority.certificate.public_bytes(encoding)) == authority.certificate


def test_an_authority_that_does_not_say_so_is_taken_for_one(authority: Authority) -> None:
    assert load_authority(authority.with_sha1.public_bytes(Encoding.PEM))


def test_what_is_wrong_with_an_authority_is_told(authority: Authority, device: GenuineDevice) -> None:
    wrong = {
        "certificate_unreadable": [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
        "certificate_not_single": [authority.pem * 2],
        "certificate_not_authority": [device.certificate.public_bytes(Encoding.DER)],
    }
    for code, uploads in wrong.items():
        for upload in uploads:
            with pytest.raises(BadRequestError) as refused:
                load_authority(upload)
            assert refused.value.code == code
