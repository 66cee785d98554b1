"""Every parser that a device can reach, each as a function of bytes that may only refuse them.

A target reads its input as the server would and asks of what came out whatever the code behind relies on. What a target
raises beside its ``refusals`` is a finding, and so is an input that takes more than :data:`CPU_SECONDS`.
"""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from mdmlib.apple import ber, cms, cms_envelope, event, plist
from mdmlib.apple.certificates import CaIdentity, issue
from mdmlib.apple.checkin import (
    Authenticate,
    CheckinMessage,
    DeclarativeManagement,
    TokenUpdate,
    UserAuthenticate,
    decode_checkin,
)
from mdmlib.apple.cms import SignerCertificate, decode_mdm_signature, verify_detached
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.declarations import decode_status_report
from mdmlib.apple.device_certificate import DeviceCertificateVerifier, SignedContent
from mdmlib.apple.digest import DigestResponse
from mdmlib.apple.identity import IdentityVerifier
from mdmlib.apple.machine_info import MachineInfo, decode_header
from mdmlib.apple.ota import DeviceAttributes
from mdmlib.apple.platforms import is_older
from mdmlib.apple.plist_limits import MAX_VALUES
from mdmlib.apple.scep import FailInfo, PkiMessage, ScepRefusedError, decode_get_message
from mdmlib.errors import (
    BadRequestError,
    BodyTooLargeError,
    ForbiddenError,
    IdentityError,
    MalformedBodyError,
    NotFoundError,
    PicoMDMError,
)
from mdmlib.http.device_app import GatewayRequest
from mdmlib.http.enroll_edge import decode_scep
from mdmlib.services.access_tokens import AccessTokens
from mdmlib.services.certificate_header import decode_certificate_header
from mdmlib.services.ddm_forwarding import path_of
from mdmlib.services.scep_challenges import ScepChallenges
from mdmlib.store.sealing import MasterKeys, Sealer

if TYPE_CHECKING:
    from mdmlib.clients.signed_http import SignedHttpClient

CPU_SECONDS: Final = 2.0
"""Of one input, on the processor: neighbours on the same machine do not count."""

SEEDS: Final = Path(__file__).parent / "seeds"
AT: Final = datetime(2026, 12, 1, tzinfo=UTC)
"""When all this happens: the seeds' certificates are valid then."""

SIGNED_BODY: Final = (Path(__file__).parents[1] / "testdata" / "plists" / "Idle.plist").read_bytes()
"""What the seeds of signatures are over."""

_MAX_PARTITION_KEY: Final = 2_048
_MAX_SORT_KEY: Final = 1_024
_MAX_REASON: Final = 200


class FindingError(Exception):
    """A target did what it must not."""


@dataclass(frozen=True)
class Target:
    """A parser, what it may raise, and words that its inputs are made of."""

    name: str
    parse: Callable[[bytes], object]
    refusals: tuple[type[PicoMDMError], ...]
    words: tuple[bytes, ...] = ()
    max_bytes: int = 64 * 1024

    def __call__(self, data: bytes) -> None:
        """Parse one input. Raises whatever is a finding."""
        begun = time.process_time()
        try:
            self.parse(data)
        except self.refusals as refusal:
            _check_refusal(refusal)
        if (seconds := time.process_time() - begun) > CPU_SECONDS:
            raise FindingError(f"{len(data)} bytes took {seconds:.1f} s.")

    @property
    def seeds(self) -> list[Path]:
        """The files of its seed corpus."""
        return sorted(path for path in (SEEDS / self.name).glob("*") if path.is_file())


@cache
def authority() -> CaIdentity:
    """Return the CA that the seeds are made for. Its key is in the repository: nobody may ever trust it."""
    return CaIdentity.decode((SEEDS / "authority.der").read_bytes(), (SEEDS / "authority-key.der").read_bytes())


def _check_refusal(refusal: PicoMDMError) -> None:
    """A refusal is logged, and may be told: it says what is wrong in words that hold nothing of the input."""
    if not refusal.message.isascii() or len(refusal.message) > _MAX_REASON:
        raise FindingError(f"A refusal quotes its input: {refusal.code}") from refusal


