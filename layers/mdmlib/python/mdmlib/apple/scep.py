"""SCEP (RFC 8894): what clients ask a CA for, and how it answers.

A request is a SignedData around an EnvelopedData around a PKCS #10 certificate request; an answer (CertRep) is the
same around the issued certificate. This module knows the messages; who is given a certificate is decided in
:mod:`mdmlib.services.certificate_authority`.
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple import ber, cms, cms_envelope
from mdmlib.apple.certificates import CaIdentity, spki
from mdmlib.errors import BadRequestError, IdentityError, MalformedBodyError

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Real requests have 2 to 5 KB."""

PKI_MESSAGE_TYPE: Final = "application/x-pki-message"
CA_CERTIFICATE_TYPE: Final = "application/x-x509-ca-cert"
NEXT_CA_CERTIFICATE_TYPE: Final = "application/x-x509-next-ca-cert"
CAPABILITIES_TYPE: Final = "text/plain"

_CAPABILITIES: Final = ("POSTPKIOperation", "SCEPStandard", "Renewal", "SHA-1", "SHA-256", "SHA-512", "DES3", "AES")
_GET_NEXT_CA_CERT: Final = "GetNextCACert"

_NONCE_BYTES: Final = 16
_MAX_NONCE_BYTES: Final = 64
_MAX_TRANSACTION_ID_BYTES: Final = 255
_MAX_NUMBER_DIGITS: Final = 10

_MESSAGE_TYPE: Final = cms.oid("2.16.840.1.113733.1.9.2")
_PKI_STATUS: Final = cms.oid("2.16.840.1.113733.1.9.3")
_FAIL_INFO: Final = cms.oid("2.16.840.1.113733.1.9.4")
_SENDER_NONCE: Final = cms.oid("2.16.840.1.113733.1.9.5")
_RECIPIENT_NONCE: Final = cms.oid("2.16.840.1.113733.1.9.6")
_TRANSACTION_ID: Final = cms.oid("2.16.840.1.113733.1.9.7")
_CHALLENGE_PASSWORD: Final = cms.oid("1.2.840.113549.1.9.7")

_STRINGS: Final = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as everybody reads it
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}


_MODERN_CIPHERS: Final = (cms_envelope.AES_128, cms_envelope.AES_192, cms_envelope.AES_256)


class MessageType(IntEnum):
    """What a message is (RFC 8894, section 3.2.1.2)."""

    CERT_REP = 3
    RENEWAL_REQ = 17
    PKCS_REQ = 19
    CERT_POLL = 20
    GET_CERT = 21
    GET_CRL = 22


class PkiStatus(IntEnum):
    """How a request ended (RFC 8894, section 3.2.1.3)."""

    SUCCESS = 0
    FAILURE = 2


