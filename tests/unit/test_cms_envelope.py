import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple import cms_envelope
from mdmlib.apple.certificates import CaIdentity, issue, new_certificate_authority
from mdmlib.apple.cms_envelope import AES_128, AES_192, AES_256, DES, TRIPLE_DES, ContentCipher, EnvelopedData
from mdmlib.errors import BadRequestError, MalformedBodyError
from tests.scep_client import indefinite, openssl

CONTENT = b"a certificate request " * 50
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

CIPHERS = {"des": DES, "3des": TRIPLE_DES, "aes128": AES_128, "aes192": AES_192, "aes256": AES_256}
LEGACY = ("-provider", "legacy", "-provider", "default")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is the other implementation")


@pytest.fixture(scope="module")
def ca() -> CaIdentity:
    return new_certificate_authority("ACME", now=NOW)


@pytest.fixture
def files(ca: CaIdentity, tmp_path: Path) -> tuple[str, str]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(ca.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(certificate), str(key)


def opened(ca: CaIdentity, envelope: bytes) -> bytes:
    return EnvelopedData.decode(envelope).open(ca.certificate, ca.private_key)


@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS)
@given(content=st.binary(max_size=200))
def test_what_is_sealed_can_be_opened(ca: CaIdentity, cipher: ContentCipher, content: bytes) -> None:
    assert opened(ca, cms_envelope.seal(content, recipient=ca.certificate, cipher=cipher)) == content


@needs_openssl
@pytest.mark.parametrize("encoding", [(), ("-stream",)], ids=["der", "ber"])
@pytest.mark.parametrize("named_by", [(), ("-keyid",)], ids=["serial", "key-id"])
@pytest.mark.parametrize("cipher", ["-des3", "-aes128", "-aes192", "-aes256", "-des-cbc"])
def test_what_openssl_seals_can_be_opened(
    ca: CaIdentity, files: tuple[str, str], cipher: str, named_by: tuple[str, ...], encoding: tuple[str, ...]
) -> None:
    provider = LEGACY if cipher == "-des-cbc" else ()
    options = ("-encrypt", "-binary", "-outform", "DER", cipher, *encoding, "-recip", files[0], *named_by, *provider)

    assert opened(ca, openssl("cms", *options, stdin=CONTENT)) == CONTENT


@needs_openssl
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-keyopt", "rsa_oaep_md:sha256"),
        ("-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha1"),
        ("-keyopt", "rsa_oaep_md:sha512", "-keyopt", "rsa_mgf1_md:sha512"),
    ],
    ids=["defaults", "sha256", "sha256 and sha1", "sha512"],
)
def test_keys_under_oaep_are_opened(ca: CaIdentity, files: tuple[str, str], options: tuple[str, ...]) -> None:
    oaep = ("-keyopt", "rsa_padding_mode:oaep", *options)
    sealed = openssl(
        "cms", "-encrypt", "-binary", "-outform", "DER", "-aes256", "-recip", files[0], *oaep, stdin=CONTENT
    )

    assert opened(ca, sealed) == CONTENT


@needs_openssl
@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS)
def test_openssl_opens_what_we_seal(ca: CaIdentity, files: tuple[str, str], cipher: ContentCipher) -> None:
    envelope = cms_envelope.seal(CONTENT, recipient=ca.certificate, cipher=cipher)
    options = ("-decrypt", "-inform", "DER", "-recip", files[0], "-inkey", files[1], *LEGACY)

    assert openssl("cms", *options, stdin=envelope) == CONTENT


@needs_openssl
@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS)
def test_openssl_opens_what_we_seal_with_a_password(cipher: ContentCipher) -> None:
    envelope = cms_envelope.seal_with_password(CONTENT, password="ch\u00e4llenge", cipher=cipher)
    options = ("-decrypt", "-inform", "DER", "-pwri_password", "ch\u00e4llenge", *LEGACY)

    assert openssl("cms", *options, stdin=envelope) == CONTENT


def test_an_envelope_in_ber_is_read(ca: CaIdentity) -> None:
    envelope = cms_envelope.seal(CONTENT, recipient=ca.certificate, cipher=AES_256)

    for depth in range(1, 6):
        assert opened(ca, indefinite(envelope, depth=depth)) == CONTENT


def test_what_is_not_for_us_is_refused_as_such(ca: CaIdentity) -> None:
    stranger = new_certificate_authority("ACME", now=NOW)

    with pytest.raises(BadRequestError) as refused:
        opened(ca, cms_envelope.seal(CONTENT, recipient=stranger.certificate, cipher=AES_256))
    assert refused.value.code == "recipient_unknown"


def test_the_wrong_key_gives_noise_and_no_error(ca: CaIdentity) -> None:
    stranger = new_certificate_authority("ACME", now=NOW)
    envelope = EnvelopedData.decode(cms_envelope.seal(CONTENT, recipient=ca.certificate, cipher=AES_256))

    noise = {envelope.open(ca.certificate, stranger.private_key) for _ in range(5)}

    assert all(CONTENT[:16] not in found for found in noise)


def test_nothing_can_be_sealed_to_a_key_that_cannot_decrypt(ca: CaIdentity) -> None:
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    recipient = issue(csr.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()), ca=ca, now=NOW, days=1)

    with pytest.raises(BadRequestError) as refused:
        cms_envelope.seal(CONTENT, recipient=recipient, cipher=AES_256)
    assert refused.value.code == "key_unsupported"


@given(st.binary(max_size=300))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        EnvelopedData.decode(noise)