def _check(holds: object, claim: str) -> None:
    if not holds:
        raise FindingError(claim)


# Property lists and what they hold


def _plist(data: bytes) -> dict[str, Any]:
    document = plist.loads(data)
    seen, open_values = 0, [document]
    while open_values:
        value = open_values.pop()
        seen += 1
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        open_values.extend(inner)
    _check(seen <= MAX_VALUES, "There are more values than there may be.")
    return document


def _binary_plist(data: bytes) -> dict[str, Any]:
    """Read a binary plist whose trailer is right: objects, each behind its length, and the width of references."""
    width, rest = 1 + (data[0] % 3 if data else 0), data[1:]
    body, offsets = bytearray(b"bplist00"), []
    while rest:
        length, rest = rest[0], rest[1:]
        offsets.append(len(body))
        body += rest[:length]
        rest = rest[length:]
    table = b"".join(offset.to_bytes(3, "big") for offset in offsets)
    numbers = b"".join(number.to_bytes(8, "big") for number in (len(offsets), 0, len(body)))
    return _plist(bytes(body) + table + bytes([0] * 6 + [3, width]) + numbers)


def _checkin(data: bytes) -> None:
    message = decode_checkin(data)
    _check_identity(message.enrollment_id.value, message.enrollment_id.parent)
    _check(len(f"m#{message.message_type}".encode()) <= _MAX_SORT_KEY, "The MessageType is no sort key.")
    _check(message.body is data, "The body is not what came.")
    _check_event(message)
    match message:
        case Authenticate():
            for key in (message.serial_number, message.topic):
                _check(key is None or 0 < len(key.encode()) <= _MAX_PARTITION_KEY, "A text is no key of an index.")
        case TokenUpdate():
            _check(message.push_token and message.push_magic, "A TokenUpdate says not how to push.")
        case UserAuthenticate() if message.digest_response:
            DigestResponse.parse(message.digest_response)
        case DeclarativeManagement():
            with contextlib.suppress(NotFoundError):
                path = path_of(message.endpoint)
                _check(path.isascii() and not {"", ".", ".."} & set(path.split("/")), "An endpoint leads elsewhere.")


def _command_report(data: bytes) -> None:
    report = CommandReport.decode(data)
    _check_identity(report.enrollment_id.value, report.enrollment_id.parent)
    _check(report.is_idle or report.command_uuid, "A report names no command.")
    _check(len(f"r#{report.command_uuid}".encode()) <= _MAX_SORT_KEY, "The CommandUUID is no sort key.")
    _check_event(report)


def _check_identity(value: str, parent: str | None) -> None:
    # The index of user channels by their device has the id as its sort key.
    _check(0 < len(value.encode()) <= _MAX_SORT_KEY and "#" not in value, "The identity is no key.")
    _check(parent is None or (parent != value and ":" not in parent), "A user channel is its own device.")


def _check_event(message: CheckinMessage | CommandReport) -> None:
    document = event.mdm_event(message, event_id="event", created_at=AT)
    _check(json.loads(event.webhook_body(document)) == document, "An event is not what its webhook says.")


def _machine_info(data: bytes) -> None:
    info = MachineInfo.decode(data)
    _check(info.platform is None or info.product, "There is no product.")
    if info.os_version:
        _check(not is_older(info.os_version, info.os_version), "A version is older than itself.")


def _ota_answer(data: bytes) -> None:
    attributes = DeviceAttributes.decode(data)
    _check("" not in {attributes.challenge, attributes.serial_number, attributes.product}, "Nothing is told as a text.")


def _digest_response(data: bytes) -> None:
    DigestResponse.parse(data.decode("utf-8", "replace")).answers("0" * 32)


def _status_report(data: bytes) -> None:
    json.dumps(decode_status_report(data), allow_nan=False).encode()


# Signatures and certificates


def _mdm_signature(data: bytes) -> None:
    verify_detached(decode_mdm_signature(data.decode("latin-1")), SIGNED_BODY)


def _certificate_header(data: bytes) -> None:
    certificate = SignerCertificate(decode_certificate_header(data.decode("latin-1")))
    IdentityVerifier([authority().certificate], grace=timedelta(days=30)).verify(certificate, at=AT)


