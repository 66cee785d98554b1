"""Write the seed corpora anew: ``python -m tests.fuzz.make_seeds``.

They are the tests' own messages: those of ``tests/testdata/plists``, and what the tests' and the simulated device's
clients sign and encrypt. The CA that they are made for stays the same as long as its files are there.
"""

import base64
import json
import plistlib
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jwt
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from local.device.cms import Identity, SignatureForm, sign, sign_message
from mdmlib.apple import ber
from mdmlib.apple.certificates import issue, new_certificate_authority
from tests.fuzz.targets import AT, AUDIENCE, ISSUER, SEEDS, SIGNED_BODY, TARGETS, authority, challenges
from tests.scep_client import ScepClient, indefinite, rsa_key

MESSAGES: Final = Path(__file__).parents[1] / "testdata" / "plists"
UDID: Final = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
USER_ID: Final = "B0B0B0B0-0000-0000-0000-000000000001"
DIGEST_RESPONSE: Final = (
    'Digest username="anna", realm="Example", nonce="bm9uY2U=", uri="/", '
    'response="0123456789abcdef0123456789abcdef", qop=auth, nc=00000001, cnonce="a\\"b"'
)
MACHINE_INFO: Final = {
    "PRODUCT": "iPhone14,2",
    "VERSION": "23A341",
    "OS_VERSION": "26.0.1 (a)",
    "SERIAL": "C02XXXX",
    "UDID": UDID,
    "IMEI": "12 345678 901234 5",
    "MEID": "12345678901234",
    "LANGUAGE": "de_CH",
    "MDM_CAN_REQUEST_SOFTWARE_UPDATE": True,
    "SOFTWARE_UPDATE_DEVICE_ID": "iPhone14,2",
    "PAIRING_TOKEN": b"token",
}
OTA_ANSWER: Final = {
    "CHALLENGE": "challenge",
    **{key: MACHINE_INFO[key] for key in ("PRODUCT", "SERIAL", "UDID", "VERSION")},
}
STATUS_REPORT: Final = {
    "StatusItems": {
        "device": {"identifier": {"serial-number": "C02XXXX"}, "operating-system": {"version": "26.1"}},
        "management": {
            "declarations": {
                "activations": [{"active": True, "identifier": "a", "valid": "valid", "server-token": "1"}],
                "configurations": [],
                "assets": [],
                "management": [],
            },
            "client-capabilities": {"supported-versions": ["1.0.0"], "n": -1.5e3},
        },
    },
    "Errors": [{"StatusItem": "x", "Reasons": [{"Code": "Error.\u00e4\ud83d\ude00", "Description": None}]}],
}


def main() -> None:
    """Write them."""
    if not (SEEDS / "authority.der").exists():
        SEEDS.mkdir(exist_ok=True)
        ca = new_certificate_authority("Fuzzing, trusted by nobody", now=datetime(2026, 1, 1, tzinfo=UTC))
        (SEEDS / "authority.der").write_bytes(ca.certificate.public_bytes(Encoding.DER))
        (SEEDS / "authority-key.der").write_bytes(ca.private_key_der())
    for name, corpus in corpora().items():
        folder = SEEDS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for seed, content in corpus.items():
            (folder / seed).write_bytes(content)


def corpora() -> dict[str, dict[str, bytes]]:
    """Return the seeds by target and name."""
    messages = {path.stem: path.read_bytes() for path in sorted(MESSAGES.glob("*.plist"))}
    checkin = {name: body for name, body in messages.items() if b"MessageType" in body} | dict(_checkin_messages())
    reports = {name: body for name, body in messages.items() if b"MessageType" not in body} | dict(_reports())
    signatures = dict(_signatures())
    device_signatures = dict(_device_signatures())
    scep = dict(_scep_messages())
    responses = {"qop": DIGEST_RESPONSE.encode(), "plain": DIGEST_RESPONSE.partition(", qop")[0].encode()}
    found = {
        "plist": _both({"everything": _everything()}) | {"mark": b"\xef\xbb\xbf \n" + messages["Authenticate"]},
        "binary_plist": dict(_objects({**messages, "everything": _everything()})),
        "checkin": _both(checkin),
        "command_report": _both(reports),
        "machine_info": _both({"phone": plistlib.dumps(MACHINE_INFO)}),
        "ota_answer": _both(
            {"phase2": plistlib.dumps(OTA_ANSWER), "data": plistlib.dumps(OTA_ANSWER | {"SERIAL": b"C02"})}
        ),
        "digest_response": responses,
        "status_report": {"report": json.dumps(STATUS_REPORT).encode()},
        "mdm_signature": {name: _folded(signature) for name, signature in signatures.items()},
        "certificate_header": dict(_certificate_headers()),
        "signature": signatures,
        "device_signature": device_signatures,
        "device_header": {name: _folded(signature) for name, signature in device_signatures.items()},
        "access_token": dict(_access_tokens()),
        "scep_challenge": dict(_scep_challenges()),
        "scep_message": scep,
        "scep_request": dict(_scep_requests()),
        "scep_query": dict(_scep_queries(scep["aes-sha256"])),
        "scep_get_message": {"short": base64.b64encode(bytes(range(256))), "twice": b"MIIB%252BwIB%2520%253D"},
    }
    assert set(found) == set(TARGETS)
    return found


