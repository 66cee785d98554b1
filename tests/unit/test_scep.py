import base64
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asn1crypto import cms as asn1_cms
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.device import certificate_request
from local.device.cms import CmsError, Identity, degenerate_certificates, sign, verify
from local.device.envelope import open_with_password, seal
from mdmlib.apple import cms
from mdmlib.apple.certificates import CaIdentity, issue, new_certificate_authority
from mdmlib.apple.scep import (
    CertificateRequest,
    FailInfo,
    PkiMessage,
    ScepRefusedError,
    capabilities,
    decode_get_message,
    next_ca_certificate,
)
from mdmlib.errors import MalformedBodyError
from tests.scep_client import (
    MESSAGE_TYPE,
    SENDER_NONCE,
    TRANSACTION_ID,
    Answer,
    ScepClient,
    attribute,
    indefinite,
    openssl,
    rsa_key,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca() -> CaIdentity:
    return new_certificate_authority("ACME", now=NOW)


@pytest.fixture
def client(ca: CaIdentity) -> ScepClient:
    return ScepClient(ca.certificate)


def opened(ca: CaIdentity, message: bytes) -> CertificateRequest:
    return PkiMessage.decode(message).open(ca)


def refusal(ca: CaIdentity, message: bytes) -> ScepRefusedError:
    with pytest.raises(ScepRefusedError) as refused:
        opened(ca, message)
    return refused.value


def answered(ca: CaIdentity, client: ScepClient, message: bytes) -> Answer:
    """Issue what is asked for, and read the answer as the client does."""
    request = PkiMessage.decode(message)
    content = request.open(ca)
    certificate = issue(content.csr, ca=ca, now=NOW, days=365)
    return client.read(request.success(content, certificate.public_bytes(Encoding.DER)))


# Requests in every form


@pytest.mark.parametrize(
    "form",
    [
        {"cipher": "des", "digest": "sha1"},
        {"cipher": "des", "digest": "sha256"},
        {"cipher": "tripledes_3key", "digest": "sha1"},
        {"cipher": "tripledes_3key", "digest": "sha256"},
        {"cipher": "aes128_cbc", "digest": "sha1"},
        {"cipher": "aes192_cbc"},
        {"cipher": "aes256_cbc"},
        {"digest": "sha384"},
        {"digest": "sha512"},
        {"digest": "sha1", "signature_algorithm": "sha1_rsa"},
        {"digest": "sha256", "signature_algorithm": "sha256_rsa"},
        {"digest": "sha512", "signature_algorithm": "sha512_rsa"},
        {"null_parameters": False},
        {"oaep": "sha1"},
        {"oaep": "sha256"},
        {"oaep": "sha512"},
    ],
    ids=lambda form: " ".join(map(str, form.values())),
)
def test_a_request_is_read_in_every_form_that_clients_send(ca: CaIdentity, form: dict[str, Any]) -> None:
    client = ScepClient(ca.certificate, **form)

    request = opened(ca, client.request("a challenge"))

    assert request.challenge_password == "a challenge"
    assert request.csr.subject == client.subject
    assert request.csr.public_key() == client.key.public_key()
    assert request.signer_is_self_signed


@pytest.mark.parametrize(
    ("form", "cipher", "digest"),
    [
        ({"cipher": "des", "digest": "sha1"}, "des", "sha1"),
        ({"cipher": "tripledes_3key", "digest": "sha1"}, "tripledes_3key", "sha1"),
        ({"cipher": "aes128_cbc", "digest": "sha1"}, "aes256_cbc", "sha256"),
        ({"cipher": "des", "digest": "sha256"}, "aes256_cbc", "sha256"),
        ({"cipher": "tripledes_3key", "digest": "sha512"}, "aes256_cbc", "sha256"),
        ({"cipher": "aes256_cbc", "digest": "sha256"}, "aes256_cbc", "sha256"),
    ],
)
def test_the_answer_is_as_strong_as_the_client_can_read(
    ca: CaIdentity, form: dict[str, Any], cipher: str, digest: str
) -> None:
    client = ScepClient(ca.certificate, **form)

    answer = answered(ca, client, client.request("x"))

    assert (answer.cipher, answer.digest) == (cipher, digest)


def test_the_issued_certificate_comes_first_and_the_cas_second(ca: CaIdentity) -> None:
    for name in ("device", "another device", "a third device"):
        client = ScepClient(ca.certificate, key=rsa_key(name))

        issued, authority = answered(ca, client, client.request("x")).certificates

        assert issued.public_key() == client.key.public_key()
        assert authority == ca.certificate


@pytest.mark.parametrize("fail_info", list(FailInfo))
def test_a_failure_says_why_and_has_no_content(ca: CaIdentity, client: ScepClient, fail_info: FailInfo) -> None:
    answer = client.read(PkiMessage.decode(client.request("x")).failure(ca, fail_info))

    assert (answer.status, answer.fail_info) == ("2", str(int(fail_info)))
    assert not answer.has_content


def test_a_failure_is_signed_with_what_the_client_signed_with(ca: CaIdentity, client: ScepClient) -> None:
    for digest, expected in (("sha1", "sha1"), ("sha256", "sha256"), ("sha512", "sha256")):
        message = PkiMessage.decode(replace(client, digest=digest).request("x"))

        assert client.read(message.failure(ca, FailInfo.BAD_REQUEST)).digest == expected


@pytest.mark.parametrize(
    "challenge",
    [
        core.PrintableString("p4ss/W+rd="),
        core.UTF8String("p4ss/W+rd="),
        core.IA5String("p4ss/W+rd="),
        core.TeletexString("p4ss/W+rd="),
        core.VisibleString("p4ss/W+rd="),
        core.BMPString("p4ss/W+rd="),
        core.UniversalString("p4ss/W+rd="),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_challenge_is_read_from_any_type_of_string(
    ca: CaIdentity, client: ScepClient, challenge: core.Asn1Value
) -> None:
    assert opened(ca, client.request(challenge)).challenge_password == "p4ss/W+rd="


def test_a_request_without_a_challenge_has_none(ca: CaIdentity, client: ScepClient) -> None:
    assert opened(ca, client.request(None)).challenge_password is None


def test_indefinite_lengths_and_strings_in_pieces_are_read(ca: CaIdentity, client: ScepClient) -> None:
    message = client.sign(indefinite(client.envelope(client.csr("x")), depth=5))
    # Down to encapContentInfo's string; the certificate beside it is DER in BER too.
    *fields, certificates, signers = cms.content_info(message, cms.SIGNED_DATA).children()
    in_ber = b"".join(indefinite(field.encoded, depth=4) for field in fields)
    message = b"\x30\x80" + _oid(cms.SIGNED_DATA) + b"\xa0\x80\x30\x80" + in_ber
    message += certificates.encoded + signers.encoded + b"\x00\x00" * 3

    assert opened(ca, message).challenge_password == "x"


def _oid(content: bytes) -> bytes:
    return bytes((6, len(content))) + content


def test_of_several_recipients_ours_is_used(ca: CaIdentity, client: ScepClient) -> None:
    stranger = new_certificate_authority("ACME", now=NOW).certificate
    several = replace(client, recipients=[stranger, ca.certificate, stranger])

    assert opened(ca, several.request("x")).challenge_password == "x"


def test_a_request_for_another_ca_is_refused_as_such(ca: CaIdentity, client: ScepClient) -> None:
    stranger = new_certificate_authority("ACME", now=NOW).certificate

    refused = refusal(ca, replace(client, recipients=[stranger]).request("x"))

    assert refused.fail_info is FailInfo.BAD_CERT_ID


def test_a_transaction_id_comes_back_as_it_was(ca: CaIdentity, client: ScepClient) -> None:
    for transaction_id in (core.PrintableString("a" * 255), core.UTF8String("MTIz+/="), core.IA5String("{1}@x")):
        named = replace(client, transaction_id=transaction_id)

        assert answered(ca, named, named.request("x")).status == "0"


# Who does not hold the key


def test_proof_of_possession_is_demanded(ca: CaIdentity, client: ScepClient) -> None:
    def of_another_key(csr: bytes) -> bytes:
        """Return a request for the key of somebody else, with a signature that is not theirs."""
        victim = rsa_key("victim").public_key().public_numbers().n.to_bytes(256, "big")
        own = client.key.public_key().public_numbers().n.to_bytes(256, "big")
        assert own in csr
        return csr.replace(own, victim)

    assert refusal(ca, replace(client, forge_csr=of_another_key).request("x")).fail_info is FailInfo.BAD_MESSAGE_CHECK


def test_a_self_signed_signer_must_be_the_one_who_asks(ca: CaIdentity, client: ScepClient) -> None:
    """Or else a request that was overheard could be sent again under another signature."""
    overheard = client.envelope(client.csr("x"))
    thief = ScepClient(ca.certificate, key=rsa_key("thief"), subject=client.subject)

    assert refusal(ca, thief.sign(overheard)).fail_info is FailInfo.BAD_MESSAGE_CHECK


def test_a_signer_whose_own_certificate_is_forged_is_refused(ca: CaIdentity, client: ScepClient) -> None:
    honest = client.signer()
    der = honest.public_bytes(Encoding.DER)
    forged = x509.load_der_x509_certificate(der[:-1] + bytes((der[-1] ^ 1,)))

    refused = refusal(ca, replace(client, signer_certificate=forged).request("x"))

    assert refused.fail_info is FailInfo.BAD_MESSAGE_CHECK


def test_a_message_that_its_signer_did_not_sign_is_refused(ca: CaIdentity, client: ScepClient) -> None:
    refused = refusal(ca, replace(client, forge_signature=lambda signature: bytes(len(signature))).request("x"))

    assert refused.fail_info is FailInfo.BAD_MESSAGE_CHECK


def request_of_a_curve(ca: CaIdentity, challenge: str | None) -> bytes:
    key, subject = ec.generate_private_key(ec.SECP256R1()), certificate_request.name([("CN", "mac-1")])
    signer = Identity(key, certificate_request.self_signed(key, subject, at=NOW))
    csr = certificate_request.new_request(key, subject, usage=5, alternative_names={}, challenge=challenge)
    attributes = {
        MESSAGE_TYPE: core.PrintableString("19").dump(),
        TRANSACTION_ID: core.PrintableString("1").dump(),
        SENDER_NONCE: core.OctetString(bytes(16)).dump(),
    }
    envelope = seal(csr, ca.certificate, cipher="aes256")
    return sign(envelope, signer, digest="sha256", attributes=attributes, detached=False)


def test_the_holder_of_a_key_that_only_signs_reads_the_answer_with_the_challenge(ca: CaIdentity) -> None:
    request = PkiMessage.decode(request_of_a_curve(ca, "challenge"))
    content = request.open(ca)
    issued = issue(content.csr, ca=ca, now=NOW, days=365)

    answer = verify(request.success(content, issued.public_bytes(Encoding.DER)))

    assert degenerate_certificates(open_with_password(answer.content, b"challenge")[0])[0] == issued
    with pytest.raises(CmsError):
        open_with_password(answer.content, b"another")


def test_a_signer_who_could_not_read_the_answer_is_refused_before_anything_is_decided(ca: CaIdentity) -> None:
    refused = refusal(ca, request_of_a_curve(ca, None))

    assert (refused.fail_info, refused.code) == (FailInfo.BAD_ALG, "scep_key")


# What an attacker may learn


def wrong_length(key: bytes) -> bytes:
    return key[:-1]


def wrong_key(key: bytes) -> bytes:
    return bytes(len(key))


def wrong_padding(ciphertext: bytes) -> bytes:
    return ciphertext[:-17] + bytes((ciphertext[-17] ^ 0x55,)) + ciphertext[-16:]


def another_block(ciphertext: bytes) -> bytes:
    return ciphertext[:32] + os.urandom(16) + ciphertext[48:]


def shorter(ciphertext: bytes) -> bytes:
    return ciphertext[:-32]


def no_request(_csr: bytes) -> bytes:
    return b"\x30\x03\x02\x01\x00"


def nothing(_csr: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("oaep", [None, "sha256"])
@pytest.mark.parametrize(
    "forged",
    [
        {"forge_key": wrong_length},
        {"forge_key": wrong_key},
        {"forge_ciphertext": wrong_padding},
        {"forge_ciphertext": another_block},
        {"forge_ciphertext": shorter},
        {"forge_csr": no_request},
        {"forge_csr": nothing},
    ],
    ids=lambda forged: next(iter(forged.values())).__name__,
)
def test_whatever_is_wrong_behind_the_encryption_is_refused_in_the_same_words(
    ca: CaIdentity, client: ScepClient, forged: dict[str, Callable[[bytes], bytes]], oaep: str | None
) -> None:
    changes: dict[str, Any] = forged
    refused = refusal(ca, replace(client, oaep=oaep, **changes).request("x"))

    assert refused.fail_info is FailInfo.BAD_MESSAGE_CHECK
    assert (refused.code, refused.message) == ("scep_unreadable", "The envelope holds nothing that can be used.")
    assert refused.__cause__ is None
    assert refused.__suppress_context__


def test_a_key_that_was_not_encrypted_for_us_is_refused_in_the_same_words(ca: CaIdentity, client: ScepClient) -> None:
    stranger = new_certificate_authority("ACME", now=NOW)
    der = client.envelope(client.csr("x"))
    for_the_stranger = replace(client, recipients=[stranger.certificate]).envelope(client.csr("x"))
    # The envelope names us, the key in it is encrypted for somebody else.
    ours = cms.content_info(der, cms.ENVELOPED_DATA).children()[1].only_child().children()
    theirs = cms.content_info(for_the_stranger, cms.ENVELOPED_DATA).children()[1].only_child().children()

    refused = refusal(ca, client.sign(der.replace(ours[3].encoded, theirs[3].encoded)))

    assert refused.code == "scep_unreadable"


@pytest.mark.parametrize("change", ["digest", "cipher", "key transport"])
def test_an_algorithm_that_is_not_known_is_refused_as_such(ca: CaIdentity, client: ScepClient, change: str) -> None:
    if change == "digest":
        message = client.request("x").replace(
            _oid(cms.oid("2.16.840.1.101.3.4.2.1")), _oid(cms.oid("2.16.840.1.101.3.4.2.9"))
        )
    else:
        known, unknown = {
            "cipher": ("2.16.840.1.101.3.4.1.42", "2.16.840.1.101.3.4.1.46"),
            "key transport": ("1.2.840.113549.1.1.1", "1.2.840.113549.1.1.9"),
        }[change]
        envelope = client.envelope(client.csr("x"))
        message = client.sign(envelope.replace(_oid(cms.oid(known)), _oid(cms.oid(unknown))))

    assert refusal(ca, message).fail_info is FailInfo.BAD_ALG


def test_nothing_secret_shows_in_a_repr(ca: CaIdentity, client: ScepClient) -> None:
    request = opened(ca, client.request("s3cret"))

    assert "s3cret" not in repr(request)
    assert str(ca.private_key.private_numbers().d) not in repr(ca)


# What is no request


@pytest.mark.parametrize("missing", range(3), ids=["transaction id", "message type", "sender nonce"])
def test_a_message_that_cannot_be_answered_is_malformed(client: ScepClient, missing: int) -> None:
    attributes = client.attributes()
    del attributes[missing]

    with pytest.raises(MalformedBodyError):
        PkiMessage.decode(client.sign(b"x", attributes=attributes))


@pytest.mark.parametrize("message_type", ["", "x", "-1", "1" * 5_000, "\u0661\u0669"])
def test_a_message_type_that_is_no_number_is_malformed(client: ScepClient, message_type: str) -> None:
    attributes = client.attributes()
    attributes[1]["values"] = [core.Any(core.UTF8String(message_type))]

    with pytest.raises(MalformedBodyError):
        PkiMessage.decode(client.sign(b"x", attributes=attributes))


def test_a_nonce_or_transaction_id_beyond_all_bounds_is_malformed(client: ScepClient) -> None:
    long_nonce = [*client.attributes()[:2], attribute(SENDER_NONCE, core.OctetString(bytes(65)))]

    with pytest.raises(MalformedBodyError):
        PkiMessage.decode(client.sign(b"x", attributes=long_nonce))
    for transaction_id in ("", "a" * 256):
        with pytest.raises(MalformedBodyError):
            PkiMessage.decode(replace(client, transaction_id=core.PrintableString(transaction_id)).request("x"))


@given(st.binary(max_size=500))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        PkiMessage.decode(noise)


def test_a_message_larger_than_any_is_malformed() -> None:
    with pytest.raises(MalformedBodyError):
        PkiMessage.decode(bytes(300_000))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_changed_message_is_malformed_or_refused_and_never_breaks_anything(
    ca: CaIdentity, data: st.DataObject
) -> None:
    client = ScepClient(ca.certificate, transaction_id=core.PrintableString("1"), sender_nonce=bytes(16))
    message = bytearray(client.request("x"))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(message) - 1))
        message[position] = data.draw(st.integers(0, 255))

    try:
        request = PkiMessage.decode(bytes(message))
        request.open(ca)
    except (MalformedBodyError, ScepRefusedError):
        return


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_changed_envelope_that_is_properly_signed_never_breaks_anything(ca: CaIdentity, data: st.DataObject) -> None:
    client = ScepClient(ca.certificate)
    envelope = bytearray(client.envelope(client.csr("x")))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(envelope) - 1))
        envelope[position] = data.draw(st.integers(0, 255))

    try:
        opened(ca, client.sign(bytes(envelope)))
    except ScepRefusedError:
        return


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_changed_certificate_request_never_breaks_anything(ca: CaIdentity, data: st.DataObject) -> None:
    def forge(csr: bytes) -> bytes:
        changed = bytearray(csr)
        changed[data.draw(st.integers(0, len(csr) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    client = ScepClient(ca.certificate, forge_csr=forge)
    try:
        request = opened(ca, client.request("x"))
    except ScepRefusedError as refused:
        assert refused.code == "scep_unreadable"  # noqa: PT017 - nearly all end here
    else:
        # What the signature does not cover may change: how many of its own last bits count.
        assert (request.csr.subject, request.challenge_password) == (client.subject, "x")
        assert request.csr.public_key() == client.key.public_key()


# Over GET


def forms(message: bytes) -> list[str]:
    standard, url_safe = base64.b64encode(message).decode(), base64.urlsafe_b64encode(message).decode()
    plain = [standard, url_safe, standard.rstrip("="), url_safe.rstrip("="), standard.replace("+", " ")]
    return [
        *plain,
        *[quote(form, safe="") for form in plain],
        *[quote(quote(form, safe=""), safe="") for form in plain],
    ]


@given(st.binary(max_size=100))
def test_a_message_in_a_query_is_read_in_every_form(message: bytes) -> None:
    assert {decode_get_message(form) for form in forms(message)} == {message}


@pytest.mark.parametrize("value", ["%", "%%%", "a", "!!!!", "é", "%C3%A9%C3%A9", "AAA=AAA="])
def test_a_query_that_is_no_base64_is_malformed(value: str) -> None:
    with pytest.raises(MalformedBodyError):
        decode_get_message(value)


def test_the_capabilities_that_clients_look_for_are_there() -> None:
    always = {b"AES", b"DES3", b"SHA-1", b"SHA-256", b"SHA-512", b"POSTPKIOperation", b"Renewal", b"SCEPStandard"}

    assert set(capabilities(has_next_ca=False).split()) == always
    assert set(capabilities(has_next_ca=True).split()) == always | {b"GetNextCACert"}


def test_openssl_takes_the_next_ca_from_the_one_that_it_knows(ca: CaIdentity, tmp_path: Path) -> None:
    following = new_certificate_authority("ACME", number=2, now=NOW)
    known = tmp_path / "known.pem"
    known.write_bytes(ca.certificate.public_bytes(Encoding.PEM))

    answer = next_ca_certificate(ca, following.certificate)

    verify = ("cms", "-verify", "-inform", "DER", "-binary", "-purpose", "any", "-attime", str(int(NOW.timestamp())))
    told = openssl(*verify, "-CAfile", str(known), stdin=answer)
    degenerate = asn1_cms.ContentInfo.load(told, strict=True)["content"]
    assert len(degenerate["signer_infos"]) == 0
    (only,) = degenerate["certificates"]
    assert only.chosen.dump() == following.certificate.public_bytes(Encoding.DER)


def test_a_request_is_opened_by_the_one_that_it_is_addressed_to(ca: CaIdentity) -> None:
    other = new_certificate_authority("ACME", number=2, now=NOW)
    for addressee in (ca, other):
        client = ScepClient(addressee.certificate)
        assert PkiMessage.decode(client.request("x")).open(ca, other).ca is addressee

    stranger = ScepClient(new_certificate_authority("ACME", number=3, now=NOW).certificate)
    with pytest.raises(ScepRefusedError) as refused:
        PkiMessage.decode(stranger.request("x")).open(ca, other)
    assert refused.value.fail_info is FailInfo.BAD_CERT_ID