def _signature(data: bytes) -> None:
    signer = verify_detached(data, SIGNED_BODY)
    IdentityVerifier([authority().certificate], grace=timedelta(days=30)).verify(signer, at=AT)


def _device_signature(data: bytes) -> None:
    signed = SignedContent.verify(data)
    with contextlib.suppress(IdentityError):
        DeviceCertificateVerifier([authority().certificate]).verify(signed)
    MachineInfo.decode(signed.content)


def _device_header(data: bytes) -> None:
    SignedContent.verify(decode_header(data.decode("latin-1")))


# Tokens and challenges


class _Keys:
    """The stack's keys, as everybody may know them."""

    def keys(self, *, fresh: bool = False) -> MasterKeys:
        return MasterKeys.from_secret(json.dumps({"current_key": "k1", "k1": "k" * 64}))


class _Issuer:
    """What an issuer answers who is asked for its keys."""

    def send(self, *_: object, **__: object) -> bytes:
        key = RSAAlgorithm.to_jwk(authority().private_key.public_key(), as_dict=True)
        return json.dumps({"keys": [{"kid": "rsa-1", "use": "sig", **key}]}).encode()


ISSUER: Final = "https://login.example.org"
AUDIENCE: Final = "picomdm"
"""Of the seeds' access tokens."""


def _access_token(data: bytes) -> None:
    claims = _access_tokens().verify(
        data.decode("latin-1"), issuer=ISSUER, jwks_url=f"{ISSUER}/keys", audiences=[AUDIENCE]
    )
    _check(claims["iss"] == ISSUER, "A token is of another issuer.")


@cache
def _access_tokens() -> AccessTokens:
    return AccessTokens(lambda: cast("SignedHttpClient", _Issuer()), now=lambda: AT)


def challenges() -> ScepChallenges:
    """Return the challenges that the seeds are made of."""
    return ScepChallenges(sealer=Sealer(_Keys()), now=lambda: AT)


def _scep_challenge(data: bytes) -> None:
    challenge = challenges().recognize(data.decode("latin-1"))
    _check(not challenges().is_over(challenge), "A challenge was made up.")


# SCEP


def _scep_message(data: bytes) -> None:
    ca = authority()
    message = PkiMessage.decode(data)
    try:
        request = message.open(ca)
        certificate = issue(request.csr, ca=ca, now=AT, days=365).public_bytes(Encoding.DER)
        answer = message.success(request, certificate)
    except ScepRefusedError as refused:
        _check_refusal(refused)
        answer = message.failure(ca, refused.fail_info)
    except BadRequestError as refused:
        _check_refusal(refused)
        answer = message.failure(ca, FailInfo.BAD_REQUEST)
    _check(cms.SignedData.decode(answer).signers, "An answer is not signed.")


def _scep_request(data: bytes) -> None:
    """Let a client's subject and attributes come in a request that is right in everything else.

    A fuzzer never gets past two signatures and an encryption by itself, but whoever has a key does.
    """
    split = int.from_bytes(data[:2], "big")
    subject, attributes = data[2 : 2 + split], data[2 + split :]
    key, key_info = _client_key()
    information = ber.der(ber.SEQUENCE, ber.der_integer(0), subject, key_info, attributes)
    algorithm = ber.der(ber.SEQUENCE, ber.der_oid("1.2.840.10045.4.3.2"))
    signature = ber.der(ber.BIT_STRING, b"\0", key.sign(information, ec.ECDSA(hashes.SHA256())))
    csr = ber.der(ber.SEQUENCE, information, algorithm, signature)
    ca = authority()
    envelope = cms_envelope.seal(csr, recipient=ca.certificate, cipher=cms_envelope.AES_128)
    _scep_message(
        cms.sign(
            envelope,
            certificate=_renewed_certificate().public_bytes(Encoding.DER),
            private_key=ca.private_key,
            digest=hashes.SHA256(),
            attributes=_SCEP_ATTRIBUTES,
        )
    )


