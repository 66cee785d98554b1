"""A server for simulated devices to reject: small enough to read, and wrong wherever a test wants it to be."""

import base64
import plistlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from local.device import cms
from local.device.envelope import Cipher, open_envelope, seal

TOPIC = "com.apple.mgmt.External.5e2c5ed1-ab5a-4b8a-9d2b-5f5b4d3f0a11"
SCEP_UUID = "9A1B6E7A-2A5D-4C55-9C7F-0B7B1F5F3A01"
PROFILE_TYPE = "application/x-apple-aspen-config"
CHALLENGE = "a-challenge"

_OIDS = {
    "messageType": "2.16.840.1.113733.1.9.2",
    "pkiStatus": "2.16.840.1.113733.1.9.3",
    "failInfo": "2.16.840.1.113733.1.9.4",
    "senderNonce": "2.16.840.1.113733.1.9.5",
    "recipientNonce": "2.16.840.1.113733.1.9.6",
    "transactionID": "2.16.840.1.113733.1.9.7",
}


@dataclass
class Seen:
    """A request as the server got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = plistlib.loads(self.body.removeprefix(b"\xef\xbb\xbf"))
        return message


class ScepRequest(NamedTuple):
    """A PKIMessage as the server got it."""

    message_type: str
    csr: x509.CertificateSigningRequest
    signer: x509.Certificate


class FakeScep:
    """A SCEP server. What a CertRep says is changed by ``lie``, the certificate by ``certify``."""

    def __init__(self, ca: cms.Identity) -> None:
        self.ca = ca
        self.capabilities = "POSTPKIOperation\nAES\nSHA-256\nRenewal"
        self.capabilities_type = "text/plain"
        self.certificate_type = "application/x-x509-ca-cert"
        self.reply_type = "application/x-pki-message"
        self.lie: dict[str, str | bytes | None] = {}
        self.signer: cms.Identity | None = None
        self.cipher: Cipher = "aes256"
        self.pending = 0
        self.tamper: Callable[[bytes], bytes] = lambda reply: reply
        self.certify: dict[str, Any] = {}
        self.issued: list[x509.Certificate] = []
        self.requests: list[ScepRequest] = []

    def answer(self, operation: str, message: bytes) -> tuple[str, bytes]:
        if operation == "GetCACaps":
            return self.capabilities_type, self.capabilities.encode()
        if operation == "GetCACert":
            return self.certificate_type, self.ca.certificate_der
        return self.reply_type, self.tamper(self._reply(message))

    def _reply(self, message: bytes) -> bytes:
        asked = cms.verify(message)
        assert isinstance(self.ca.key, rsa.RSAPrivateKey)
        content, _ = open_envelope(asked.content, self.ca.certificate, self.ca.key)
        message_type = core.load(asked.attributes[_OIDS["messageType"]]).native
        # A CertPoll asks for what was asked before.
        csr = self.requests[-1].csr if message_type == "20" else x509.load_der_x509_csr(content)
        self.requests.append(ScepRequest(message_type, csr, asked.signer))
        said: dict[str, str | bytes | None] = {
            "messageType": "3",
            "pkiStatus": "0",
            "failInfo": None,
            "senderNonce": b"0123456789abcdef",
            "recipientNonce": core.load(asked.attributes[_OIDS["senderNonce"]]).native,
            "transactionID": core.load(asked.attributes[_OIDS["transactionID"]]).native,
        }
        envelope = b""
        if self.pending:
            self.pending -= 1
            said["pkiStatus"] = "3"
        else:
            certificate = issue(self.ca, csr, **self.certify)
            self.issued.append(certificate)
            bag = pkcs7.serialize_certificates([certificate], serialization.Encoding.DER)
            envelope = seal(bag, asked.signer, cipher=self.cipher)
        attributes = {
            _OIDS[name]: (core.PrintableString(value) if isinstance(value, str) else core.OctetString(value)).dump()
            for name, value in (said | self.lie).items()
            if value is not None
        }
        return cms.sign(envelope, self.signer or self.ca, digest="sha256", attributes=attributes, detached=False)


def new_ca(name: str) -> cms.Identity:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return cms.Identity(key, certificate)


def issue(
    ca: cms.Identity,
    csr: x509.CertificateSigningRequest,
    *,
    purposes: list[x509.ObjectIdentifier] | None = None,
    public_key: rsa.RSAPublicKey | None = None,
    begins: timedelta = timedelta(minutes=-10),
    lasts: timedelta = timedelta(days=365),
    issuer: cms.Identity | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    key = csr.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(ca.certificate.subject)
        .public_key(public_key or key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + lasts)
    )
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] if purposes is None else purposes
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    signer = (issuer or ca).key
    assert isinstance(signer, rsa.RSAPrivateKey)
    return builder.sign(signer, hashes.SHA256())


class Page(NamedTuple):
    """An answer."""

    status: int
    content_type: str | None
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass
class FakeServer:
    """Profile, SCEP, check-in and connect on one address."""

    url: str
    root: Path
    scep: FakeScep
    profile: dict[str, Any]
    profile_type: str = PROFILE_TYPE
    queue: list[dict[str, Any]] = field(default_factory=list)
    """Commands; the first is given until a final report names it."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Statuses to answer next, by MessageType or Status."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Bodies to answer, by MessageType or Status, or by the endpoint of declarative management."""
    types: dict[str, str] = field(default_factory=dict)
    """Their content types."""
    pages: dict[str, Callable[["Seen"], "Page"]] = field(default_factory=dict)
    """What other paths than those of the protocol answer."""
    forgetful: bool = False
    """Never takes a command off the queue."""
    seen: list[Seen] = field(default_factory=list)

    @property
    def profile_url(self) -> str:
        return f"{self.url}/mdm/enroll/token"

    @property
    def mdm(self) -> dict[str, Any]:
        """The MDM payload, to be changed."""
        payload: dict[str, Any] = self.profile["PayloadContent"][1]
        return payload

    @property
    def scep_payload(self) -> dict[str, Any]:
        """The SCEP payload, to be changed."""
        payload: dict[str, Any] = self.profile["PayloadContent"][0]
        return payload

    def messages(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the check-ins and reports, those of one MessageType or Status."""
        found = [one.message for one in self.seen if one.method == "PUT"]
        return [one for one in found if kind in {None, one.get("MessageType"), one.get("Status")}]

    def answer(self, request: Seen) -> "Page":
        self.seen.append(request)
        parts = urlsplit(request.path)
        if page := self.pages.get(parts.path):
            return page(request)
        if parts.path == "/scep":
            query = dict(parse_qsl(parts.query))
            pki_message = request.body
            if query["operation"] == "PKIOperation" and not pki_message:
                pki_message = base64.b64decode(query["message"])
            kind, body = self.scep.answer(query["operation"], pki_message)
            return Page(200, kind, body)
        if parts.path.startswith("/mdm/enroll"):
            return Page(200, self.profile_type, plistlib.dumps(self.profile))
        message = request.message
        kind = message.get("Endpoint") or message.get("MessageType") or message["Status"]
        if self.statuses.get(kind):
            return Page(self.statuses[kind].pop(0), self.types.get(kind), self.bodies.get(kind, b""))
        if "MessageType" in message:
            return Page(200, self.types.get(kind), self.bodies.get(kind, b""))
        return Page(200, None, self._next_command(message))

    def _next_command(self, report: dict[str, Any]) -> bytes:
        if report["Status"] not in {"Idle", "NotNow"} and not self.forgetful:
            self.queue = [one for one in self.queue if one["CommandUUID"] != report["CommandUUID"]]
        waiting = [
            one
            for one in self.queue
            if self.forgetful or report["Status"] != "NotNow" or one["CommandUUID"] != report["CommandUUID"]
        ]
        return self.bodies.get("next") or (plistlib.dumps(waiting[0]) if waiting else b"")


