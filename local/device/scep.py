"""How a device gets its certificate: a SCEP client (RFC 8894).

It asks as the clients that are in use ask (:class:`ScepDialect` has their habits) and believes nothing that it cannot
check: the CertRep's signature, transaction and nonce, the chain and the purpose of the certificate.
"""

import base64
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Self, TypeVar
from urllib.parse import quote

from asn1crypto import core
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from local.device import certificate_request, cms
from local.device.cms import Identity, PrivateKey
from local.device.envelope import Cipher, key_size, open_envelope, open_with_password, seal
from local.device.errors import ProtocolViolation, ScepRefused
from local.device.profile import ScepSettings
from local.device.wire import Wire, must_be_ok

CA_CERTIFICATE: Final = "application/x-x509-ca-cert"
CA_AND_RA_CERTIFICATES: Final = "application/x-x509-ca-ra-cert"
NEXT_CA_CERTIFICATE: Final = "application/x-x509-next-ca-cert"
PKI_MESSAGE: Final = "application/x-pki-message"

_MESSAGE_TYPE: Final = "2.16.840.1.113733.1.9.2"
_PKI_STATUS: Final = "2.16.840.1.113733.1.9.3"
_FAIL_INFO: Final = "2.16.840.1.113733.1.9.4"
_SENDER_NONCE: Final = "2.16.840.1.113733.1.9.5"
_RECIPIENT_NONCE: Final = "2.16.840.1.113733.1.9.6"
_TRANSACTION_ID: Final = "2.16.840.1.113733.1.9.7"

_CERT_REP: Final = "3"
_RENEWAL_REQ: Final = "17"
_PKCS_REQ: Final = "19"
_CERT_POLL: Final = "20"

_SUCCESS: Final = "0"
_FAILURE: Final = "2"
_PENDING: Final = "3"

_CURVES: Final = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, kw_only=True)
class ScepDialect:
    """The habits of one client. None leaves the choice to what GetCACaps offers."""

    cipher: Cipher | None = None
    digest: Literal["sha1", "sha256", "sha512"] | None = None
    oaep: bool = False
    """RSA-OAEP instead of PKCS #1 v1.5 for the content's key."""
    use_get: bool = False
    """PKIOperation by GET, even if the server offers POST."""
    message_in_query: bool = False
    """A POST that carries the whole message in its query as well, percent-encoded DER, as one client does."""
    curve: Literal["P-256", "P-384"] | None = None
    """Keys are of this curve, not RSA: they sign, and answers are encrypted with the challenge."""
    null_parameters: bool = True
    """Whether the algorithm identifiers of hashes and of RSA have a NULL."""