_SCEP_ATTRIBUTES: Final[Mapping[bytes, bytes]] = {
    cms.oid("2.16.840.1.113733.1.9.2"): ber.der(ber.PRINTABLE_STRING, b"17"),
    cms.oid("2.16.840.1.113733.1.9.7"): ber.der(ber.PRINTABLE_STRING, b"transaction"),
    cms.oid("2.16.840.1.113733.1.9.5"): ber.der(ber.OCTET_STRING, bytes(16)),
}


@cache
def _renewed_certificate() -> x509.Certificate:
    """Return what a renewal is signed with: it need not be of the new key, and must be RSA, for the answer's sake."""
    ca = authority()
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "renewed")]))
        .issuer_name(ca.certificate.subject)
        .public_key(ca.private_key.public_key())
        .serial_number(1)
        .not_valid_before(AT)
        .not_valid_after(AT + timedelta(days=365))
        .sign(ca.private_key, hashes.SHA256())
    )


@cache
def _client_key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.derive_private_key(1_234_567, ec.SECP256R1())
    return key, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _scep_query(data: bytes) -> None:
    http = {"method": "GET", "path": "/scep"}
    raw = {"rawQueryString": data.decode("latin-1"), "requestContext": {"http": http}}
    decode_scep(GatewayRequest(raw))


def _scep_get_message(data: bytes) -> None:
    message = decode_get_message(data.decode("latin-1"))
    _check(len(message) <= len(data), "A message grew by being decoded.")
    _check(decode_get_message(base64.b64encode(message).decode()) == message, "A message is not read as it is sent.")


