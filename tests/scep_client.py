"""A SCEP client made of asn1crypto, for tests: every form that clients in the field send, and some that none should."""

import base64
import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

MESSAGE_TYPE: Final = "2.16.840.1.113733.1.9.2"
PKI_STATUS: Final = "2.16.840.1.113733.1.9.3"
FAIL_INFO: Final = "2.16.840.1.113733.1.9.4"
SENDER_NONCE: Final = "2.16.840.1.113733.1.9.5"
RECIPIENT_NONCE: Final = "2.16.840.1.113733.1.9.6"
TRANSACTION_ID: Final = "2.16.840.1.113733.1.9.7"

ContentCipher = Literal["des", "tripledes_3key", "aes128_cbc", "aes192_cbc", "aes256_cbc"]


def _tripledes(key: bytes) -> TripleDES:
    return TripleDES(key)


def _des(key: bytes) -> TripleDES:
    return TripleDES(key + key + key)


_CIPHERS: Final[dict[str, tuple[int, int, Callable[[bytes], Any]]]] = {
    "des": (8, 8, _des),
    "tripledes_3key": (24, 8, _tripledes),
    "aes128_cbc": (16, 16, AES),
    "aes192_cbc": (24, 16, AES),
    "aes256_cbc": (32, 16, AES),
}
_HASHES: Final = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class Values(core.SetOf):  # type: ignore[misc]  # asn1crypto has no types
    _child_spec = core.Any