def _checkin_messages() -> Iterator[tuple[str, bytes]]:
    device: dict[str, Any] = {"UDID": UDID}
    user = {**device, "UserID": USER_ID, "UserShortName": "anna", "UserLongName": "Anna"}
    shared = {**device, "UserID": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "UserShortName": "anna"}
    enrollment = {"EnrollmentID": "4D2B6E0C", "EnrollmentUserID": "1F2E"}
    push = {"Topic": "com.apple.mgmt.External.1", "Token": b"t" * 32, "PushMagic": "magic"}
    for name, message in {
        "TokenUpdate-user": {"MessageType": "TokenUpdate", **push, **user, "NotOnConsole": False},
        "TokenUpdate-shared": {"MessageType": "TokenUpdate", **push, **shared},
        "TokenUpdate-enrollment": {"MessageType": "TokenUpdate", **push, **enrollment, "AwaitingConfiguration": True},
        "TokenUpdate-unlock": {"MessageType": "TokenUpdate", **push, **device, "UnlockToken": b"u" * 64},
        "SetBootstrapToken": {"MessageType": "SetBootstrapToken", "BootstrapToken": b"b" * 32, **device},
        "GetBootstrapToken": {"MessageType": "GetBootstrapToken", "AwaitingConfiguration": True, **device},
        "UserAuthenticate": {"MessageType": "UserAuthenticate", "DigestResponse": DIGEST_RESPONSE, **user},
        "GetToken": {"MessageType": "GetToken", "TokenServiceType": "com.apple.maid", **device},
        "GetToken-watch": {
            "MessageType": "GetToken",
            "TokenServiceType": "com.apple.watch.pairing",
            "TokenParameters": {"PhoneUDID": UDID, "SecurityToken": "s", "WatchUDID": UDID},
            **device,
        },
        "ReturnToService": {"MessageType": "ReturnToService", **device},
        "DeclarativeManagement": {
            "MessageType": "DeclarativeManagement",
            "Endpoint": "status",
            "Data": json.dumps(STATUS_REPORT).encode(),
            **device,
        },
        "OfTomorrow": {"MessageType": "OfTomorrow", **device},
    }.items():
        yield name, plistlib.dumps(message)


def _reports() -> Iterator[tuple[str, bytes]]:
    chain = [{"ErrorCode": 12021, "ErrorDomain": "MCMDMErrorDomain", "LocalizedDescription": "nein"}]
    report = {"UDID": UDID, "CommandUUID": "0001_ProfileList"}
    yield "Error", plistlib.dumps({"Status": "Error", "ErrorChain": chain, **report})
    yield "NotNow", plistlib.dumps({"Status": "NotNow", **report, "UserID": USER_ID})
    yield "Idle-enrollment", plistlib.dumps({"Status": "Idle", "EnrollmentID": "4D2B6E0C"})


def _both(messages: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return messages as they are, and as binary plists."""
    binary = {name: plistlib.dumps(plistlib.loads(body), fmt=plistlib.FMT_BINARY) for name, body in messages.items()}
    return {f"{name}.plist": body for name, body in messages.items()} | {
        f"{name}.bplist": body for name, body in binary.items()
    }


def _everything() -> bytes:
    return plistlib.dumps(
        {
            "integers": [0, -1, 2**63, 2**64 - 1, -(2**63)],
            "reals": [0.5, -1e300],
            "date": datetime(2026, 11, 20, 12, 0, 0),  # noqa: DTZ001 - plistlib writes naive ones, in UTC
            "data": bytes(range(256)),
            "nested": {"a": [[{"b": [True, False]}]]},
            "text": "ä & <ö> \N{GRINNING FACE}",
        }
    )


def _objects(messages: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Take binary plists apart into what the target puts together: objects behind their lengths, the root first."""
    for name, body in messages.items():
        binary = plistlib.dumps(plistlib.loads(body), fmt=plistlib.FMT_BINARY)
        offset_bytes, _reference_bytes, count, _root, table = struct.unpack(">6xBBQQQ", binary[-32:])
        places = [binary[table + offset_bytes * index :][:offset_bytes] for index in range(count)]
        offsets = [int.from_bytes(place, "big") for place in places]
        pieces = [binary[start:end] for start, end in zip(offsets, [*offsets[1:], table], strict=True)]
        if all(len(piece) < 256 for piece in pieces):
            yield name, b"\0" + b"".join(bytes([len(piece)]) + piece for piece in pieces)


def _identity(kind: str) -> Identity:
    key = rsa_key() if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, UDID)]))
        .sign(key, hashes.SHA256())
    )
    return Identity(key, issue(csr, ca=authority(), now=AT, days=3_000))