_PLIST_WORDS: Final = (
    b"bplist00", b'<?xml version="1.0" encoding="UTF-8"?>', b'<plist version="1.0">', b"</plist>", b"<dict>",
    b"</dict>", b"<dict/>", b"<array>", b"</array>", b"<key>", b"</key>", b"<string>", b"</string>", b"<integer>",
    b"</integer>", b"<real>", b"</real>", b"<date>", b"</date>", b"<data>", b"</data>", b"<true/>", b"<false/>",
    b"<!DOCTYPE plist [", b"<!ENTITY x 'y'>", b"]>", b"&amp;", b"&#0;", b"&x;", b"<![CDATA[", b"]]>", b"<!--", b"-->",
    b"2026-12-01T00:00:00Z", b"0x7FFFFFFFFFFFFFFF", b"-1", b"1e999", b"nan", b"\xef\xbb\xbf", b"encoding='UTF-16'",
)  # fmt: skip
_BINARY_PLIST_WORDS: Final = (
    b"\xd1\x01\x02", b"\xa2\x00\x00", b"\xdf\x13", b"\xaf\x10\x05", b"\x4f\x13", b"\x5f\x12", b"\x6f\x11",
    b"\x13\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x14", b"\x22", b"\x23", b"\x33\x7f\xf0\0\0\0\0\0\0", b"\x08", b"\x09",
)  # fmt: skip
_MESSAGE_WORDS: Final = (
    b"MessageType", b"Authenticate", b"TokenUpdate", b"CheckOut", b"SetBootstrapToken", b"GetBootstrapToken",
    b"UserAuthenticate", b"GetToken", b"ReturnToService", b"DeclarativeManagement", b"UDID", b"EnrollmentID", b"UserID",
    b"EnrollmentUserID", b"UserShortName", b"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", b"Topic", b"Token", b"PushMagic",
    b"UnlockToken", b"BootstrapToken", b"AwaitingConfiguration", b"DigestResponse", b"TokenServiceType",
    b"TokenParameters", b"com.apple.maid", b"com.apple.watch.pairing", b"Endpoint", b"Data", b"Status", b"CommandUUID",
    b"Idle", b"NotNow", b"Acknowledged", b"ErrorChain", b"ErrorCode", b"ErrorDomain", b"LocalizedDescription",
)  # fmt: skip
_ASN1_WORDS: Final = (
    b"\x30\x80", b"\x24\x80", b"\xa0\x80", b"\x31\x80", b"\x00\x00", b"\x05\x00", b"\x30\x84\xff\xff\xff\xff",
    b"\x02\x01\x01", b"\x03\x02\x00\x00", b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x0f",
    *(ber.der(ber.OID, oid) for oid in (cms.DATA, cms.SIGNED_DATA, cms.ENVELOPED_DATA, cms.CONTENT_TYPE)),
    *(ber.der(ber.OID, oid) for oid in (cms.MESSAGE_DIGEST, cms.RSA_ENCRYPTION, *cms.DIGESTS, *_SCEP_ATTRIBUTES)),
    ber.der_oid("1.2.840.113549.1.9.7"), ber.der_oid("1.2.840.113549.1.9.14"), ber.der_oid("1.2.840.113549.1.1.7"),
)  # fmt: skip
_BASE64_WORDS: Final = (b"=", b"==", b"%3D", b"%253D", b"%2B", b"+", b" ", b"\r\n ", b"-", b"_", b"/", b"%00")
_PEM_WORDS: Final = (
    b"-----BEGIN CERTIFICATE-----", b"-----END+CERTIFICATE-----", b":", b",", b"%0A", b"\t", *_BASE64_WORDS,
)  # fmt: skip
_DIGEST_WORDS: Final = (
    b"Digest ", b"username=", b"realm=", b"nonce=", b"uri=", b"response=", b"qop=auth", b"nc=", b'"', b"\\", b",",
)  # fmt: skip
_JSON_WORDS: Final = (
    b'{"StatusItems":', b'"Errors":[', b"NaN", b"-Infinity", b"1e999", b"\\ud800", b"[[[[[[[[", b"null", b"true", b"\0",
)  # fmt: skip
_TOKEN_WORDS: Final = (
    b"eyJhbGciOiJSUzI1NiJ9", b"eyJhbGciOiJub25lIn0", b"eyJhbGciOiJIUzI1NiJ9", b"e30", b".", b"..", *_BASE64_WORDS,
)  # fmt: skip
_NO_DEVICE: Final = (MalformedBodyError, IdentityError, BodyTooLargeError)

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        Target("plist", _plist, (MalformedBodyError, BodyTooLargeError), _PLIST_WORDS),
        Target("binary_plist", _binary_plist, (MalformedBodyError, BodyTooLargeError), _BINARY_PLIST_WORDS),
        Target("checkin", _checkin, (BadRequestError,), _PLIST_WORDS + _MESSAGE_WORDS),
        Target("command_report", _command_report, (BadRequestError,), _PLIST_WORDS + _MESSAGE_WORDS),
        Target("machine_info", _machine_info, (MalformedBodyError, BodyTooLargeError), _PLIST_WORDS),
        Target("ota_answer", _ota_answer, (MalformedBodyError, BodyTooLargeError), _PLIST_WORDS),
        Target(
            "digest_response",
            _digest_response,
            (MalformedBodyError,),
            _DIGEST_WORDS,
            max_bytes=2_048,
        ),
        Target(
            "status_report",
            _status_report,
            (MalformedBodyError,),
            _JSON_WORDS,
        ),
        Target("mdm_signature", _mdm_signature, (IdentityError,), _BASE64_WORDS, max_bytes=10_240),
        Target("certificate_header", _certificate_header, (IdentityError,), _PEM_WORDS, max_bytes=10_240),
        Target("signature", _signature, (IdentityError,), _ASN1_WORDS),
        Target("device_signature", _device_signature, _NO_DEVICE, _ASN1_WORDS),
        Target("device_header", _device_header, _NO_DEVICE, _BASE64_WORDS, max_bytes=10_240),
        Target("access_token", _access_token, (ForbiddenError,), _TOKEN_WORDS, max_bytes=10_240),
        Target("scep_challenge", _scep_challenge, (ForbiddenError,), _BASE64_WORDS, max_bytes=2_048),
        Target("scep_message", _scep_message, (MalformedBodyError,), _ASN1_WORDS),
        Target("scep_request", _scep_request, (), _ASN1_WORDS, max_bytes=4_096),
        Target(
            "scep_query",
            _scep_query,
            (MalformedBodyError,),
            (b"operation=", b"PKIOperation", b"GetCACert", b"GetCACaps", b"&message=", b"&", *_BASE64_WORDS),
            max_bytes=10_240,
        ),
        Target("scep_get_message", _scep_get_message, (MalformedBodyError,), _BASE64_WORDS, max_bytes=10_240),
    )
}  # fmt: skip