class Attribute(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types
    """An attribute of any type; asn1crypto's own only takes those that it knows."""

    _fields: Final = [("type", core.ObjectIdentifier), ("values", Values)]


class Attributes(core.SetOf):  # type: ignore[misc]  # asn1crypto has no types
    _child_spec = Attribute


@cache
def rsa_key(name: str = "device", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the key of this name: the same one in every test of a run, for making one takes long.

    It is nobody else's: not one of those that tests share (``tests/conftest.py``).
    """
    generate = getattr(rsa.generate_private_key, "anew", rsa.generate_private_key)
    key: rsa.RSAPrivateKey = generate(public_exponent=65537, key_size=bits)
    return key


def attribute(oid: str, value: core.Asn1Value) -> Attribute:
    return Attribute({"type": oid, "values": Values([core.Any(value)])})


@dataclass(frozen=True)
class Answer:
    """A CertRep whose signature was verified with the CA's certificate."""

    status: str
    fail_info: str | None
    certificates: list[x509.Certificate]
    """In the order in which they came."""
    cipher: str | None
    digest: str
    attributes: dict[str, Any] = field(repr=False)
    has_content: bool

    @property
    def certificate(self) -> x509.Certificate:
        assert self.status == "0", f"failInfo {self.fail_info}"
        return self.certificates[0]


@dataclass(frozen=True)
class ScepClient:
    """One client with one key. Its forms are fields: ``replace(client, cipher="des")``."""

    ca: x509.Certificate
    key: rsa.RSAPrivateKey = field(default_factory=rsa_key, repr=False)
    signer_key: rsa.RSAPrivateKey | None = field(default=None, repr=False)
    """Of another key than the CSR's: that of the certificate that a renewal is signed with."""
    signer_certificate: x509.Certificate | None = field(default=None, repr=False)
    subject: x509.Name = field(
        default_factory=lambda: x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ACME"), x509.NameAttribute(NameOID.COMMON_NAME, "mac-1")]
        )
    )
    transaction_id: core.Asn1Value = field(default_factory=lambda: core.PrintableString(os.urandom(20).hex()))
    sender_nonce: bytes = field(default_factory=lambda: os.urandom(16))
    message_type: str = "19"
    cipher: ContentCipher = "aes256_cbc"
    digest: str = "sha256"
    signature_algorithm: str = "rsassa_pkcs1v15"
    null_parameters: bool = True
    oaep: str | None = None
    """The hash of OAEP; None: PKCS #1 v1.5."""
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()
    forge_csr: Callable[[bytes], bytes] = bytes
    """What happens to the CSR before it is encrypted."""
    forge_key: Callable[[bytes], bytes] = bytes
    """What happens to the content's key before it is encrypted."""
    forge_ciphertext: Callable[[bytes], bytes] = bytes
    forge_signature: Callable[[bytes], bytes] = bytes
    recipients: Sequence[x509.Certificate] | None = None
    """Whom to encrypt to; None: the CA."""

    def request(self, challenge: str | core.Asn1Value | None) -> bytes:
        """Return a signed request, in DER."""
        return self.sign(self.envelope(self.forge_csr(self.csr(challenge))))

    def csr(self, challenge: str | core.Asn1Value | None) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(self.subject)
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical=critical)
        if isinstance(challenge, str):
            builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
        csr = builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)
        if not isinstance(challenge, core.Asn1Value):
            return csr
        return self._with_challenge(csr, challenge)

    def _with_challenge(self, csr: bytes, challenge: core.Asn1Value) -> bytes:
        """Put in a challenge password of any string type, and sign again."""
        parsed = core.Sequence.load(csr)
        info = core.Sequence.load(parsed[0].dump())
        fields = b"".join(info[index].dump() for index in range(3))
        attributes = Attributes([attribute("1.2.840.113549.1.9.7", challenge)]).retag({"implicit": 0}).dump()
        information = core.Sequence(contents=fields + attributes).dump()
        signature = core.OctetBitString(self.key.sign(information, padding.PKCS1v15(), hashes.SHA256())).dump()
        return bytes(core.Sequence(contents=information + parsed[1].dump() + signature).dump())

    def envelope(self, content: bytes) -> bytes:
        length, block, algorithm = _CIPHERS[self.cipher]
        key, iv = os.urandom(length), os.urandom(block)
        padder = PKCS7(block * 8).padder()
        encryptor = Cipher(algorithm(key), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
        recipients = self.recipients if self.recipients is not None else [self.ca]
        return bytes(
            cms.ContentInfo(
                {
                    "content_type": "enveloped_data",
                    "content": cms.EnvelopedData(
                        {
                            "version": "v0",
                            "recipient_infos": [self._recipient(certificate, key) for certificate in recipients],
                            "encrypted_content_info": {
                                "content_type": "data",
                                "content_encryption_algorithm": {"algorithm": self.cipher, "parameters": iv},
                                "encrypted_content": self.forge_ciphertext(ciphertext),
                            },
                        }
                    ),
                }
            ).dump()
        )

    def _recipient(self, certificate: x509.Certificate, key: bytes) -> cms.RecipientInfo:
        public_key = certificate.public_key()
        assert isinstance(public_key, rsa.RSAPublicKey)
        forged = self.forge_key(key)
        if self.oaep is None:
            algorithm: dict[str, Any] = {"algorithm": "rsaes_pkcs1v15"}
            encrypted_key = public_key.encrypt(forged, padding.PKCS1v15())
        else:
            algorithm = {
                "algorithm": "rsaes_oaep",
                "parameters": algos.RSAESOAEPParams(
                    {
                        "hash_algorithm": {"algorithm": self.oaep},
                        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": self.oaep}},
                    }
                ),
            }
            scheme = padding.OAEP(padding.MGF1(_HASHES[self.oaep]), _HASHES[self.oaep], None)
            encrypted_key = public_key.encrypt(forged, scheme)
        return cms.RecipientInfo(
            name="ktri",
            value={
                "version": "v0",
                "rid": cms.RecipientIdentifier(name="issuer_and_serial_number", value=issuer_and_serial(certificate)),
                "key_encryption_algorithm": algorithm,
                "encrypted_key": encrypted_key,
            },
        )

    def signer(self) -> x509.Certificate:
        """Return the certificate that requests are signed with: self-signed, unless this is a renewal."""
        if self.signer_certificate is not None:
            return self.signer_certificate
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.subject)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )

    def sign(self, content: bytes, *, attributes: Sequence[Attribute] | None = None) -> bytes:
        """Return a SignedData over ``content`` with SCEP's attributes, or with ``attributes`` in their place."""
        certificate = self.signer()
        own = attributes if attributes is not None else self.attributes()
        digest = hashlib.new(self.digest, content).digest()
        signed = Attributes(
            [
                attribute("1.2.840.113549.1.9.3", core.ObjectIdentifier("1.2.840.113549.1.7.1")),
                attribute("1.2.840.113549.1.9.4", core.OctetString(digest)),
                *own,
            ]
        )
        key = self.signer_key or self.key
        signature = key.sign(signed.dump(), padding.PKCS1v15(), _HASHES[self.digest])
        digest_algorithm: dict[str, Any] = {"algorithm": self.digest}
        if self.null_parameters:
            digest_algorithm["parameters"] = core.Null()
        signature_algorithm: dict[str, Any] = {"algorithm": self.signature_algorithm}
        if self.null_parameters:
            signature_algorithm["parameters"] = core.Null()
        signer_info = core.Sequence(
            contents=b"".join(
                (
                    core.Integer(1).dump(),
                    issuer_and_serial(certificate).dump(),
                    algos.DigestAlgorithm(digest_algorithm).dump(),
                    signed.retag({"implicit": 0}).dump(),
                    algos.SignedDigestAlgorithm(signature_algorithm).dump(),
                    core.OctetString(self.forge_signature(signature)).dump(),
                )
            )
        )
        signed_data = cms.SignedData(
            {
                "version": "v1",
                "digest_algorithms": [digest_algorithm],
                "encap_content_info": {"content_type": "data", "content": content},
                "certificates": [asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))],
                "signer_infos": [cms.SignerInfo.load(signer_info.dump())],
            }
        )
        return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed_data}).dump())

    def attributes(self) -> list[Attribute]:
        return [
            attribute(TRANSACTION_ID, self.transaction_id),
            attribute(MESSAGE_TYPE, core.PrintableString(self.message_type)),
            attribute(SENDER_NONCE, core.OctetString(self.sender_nonce)),
        ]

    def renewal(self, certificate: x509.Certificate, new_key: rsa.RSAPrivateKey, **changes: Any) -> "ScepClient":
        """Return the client that renews ``certificate``, which is this client's, for a new key."""
        changes.setdefault("transaction_id", core.PrintableString(os.urandom(20).hex()))
        return replace(
            self,
            key=new_key,
            signer_key=self.key,
            signer_certificate=certificate,
            message_type="17",
            sender_nonce=os.urandom(16),
            **changes,
        )

    def read(self, answer: bytes) -> Answer:
        """Verify a CertRep as a strict client does, and open it."""
        signed_data = cms.ContentInfo.load(answer, strict=True)["content"]
        (signer_info,) = signed_data["signer_infos"]
        assert signed_data["encap_content_info"]["content_type"].native == "data"
        content = signed_data["encap_content_info"]["content"].native
        digest = signer_info["digest_algorithm"]["algorithm"].native
        attributes = {item["type"].dotted: item["values"][0] for item in signer_info["signed_attrs"]}
        signed = signer_info["signed_attrs"].untag()
        encodings = [item.dump() for item in signed]
        assert encodings == sorted(encodings), "signed attributes in the order of DER"
        certificates = [choice.chosen.dump() for choice in signed_data["certificates"]]
        assert certificates == [self.ca.public_bytes(Encoding.DER)]
        assert signer_info["sid"].chosen.dump() == issuer_and_serial(self.ca).dump()
        ca_key = self.ca.public_key()
        assert isinstance(ca_key, rsa.RSAPublicKey)
        ca_key.verify(signer_info["signature"].native, signed.dump(), padding.PKCS1v15(), _HASHES[digest])
        assert attributes["1.2.840.113549.1.9.4"].native == hashlib.new(digest, content or b"").digest()
        assert attributes["1.2.840.113549.1.9.3"].native == "data"
        assert raw(attributes[MESSAGE_TYPE]) == core.PrintableString("3").dump()
        assert raw(attributes[TRANSACTION_ID]) == core.PrintableString(self.transaction_id.native).dump()
        assert raw(attributes[RECIPIENT_NONCE]) == core.OctetString(self.sender_nonce).dump()
        nonce = core.OctetString.load(raw(attributes[SENDER_NONCE])).native
        assert len(nonce) == 16
        assert nonce != self.sender_nonce
        status = core.PrintableString.load(raw(attributes[PKI_STATUS])).native
        fail_info = attributes.get(FAIL_INFO)
        found, cipher = self._open(content) if content else ([], None)
        return Answer(
            status=status,
            fail_info=None if fail_info is None else core.PrintableString.load(raw(fail_info)).native,
            certificates=found,
            cipher=cipher,
            digest=digest,
            attributes=attributes,
            has_content=content is not None,
        )

    def _open(self, content: bytes) -> tuple[list[x509.Certificate], str]:
        enveloped = cms.ContentInfo.load(content, strict=True)["content"]
        (recipient,) = enveloped["recipient_infos"]
        assert recipient.chosen["rid"].chosen.dump() == issuer_and_serial(self.signer()).dump()
        key = (self.signer_key or self.key).decrypt(recipient.chosen["encrypted_key"].native, padding.PKCS1v15())
        encrypted = enveloped["encrypted_content_info"]
        cipher = encrypted["content_encryption_algorithm"]["algorithm"].native
        iv = encrypted["content_encryption_algorithm"]["parameters"].native
        _length, block, algorithm = _CIPHERS[cipher]
        decryptor = Cipher(algorithm(key), modes.CBC(iv)).decryptor()
        padded = decryptor.update(encrypted["encrypted_content"].native) + decryptor.finalize()
        unpadder = PKCS7(block * 8).unpadder()
        degenerate = cms.ContentInfo.load(unpadder.update(padded) + unpadder.finalize(), strict=True)["content"]
        assert len(degenerate["signer_infos"]) == 0
        return [x509.load_der_x509_certificate(choice.chosen.dump()) for choice in degenerate["certificates"]], cipher