def _signatures() -> Iterator[tuple[str, bytes]]:
    for kind in ("rsa", "ec"):
        identity = _identity(kind)
        for form in SignatureForm:
            for digest in ("sha1", "sha256"):
                signature = sign_message(SIGNED_BODY, identity, form=form, digest=digest, at=AT)
                yield f"{kind}-{form}-{digest}", signature


def _certificate_headers() -> Iterator[tuple[str, bytes]]:
    for kind in ("rsa", "ec"):
        certificate = _identity(kind).certificate
        yield f"{kind}-rfc9440", b":" + base64.b64encode(certificate.public_bytes(Encoding.DER)) + b":"
        pem = certificate.public_bytes(Encoding.PEM).decode()
        yield f"{kind}-nginx", quote(pem, safe="").encode()
        yield f"{kind}-alb", quote(pem, safe="+=/").encode()


def _device_signatures() -> Iterator[tuple[str, bytes]]:
    content = plistlib.dumps(MACHINE_INFO)
    for kind in ("rsa", "ec"):
        signed = sign(content, _identity(kind), digest="sha256", attributes={}, detached=False)
        yield kind, signed
        yield f"{kind}-ber", indefinite(signed, depth=4)


def _access_tokens() -> Iterator[tuple[str, bytes]]:
    claims = {"iss": ISSUER, "sub": "42", "email": "ada@example.org", "exp": int(AT.timestamp()) + 3_600}
    for name, audience in {"one": AUDIENCE, "several": ["somebody-else", AUDIENCE]}.items():
        token = jwt.encode(
            {**claims, "aud": audience}, authority().private_key, algorithm="RS256", headers={"kid": "rsa-1"}
        )
        yield name, token.encode()


def _scep_challenges() -> Iterator[tuple[str, bytes]]:
    over = AT + timedelta(hours=1)
    yield "open", challenges().new(None, over).encode()
    yield "link", challenges().new("1f" * 16, over, serial_number="C02XXXX").encode()
    yield "renewal", challenges().new_renewal("2e" * 32, over).encode()


def _scep_messages() -> Iterator[tuple[str, bytes]]:
    client = ScepClient(authority().certificate)
    yield "aes-sha256", client.request("challenge")
    yield "des-sha1", replace(client, cipher="des", digest="sha1").request("challenge")
    yield "3des", replace(client, cipher="tripledes_3key").request("challenge")
    yield "oaep", replace(client, oaep="sha256").request("challenge")
    yield "ber", indefinite(client.request("challenge"), depth=8)
    names = x509.SubjectAlternativeName([x509.DNSName("example.org"), x509.RFC822Name("a@example.org")])
    yield "extensions", replace(client, extensions=[(names, False)]).request(core.BMPString("challenge"))
    certificate = _identity("rsa").certificate
    yield "renewal", client.renewal(certificate, rsa_key("new")).request(None)
    yield "poll", replace(client, message_type="20").request(None)


def _scep_requests() -> Iterator[tuple[str, bytes]]:
    client = ScepClient(authority().certificate)
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("example.org"),
            x509.RFC822Name("a@example.org"),
            x509.UniformResourceIdentifier("https://example.org"),
            x509.DirectoryName(client.subject),
        ]
    )
    usages = (False,) * 6
    usage = x509.KeyUsage(True, False, True, *usages)  # noqa: FBT003 - cryptography takes no keywords here
    for name, extensions in {"plain": [], "names": [(names, False), (usage, True)]}.items():
        csr = ber.decode(replace(client, extensions=extensions).csr(core.UTF8String("challenge")))
        _version, subject, _key, attributes = csr.children()[0].children()
        yield name, len(subject.encoded).to_bytes(2, "big") + subject.encoded + attributes.encoded


def _scep_queries(message: bytes) -> Iterator[tuple[str, bytes]]:
    encoded = base64.b64encode(message).decode()
    yield "capabilities", b"operation=GetCACaps&message=CA"
    yield "operation", f"operation=PKIOperation&message={quote(encoded, safe='')}".encode()
    yield "twice", f"message={quote(quote(encoded, safe=''), safe='')}&operation=PKIOperation".encode()


def _folded(signature: bytes) -> bytes:
    return base64.encodebytes(signature).replace(b"\n", b"\r\n ").rstrip()


if __name__ == "__main__":
    main()