class ScepClient:
    """One client of one server. ``subject`` is the payload's with its variables replaced, never empty.

    Every check that fails raises :class:`~local.device.errors.ProtocolViolation`, a FAILURE of the server
    :class:`~local.device.errors.ScepRefused`.
    """

    def __init__(
        self,
        wire: Wire,
        settings: ScepSettings,
        *,
        subject: Sequence[tuple[str, str]],
        dialect: ScepDialect | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._wire = wire
        self._settings = settings
        self._subject = certificate_request.name(subject)
        self._dialect = dialect or ScepDialect()
        self._now = now
        self._random_bytes = random_bytes
        self._sleep = sleep

    def enroll(self) -> Identity:
        """Make a key and get its first certificate, with the challenge of the profile (PKCSReq)."""
        key = self._new_key()
        signer = Identity(key, certificate_request.self_signed(key, self._subject, at=self._now()))
        return self._request(_PKCS_REQ, key, signer, self._settings.challenge)

    def renew(self, current: Identity) -> Identity:
        """Get a certificate for a new key, vouched for by the current one (RenewalReq): no challenge."""
        # Only who has a key of a curve needs the challenge then, for the answer.
        challenge = None if isinstance(current.key, rsa.RSAPrivateKey) else self._settings.challenge
        return self._request(_RENEWAL_REQ, self._new_key(), current, challenge)

    def next_authority(self) -> x509.Certificate:
        """Return the CA that will follow, for which the present one vouches (GetNextCACert, RFC 8894, section 4.7)."""
        if "getnextcacert" not in self._capabilities():
            raise ProtocolViolation("GetNextCACert", "GetCACaps does not offer it.")
        url = f"{self._settings.url}?operation=GetNextCACert"
        response = must_be_ok(self._wire.send("GET", url, what="GetNextCACert", patient=True), "GetNextCACert")
        _check_content_type(response.headers, "GetNextCACert", {NEXT_CA_CERTIFICATE})
        try:
            signed = cms.verify(response.content)
            following = cms.degenerate_certificates(signed.content)
        except cms.CmsError as error:
            raise ProtocolViolation("GetNextCACert", str(error)) from error
        if signed.signer != self._authorities().ca:
            raise ProtocolViolation("GetNextCACert", "It is not the CA in use that vouches for the next one.")
        if not following or not _is_ca(following[0]):
            raise ProtocolViolation("GetNextCACert", "It holds no CA's certificate.")
        return following[0]

    def _new_key(self) -> PrivateKey:
        if self._dialect.curve:
            return ec.generate_private_key(_CURVES[self._dialect.curve])
        return rsa.generate_private_key(public_exponent=65537, key_size=self._settings.key_size)

    def _request(self, message_type: str, key: PrivateKey, signer: Identity, challenge: str | None) -> Identity:
        capabilities = self._capabilities()
        authorities = self._authorities()
        transaction = _Transaction(
            capabilities=capabilities,
            authorities=authorities,
            signer=signer,
            transaction_id=_transaction_id(key),
        )
        content = certificate_request.new_request(
            key,
            self._subject,
            usage=self._settings.key_usage,
            alternative_names=self._settings.alternative_names,
            challenge=challenge,
        )
        for attempt in range(self._settings.retries + 1):
            if attempt:
                self._sleep(self._settings.retry_delay)
                message_type = _CERT_POLL
                content = certificate_request.issuer_and_subject(authorities.ca, self._subject)
            certificate = self._exchange(transaction, message_type, content)
            if certificate is not None:
                self._check_certificate(certificate, key, authorities)
                return Identity(key, certificate)
        raise ProtocolViolation("pkiStatus", f"It is still PENDING after {self._settings.retries} retries.")

    def _capabilities(self) -> frozenset[str]:
        response = self._wire.send("GET", f"{self._settings.url}?operation=GetCACaps", what="GetCACaps", patient=True)
        body = must_be_ok(response, "GetCACaps").content
        _check_content_type(response.headers, "GetCACaps", {"text/plain"}, parameters=True)
        # The clients in use compare without regard to case.
        return frozenset(body.decode("ascii", errors="replace").lower().split())

    def _authorities(self) -> "_Authorities":
        url = f"{self._settings.url}?operation=GetCACert"
        if self._settings.name:
            url += f"&message={quote(self._settings.name, safe='')}"
        response = must_be_ok(self._wire.send("GET", url, what="GetCACert", patient=True), "GetCACert")
        kind = _check_content_type(response.headers, "GetCACert", {CA_CERTIFICATE, CA_AND_RA_CERTIFICATES})
        try:
            if kind == CA_CERTIFICATE:
                certificates: tuple[x509.Certificate, ...] = (x509.load_der_x509_certificate(response.content),)
            else:
                certificates = cms.degenerate_certificates(response.content)
        except ValueError as error:
            raise ProtocolViolation("GetCACert", f"The answer holds no certificates: {error}") from error
        return _Authorities.choose(certificates, self._settings.ca_fingerprint)

    def _exchange(self, transaction: "_Transaction", message_type: str, content: bytes) -> x509.Certificate | None:
        """Send one PKIMessage; return the certificate of the answer, or None when it is PENDING."""
        nonce = self._random_bytes(16)
        cipher = self._dialect.cipher or transaction.best_cipher
        envelope = seal(
            content,
            transaction.authorities.recipient,
            cipher=cipher,
            oaep=self._dialect.oaep,
            random_bytes=self._random_bytes,
        )
        message = cms.sign(
            envelope,
            transaction.signer,
            digest=self._dialect.digest or transaction.best_digest,
            attributes={
                _MESSAGE_TYPE: core.PrintableString(message_type).dump(),
                _TRANSACTION_ID: core.PrintableString(transaction.transaction_id).dump(),
                _SENDER_NONCE: core.OctetString(nonce).dump(),
            },
            detached=False,
            null_parameters=self._dialect.null_parameters,
        )
        reply = _Reply.decode(self._pki_operation(message, transaction.capabilities))
        reply.check(transaction, nonce)
        return self._open(reply, transaction, cipher) if reply.status == _SUCCESS else None

    def _pki_operation(self, message: bytes, capabilities: frozenset[str]) -> bytes:
        url = f"{self._settings.url}?operation=PKIOperation"
        offers_post = bool(capabilities & {"postpkioperation", "scepstandard"})
        if self._dialect.use_get or not offers_post:
            url += f"&message={quote(base64.b64encode(message), safe='')}"
            response = self._wire.send("GET", url, what="PKIOperation", patient=True)
        else:
            if self._dialect.message_in_query:
                url += f"&message={quote(message, safe='')}"
            headers = {"Content-Type": PKI_MESSAGE}
            response = self._wire.send("POST", url, what="PKIOperation", body=message, headers=headers, patient=True)
        must_be_ok(response, "PKIOperation")
        _check_content_type(response.headers, "PKIOperation", {PKI_MESSAGE})
        return response.content

    def _open(self, reply: "_Reply", transaction: "_Transaction", cipher: Cipher) -> x509.Certificate:
        signer = transaction.signer
        try:
            if isinstance(signer.key, rsa.RSAPrivateKey):
                content, answered = open_envelope(reply.envelope, signer.certificate, signer.key)
            else:
                content, answered = open_with_password(reply.envelope, (self._settings.challenge or "").encode())
            certificates = cms.degenerate_certificates(content)
        except cms.CmsError as error:
            raise ProtocolViolation("pkcsPKIEnvelope", str(error)) from error
        if key_size(answered) < key_size(cipher):
            raise ProtocolViolation("pkcsPKIEnvelope", f"{cipher} was answered with the weaker {answered}.")
        if not certificates:
            raise ProtocolViolation("pkcsPKIEnvelope", "It holds no certificate.")
        # The clients in use take the first one without a look at the others.
        return certificates[0]

    def _check_certificate(self, certificate: x509.Certificate, key: PrivateKey, authorities: "_Authorities") -> None:
        if certificate.public_key() != key.public_key():
            raise ProtocolViolation("certificate-key", "The first certificate is not for the key of the request.")
        if not _is_issued_by(certificate, authorities.ca):
            raise ProtocolViolation("certificate-chain", "The CA did not issue the certificate.")
        if not certificate.not_valid_before_utc <= self._now() <= certificate.not_valid_after_utc:
            raise ProtocolViolation("certificate-validity", "The certificate is not valid now.")
        if certificate.not_valid_after_utc > authorities.ca.not_valid_after_utc:
            raise ProtocolViolation("certificate-validity", "The certificate outlives its CA.")
        purposes = _extension(certificate, x509.ExtendedKeyUsage)
        if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
            raise ProtocolViolation("certificate-purpose", "The certificate is not for clientAuth.")
        usage = _extension(certificate, x509.KeyUsage)
        if usage is not None and not usage.digital_signature:
            raise ProtocolViolation("certificate-purpose", "The certificate's key must not sign.")


@dataclass(frozen=True)
class _Authorities:
    """The certificates of GetCACert: who issues, whom to encrypt to, and who may sign answers."""

    ca: x509.Certificate
    recipient: x509.Certificate
    all: tuple[x509.Certificate, ...]

    @classmethod
    def choose(cls, certificates: tuple[x509.Certificate, ...], fingerprint: bytes | None) -> Self:
        """Tell a CA's certificate from an RA's, which the CA must have issued (RFC 8894, section 4.2.1.2)."""
        authorities = [one for one in certificates if _is_ca(one)]
        if not authorities:
            raise ProtocolViolation("GetCACert", "None of the certificates is a CA's (basicConstraints).")
        ca = authorities[0]
        if fingerprint is not None and fingerprint not in _fingerprints(ca):
            raise ProtocolViolation("CAFingerprint", "The CA is not the one that the profile names.")
        if not all(one == ca or _is_issued_by(one, ca) for one in certificates):
            raise ProtocolViolation("GetCACert", "An RA's certificate is not issued by the CA.")
        registration = [one for one in certificates if not _is_ca(one) and _may_encipher(one)]
        recipient = registration[0] if registration else ca
        if not isinstance(recipient.public_key(), rsa.RSAPublicKey):
            raise ProtocolViolation("GetCACert", "Nothing can be encrypted to a key that is not RSA.")
        return cls(ca, recipient, certificates)


@dataclass(frozen=True, kw_only=True)
class _Transaction:
    """What stays the same from a request to its last CertPoll."""

    capabilities: frozenset[str]
    authorities: _Authorities
    signer: Identity
    transaction_id: str

    @property
    def best_cipher(self) -> Cipher:
        if self.capabilities & {"aes", "scepstandard"}:
            return "aes256"
        return "3des" if "des3" in self.capabilities else "des"

    @property
    def best_digest(self) -> Literal["sha1", "sha256", "sha512"]:
        if self.capabilities & {"sha-256", "scepstandard"}:
            return "sha256"
        return "sha512" if "sha-512" in self.capabilities else "sha1"


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """A CertRep whose signature was verified; not yet whether it answers what was asked."""

    signer: x509.Certificate
    message_type: str
    transaction_id: str
    sender_nonce: bytes
    recipient_nonce: bytes
    status: str
    fail_info: str | None
    envelope: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        try:
            signed = cms.verify(body)
        except cms.CmsError as error:
            raise ProtocolViolation("CertRep-signature", str(error)) from error
        status = _text(signed.attributes, _PKI_STATUS, "pkiStatus")
        return cls(
            signer=signed.signer,
            message_type=_text(signed.attributes, _MESSAGE_TYPE, "messageType"),
            transaction_id=_text(signed.attributes, _TRANSACTION_ID, "transactionID"),
            sender_nonce=_octets(signed.attributes, _SENDER_NONCE, "senderNonce"),
            recipient_nonce=_octets(signed.attributes, _RECIPIENT_NONCE, "recipientNonce"),
            status=status,
            fail_info=_text(signed.attributes, _FAIL_INFO, "failInfo") if status == _FAILURE else None,
            envelope=signed.content,
        )

    def check(self, transaction: _Transaction, nonce: bytes) -> None:
        """Hold the reply against the request. Raises also when it is a well-formed FAILURE."""
        if self.signer not in transaction.authorities.all:
            raise ProtocolViolation("CertRep-signer", "It is signed by a certificate that GetCACert did not give.")
        if self.message_type != _CERT_REP:
            raise ProtocolViolation("messageType", f"It is {self.message_type}, not {_CERT_REP} (CertRep).")
        if self.transaction_id != transaction.transaction_id:
            raise ProtocolViolation("transactionID", "It is not that of the request.")
        if self.recipient_nonce != nonce:
            raise ProtocolViolation("recipientNonce", "It is not the senderNonce of the request.")
        # RFC 8894, section 3.2.1.5: 16 bytes that each sender makes itself.
        if len(self.sender_nonce) != len(nonce) or self.sender_nonce == nonce:
            raise ProtocolViolation("senderNonce", "It is not 16 fresh bytes.")
        if self.fail_info is not None:
            if not self.fail_info.isdecimal():
                raise ProtocolViolation("failInfo", f"It is {self.fail_info!r}.")
            raise ScepRefused(int(self.fail_info))
        if self.status not in {_SUCCESS, _PENDING}:
            raise ProtocolViolation("pkiStatus", f"It is {self.status!r}.")


def _check_content_type(headers: Mapping[str, str], what: str, allowed: set[str], *, parameters: bool = False) -> str:
    found = headers.get("content-type", "")
    kind = found.partition(";")[0].strip() if parameters else found
    if kind not in allowed:
        raise ProtocolViolation("Content-Type", f"That of {what} is {found!r}, not {' or '.join(sorted(allowed))}.")
    return kind


def _text(attributes: Mapping[str, bytes], oid: str, name: str) -> str:
    try:
        return str(core.PrintableString.load(attributes[oid], strict=True).native)
    except (KeyError, ValueError) as error:
        raise ProtocolViolation(name, "It is missing or no PrintableString.") from error


def _octets(attributes: Mapping[str, bytes], oid: str, name: str) -> bytes:
    try:
        return bytes(core.OctetString.load(attributes[oid], strict=True).native)
    except (KeyError, ValueError) as error:
        raise ProtocolViolation(name, "It is missing or no OCTET STRING.") from error


def _transaction_id(key: PrivateKey) -> str:
    """Return the hash of the public key, in hex (RFC 8894, section 3.2.1.1): retries are one transaction."""
    info = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return cms.digest_of(info, "sha256").hex().upper()


def _is_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _may_encipher(certificate: x509.Certificate) -> bool:
    usage = _extension(certificate, x509.KeyUsage)
    return usage is None or usage.key_encipherment


def _fingerprints(certificate: x509.Certificate) -> tuple[bytes, ...]:
    # Apple's key names no hash; only its length tells which one it is.
    return tuple(certificate.fingerprint(kind) for kind in (hashes.MD5(), hashes.SHA1(), hashes.SHA256()))