def raw(value: core.Asn1Value) -> bytes:
    return bytes(value.dump())


def issuer_and_serial(certificate: x509.Certificate) -> cms.IssuerAndSerialNumber:
    parsed = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    return cms.IssuerAndSerialNumber({"issuer": parsed.issuer, "serial_number": parsed.serial_number})


def openssl(*arguments: str, stdin: bytes = b"", check: bool = True) -> bytes:
    """Run OpenSSL's command line, the other implementation. Without ``check`` it may fail, and says so behind."""
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=check)
    return done.stdout if check else done.stdout + done.stderr


def indefinite(der: bytes, *, depth: int) -> bytes:
    """Return the same value with indefinite lengths, and strings in two pieces, down to ``depth`` levels."""
    tag, content = der[0], der[_header_length(der) :]
    if depth == 0:
        return der
    if tag & 0x20:
        parts = [indefinite(child, depth=depth - 1) for child in _children(content)]
    elif tag in {0x04, 0x80}:
        half = len(content) // 2
        parts = [core.OctetString(piece).dump() for piece in (content[:half], content[half:])]
    else:
        return der
    return bytes((tag | 0x20, 0x80)) + b"".join(parts) + b"\x00\x00"


def _children(content: bytes) -> list[bytes]:
    found = []
    while content:
        header = _header_length(content)
        length = content[1] if header == 2 else int.from_bytes(content[2:header], "big")
        found.append(content[: header + length])
        content = content[header + length :]
    return found


def _header_length(der: bytes) -> int:
    return 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)


def url_safe(message: bytes) -> str:
    return base64.urlsafe_b64encode(message).decode()
