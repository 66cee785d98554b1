"""Lists of revoked certificates, as OpenSSL reads them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.certificates import CaIdentity, issue, new_certificate_authority
from mdmlib.apple.crl import RevokedEntry, may_sign, sign_crl
from tests.scep_client import openssl, rsa_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca() -> CaIdentity:
    return new_certificate_authority("ACME", now=NOW)


def device(ca: CaIdentity) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(rsa_key("device"), SHA256())
    return issue(csr, ca=ca, now=NOW, days=365)


def test_openssl_refuses_what_is_on_the_list_and_nothing_else(ca: CaIdentity, tmp_path: Path) -> None:
    revoked, good = device(ca), device(ca)
    entry = RevokedEntry(revoked.serial_number, NOW - timedelta(hours=1), x509.ReasonFlags.key_compromise)
    crl = x509.load_der_x509_crl(sign_crl(ca, [entry], now=NOW))
    trust, lists = tmp_path / "ca.pem", tmp_path / "crl.pem"
    trust.write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    lists.write_bytes(crl.public_bytes(Encoding.PEM))

    def verdict(certificate: x509.Certificate) -> str:
        file = tmp_path / "device.pem"
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        at = str(int(NOW.timestamp()) + 60)
        check = ("-crl_check", "-CAfile", str(trust), "-CRLfile", str(lists), "-attime", at, "-purpose", "sslclient")
        return openssl("verify", *check, str(file), check=False).decode()

    assert "certificate revoked" in verdict(revoked)
    assert verdict(good).endswith("OK\n")


def test_a_list_says_who_when_and_why(ca: CaIdentity) -> None:
    entries = [
        RevokedEntry(7, NOW - timedelta(days=1), x509.ReasonFlags.superseded),
        RevokedEntry(8, NOW, x509.ReasonFlags.unspecified),
    ]

    crl = x509.load_der_x509_crl(sign_crl(ca, entries, now=NOW))
    later = x509.load_der_x509_crl(sign_crl(ca, [], now=NOW + timedelta(seconds=1)))

    assert crl.issuer == ca.certificate.subject
    assert (crl.last_update_utc, crl.next_update_utc) == (NOW, NOW + timedelta(days=1))
    first, second = crl
    assert (first.serial_number, first.revocation_date_utc) == (7, NOW - timedelta(days=1))
    assert first.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.superseded
    assert list(second.extensions) == [], "no reason is said in no words"
    assert list(later) == []
    numbers = [each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in (crl, later)]
    assert numbers == sorted(set(numbers))


def test_a_long_list_is_made_in_one_go(ca: CaIdentity) -> None:
    entries = [RevokedEntry(number, NOW, x509.ReasonFlags.unspecified) for number in range(1, 2_001)]

    assert len(x509.load_der_x509_crl(sign_crl(ca, entries, now=NOW))) == 2_000


def test_a_ca_whose_key_is_not_for_lists_signs_none(ca: CaIdentity) -> None:
    assert may_sign(ca.certificate)
    usage = ca.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    flags = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    kept = {flag: getattr(usage, flag) for flag in flags}
    without = x509.KeyUsage(**kept, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(ca.certificate.subject)
        .issuer_name(ca.certificate.subject)
        .public_key(ca.private_key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    assert not may_sign(builder.add_extension(without, critical=True).sign(ca.private_key, SHA256()))
    assert may_sign(builder.sign(ca.private_key, SHA256())), "no key usage allows everything"