def enrollment_profile(url: str) -> dict[str, Any]:
    return {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": "com.example.enroll",
        "PayloadUUID": "3D1A6C11-5F0B-4D9C-8C11-0D7A7B0E2A01",
        "PayloadDisplayName": "Enrollment",
        "PayloadContent": [
            {
                "PayloadType": "com.apple.security.scep",
                "PayloadVersion": 1,
                "PayloadIdentifier": "com.example.enroll.scep",
                "PayloadUUID": SCEP_UUID,
                "PayloadContent": {
                    "URL": f"{url}/scep",
                    "Name": "Device Identity",
                    "Challenge": CHALLENGE,
                    # The smallest that a device takes: keys are what costs time here.
                    "Keysize": 1024,
                    "Key Type": "RSA",
                    "Key Usage": 5,
                    "Subject": [[["O", "Example"]], [["CN", "Identity (%ComputerName%)"]]],
                    "RetryDelay": 1,
                },
            },
            {
                "PayloadType": "com.apple.mdm",
                "PayloadVersion": 1,
                "PayloadIdentifier": "com.example.enroll.mdm",
                "PayloadUUID": "6E1F2B1C-98E5-4A1B-8B7D-3E2E1C0F4A02",
                "IdentityCertificateUUID": SCEP_UUID,
                "Topic": TOPIC,
                "ServerURL": f"{url}/mdm/connect",
                "CheckInURL": f"{url}/mdm/checkin",
                "AccessRights": 8191,
                "SignMessage": True,
                "CheckOutWhenRemoved": True,
                "ServerCapabilities": ["com.apple.mdm.per-user-connections", "com.apple.mdm.bootstraptoken"],
            },
        ],
    }


def command(uuid: str, request_type: str = "SecurityInfo", **fields: Any) -> dict[str, Any]:
    return {"CommandUUID": uuid, "Command": {"RequestType": request_type, **fields}}


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up, as devices do when they do not trust a server."""

    daemon_threads = True
    fake: FakeServer

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True
    server: Server

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.fake.answer(Seen(self.command, self.path, headers, body))
        self.send_response(answer.status)
        if answer.content_type:
            self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def do_GET(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's signature
        pass