class FailInfo(IntEnum):
    """Why it failed (RFC 8894, section 3.2.1.4)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4


RECIPIENT_UNKNOWN: Final = "recipient_unknown"
"""Code of the refusal of a message that is addressed to another CA."""

_UNUSABLE: Final = (InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, ValueError, TypeError)
"""What cryptography raises for a certificate or request that is malformed, unusual or not signed by its key."""

_ENVELOPE_FAILURES: Final = {
    "algorithm_not_accepted": FailInfo.BAD_ALG,
    RECIPIENT_UNKNOWN: FailInfo.BAD_CERT_ID,
}


class ScepRefusedError(BadRequestError):
    """A request that was read and is refused: the client gets a CertRep with ``fail_info``, over HTTP a success."""

    default_code = "scep_refused"

    def __init__(self, fail_info: FailInfo, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.fail_info = fail_info


@dataclass(frozen=True)
class CertificateRequest:
    """What was in the envelope.

    Proven, not trusted: the request's own signature shows that its maker holds the private key, and the message's that
    its sender holds the one of ``signer``. Where that certificate is self-signed, both are the same key.
    """

    csr: x509.CertificateSigningRequest
    challenge_password: str | None = field(repr=False)
    signer: cms.SignerCertificate
    signer_is_self_signed: bool
    cipher: cms_envelope.ContentCipher
    """What the client encrypted with."""
    ca: CaIdentity = field(repr=False)
    """Whom it encrypted to: who knows that CA expects the answer, and the certificate, from no other."""


@dataclass(frozen=True)
class PkiMessage:
    """A request as far as everybody can read it. Nothing of it is verified before :meth:`open`."""

    message_type: int
    transaction_id: bytes
    """Text of the client's choice, as it came and as it goes back."""
    sender_nonce: bytes = field(repr=False)
    signer_certificate: x509.Certificate = field(repr=False)
    """The certificate that the message names as its signer's, and that an answer is encrypted to."""
    signer_der: bytes = field(repr=False)
    """The same, as it came."""
    _signed_data: cms.SignedData = field(repr=False)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Decode a request, in BER or DER, far enough to answer it.

        Raises :class:`~mdmlib.errors.MalformedBodyError`.
        """
        if len(message) > MAX_MESSAGE_BYTES:
            raise MalformedBodyError("SCEP: a message larger than any message.")
        signed_data = cms.SignedData.decode(message)
        try:
            signer, certificate, der = signed_data.signer()
            attributes = signer.attributes
            message_type = _text(attributes[_MESSAGE_TYPE])
            transaction_id = _text(attributes[_TRANSACTION_ID]).encode()
            sender_nonce = attributes[_SENDER_NONCE].octet_string()
        except (IdentityError, KeyError) as error:
            raise MalformedBodyError("SCEP: a message without its signer or its attributes.") from error
        if not (message_type.isascii() and message_type.isdecimal() and len(message_type) < _MAX_NUMBER_DIGITS):
            raise MalformedBodyError("SCEP: the message's type is no number.")
        if not 0 < len(transaction_id) <= _MAX_TRANSACTION_ID_BYTES or len(sender_nonce) > _MAX_NONCE_BYTES:
            raise MalformedBodyError("SCEP: a transaction ID or nonce beyond all bounds.")
        return cls(
            message_type=int(message_type),
            transaction_id=transaction_id,
            sender_nonce=sender_nonce,
            signer_certificate=certificate,
            signer_der=der,
            _signed_data=signed_data,
        )

    def open(self, *authorities: CaIdentity) -> CertificateRequest:
        """Verify the message, decrypt what is in it and verify that too; it is addressed to one of ``authorities``.

        Raises :class:`ScepRefusedError`. Everything that went wrong behind the encryption is refused in the same words:
        whether a key, padding, an encoding or a signature was wrong is what an attacker would like to know.
        """
        signer_is_self_signed = self._verify()
        try:
            envelope = cms_envelope.EnvelopedData.decode(self._signed_data.content or b"")
            ca, plaintext = _open(envelope, authorities)
        except BadRequestError as error:
            fail_info = _ENVELOPE_FAILURES.get(error.code, FailInfo.BAD_MESSAGE_CHECK)
            raise ScepRefusedError(fail_info, error.message, code=error.code) from error
        try:
            csr = x509.load_der_x509_csr(plaintext)
            if not csr.is_signature_valid:
                raise InvalidSignature
            if signer_is_self_signed and spki(csr.public_key()) != spki(self.signer_certificate.public_key()):
                raise InvalidSignature
            challenge_password = _challenge_password(csr)
        except (BadRequestError, *_UNUSABLE):
            raise ScepRefusedError(
                FailInfo.BAD_MESSAGE_CHECK, "The envelope holds nothing that can be used.", code="scep_unreadable"
            ) from None
        if not challenge_password and not isinstance(self.signer_certificate.public_key(), rsa.RSAPublicKey):
            # Known before anything is issued: RFC 8894, section 3.1, has the answer encrypted with the challenge then.
            raise ScepRefusedError(
                FailInfo.BAD_ALG, "An answer cannot be encrypted to a key that only signs.", code="scep_key"
            )
        return CertificateRequest(
            csr=csr,
            challenge_password=challenge_password,
            signer=cms.SignerCertificate(self.signer_der),
            signer_is_self_signed=signer_is_self_signed,
            cipher=envelope.cipher,
            ca=ca,
        )

    def success(self, request: CertificateRequest, certificate: bytes) -> bytes:
        """Return the CertRep with the issued certificate (DER), followed by the CA's, for the signer alone to read."""
        modern = self._digest.name != hashes.SHA1.name or request.cipher in _MODERN_CIPHERS
        ca = request.ca
        issued = cms.certificates_only([certificate, ca.der])
        cipher = cms_envelope.AES_256 if modern else request.cipher
        if isinstance(self.signer_certificate.public_key(), rsa.RSAPublicKey):
            envelope = cms_envelope.seal(issued, recipient=self.signer_certificate, cipher=cipher)
        else:
            password = request.challenge_password or ""
            envelope = cms_envelope.seal_with_password(issued, password=password, cipher=cipher)
        return self._answer(ca, PkiStatus.SUCCESS, envelope, digest=hashes.SHA256() if modern else self._digest)

    def failure(self, ca: CaIdentity, fail_info: FailInfo) -> bytes:
        """Return the CertRep that refuses the request. It has no content: RFC 8894, section 3.2."""
        attributes = {_FAIL_INFO: _printable(str(int(fail_info)))}
        return self._answer(ca, PkiStatus.FAILURE, None, digest=self._digest, attributes=attributes)

    @property
    def _digest(self) -> hashes.HashAlgorithm:
        """What an answer is signed with when nothing speaks for better: what the client can do itself."""
        used = cms.DIGESTS.get(self._signed_data.signers[0].digest_algorithm)
        return used if isinstance(used, hashes.SHA1) else hashes.SHA256()

    def _verify(self) -> bool:
        """Verify the message's signature; say whether its signer's certificate is self-signed."""
        signer, certificate = self._signed_data.signers[0], self.signer_certificate
        if signer.digest_algorithm not in cms.DIGESTS:
            raise ScepRefusedError(FailInfo.BAD_ALG, "The message's digest is not accepted.", code="scep_digest")
        if signer.signature_algorithm not in cms.SIGNATURES:
            raise ScepRefusedError(FailInfo.BAD_ALG, "The message's signature is of no kind we know.", code="scep_key")
        try:
            signer.verify(certificate, self._signed_data.content or b"", content_type=self._signed_data.content_type)
            return _is_self_signed(certificate)
        except (IdentityError, *_UNUSABLE) as error:
            raise ScepRefusedError(
                FailInfo.BAD_MESSAGE_CHECK, "The message was not signed by its signer.", code="scep_signature"
            ) from error

    def _answer(
        self,
        ca: CaIdentity,
        status: PkiStatus,
        content: bytes | None,
        *,
        digest: hashes.HashAlgorithm,
        attributes: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> bytes:
        return cms.sign(
            content,
            certificate=ca.der,
            private_key=ca.private_key,
            digest=digest,
            attributes={
                _TRANSACTION_ID: ber.der(ber.PRINTABLE_STRING, self.transaction_id),
                _MESSAGE_TYPE: _printable(str(int(MessageType.CERT_REP))),
                _PKI_STATUS: _printable(str(int(status))),
                _SENDER_NONCE: ber.der(ber.OCTET_STRING, os.urandom(_NONCE_BYTES)),
                _RECIPIENT_NONCE: ber.der(ber.OCTET_STRING, self.sender_nonce),
                **attributes,
            },
        )


def capabilities(*, has_next_ca: bool) -> bytes:
    """Return the answer to GetCACaps, in which clients look for substrings."""
    return "\n".join((*_CAPABILITIES, *([_GET_NEXT_CA_CERT] if has_next_ca else []), "")).encode()


def next_ca_certificate(ca: CaIdentity, following: x509.Certificate) -> bytes:
    """Return the answer to GetNextCACert (RFC 8894, section 4.7.1): the CA in use vouches for the one to follow."""
    return cms.sign(
        cms.certificates_only([following.public_bytes(Encoding.DER)]),
        certificate=ca.der,
        private_key=ca.private_key,
        digest=hashes.SHA256(),
        attributes={},
    )


def decode_get_message(value: str) -> bytes:
    """Decode the ``message`` of a PKIOperation over GET, as it stands in the raw query.

    Clients send base64 in either alphabet, padded or not, percent-encoded or not, or twice. Raises
    :class:`~mdmlib.errors.MalformedBodyError`.
    """
    for _ in range(2):
        value = unquote(value)
    # A plus sign that somebody on the way took for an encoded space.
    value = value.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedBodyError("SCEP: the message in the query is not base64.") from error


def _open(envelope: cms_envelope.EnvelopedData, authorities: Sequence[CaIdentity]) -> tuple[CaIdentity, bytes]:
    for ca in authorities:
        try:
            return ca, envelope.open(ca.certificate, ca.private_key)
        except BadRequestError as error:
            if error.code != RECIPIENT_UNKNOWN:
                raise
    raise BadRequestError("The envelope is for somebody else.", code=RECIPIENT_UNKNOWN)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    """Say whether a certificate is of its own key. Raises for one that claims to be and is not."""
    try:
        certificate.verify_directly_issued_by(certificate)
    except ValueError:
        # Its issuer has another name. Comparing the two here would decode both first.
        return False
    return True


def _challenge_password(csr: x509.CertificateSigningRequest) -> str | None:
    """Return the challenge password, of whatever string type (PKCS #9 allows many, clients use more)."""
    information = ber.decode(csr.tbs_certrequest_bytes).children()
    for attribute in (
        attribute for group in information if group.tag == ber.context(0) for attribute in group.children()
    ):
        kind, values = attribute.expect(ber.SEQUENCE).children()
        if kind.content == _CHALLENGE_PASSWORD:
            return _text(values.only_child())
    return None


def _text(element: ber.Element) -> str:
    encoding = _STRINGS.get(element.tag)
    try:
        if encoding is not None:
            return element.content.decode(encoding)
    except UnicodeDecodeError:
        pass
    raise MalformedBodyError("SCEP: no text where text belongs.")


def _printable(text: str) -> bytes:
    return ber.der(ber.PRINTABLE_STRING, text.encode())
