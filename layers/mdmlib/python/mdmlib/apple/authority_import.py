"""A CA of an administrator's with its private key, in PEM or PKCS #12, that is to issue identities from now on."""

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from mdmlib.apple.certificates import CaIdentity, pem_blocks, spki
from mdmlib.errors import BadRequestError

MAX_BYTES: Final = 64 * 1024

_RSA_BITS: Final = range(2048, 4097)


def decode_authority_pem(pem: bytes, password: str | None, *, at: datetime) -> CaIdentity:
    """Read a CA's certificate and its private key from PEM blocks in any order.

    Of several certificates the one of the key counts, and the others are left out: what they issued is trusted when
    they are uploaded as authorities. Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong.
    """
    _check_size(pem)
    keys = [block for label, block in pem_blocks(pem) if label.endswith("PRIVATE KEY")]
    certificates = [block for label, block in pem_blocks(pem) if label == "CERTIFICATE"]
    if len(keys) != 1:
        raise BadRequestError("A CA has one private key; there has to be one in the PEM.", code="private_key_missing")
    if not certificates:
        raise BadRequestError("There is no certificate in the PEM.", code="certificate_missing")
    (key_pem,) = keys
    encrypted = b"ENCRYPTED" in key_pem
    _check_password(password, encrypted=encrypted)
    try:
        key = load_pem_private_key(key_pem, password.encode() if encrypted and password else None)
    except (UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise _unreadable_key(encrypted=encrypted) from error
    try:
        loaded = [x509.load_pem_x509_certificate(block) for block in certificates]
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError) as error:
        raise _unreadable_certificate() from error
    return _authority(key, loaded, at=at)


def decode_authority_pkcs12(encoded: bytes, password: str | None, *, at: datetime) -> CaIdentity:
    """Read the same from a PKCS #12 file (``.p12``, ``.pfx``). Raises as :func:`decode_authority_pem` does."""
    _check_size(encoded)
    try:
        # Some programs write a password of no characters where there is none.
        loaded = pkcs12.load_pkcs12(encoded, password.encode() if password else None)
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError, TypeError) as error:
        raise BadRequestError(
            "The PKCS #12 file cannot be read: it is none, its password is another one, or missing.",
            code="pkcs12_unreadable",
        ) from error
    if loaded.key is None:
        raise BadRequestError("There is no private key in the PKCS #12 file.", code="private_key_missing")
    certificates = [each.certificate for each in (loaded.cert, *loaded.additional_certs) if each is not None]
    if not certificates:
        raise BadRequestError("There is no certificate in the PKCS #12 file.", code="certificate_missing")
    return _authority(loaded.key, certificates, at=at)


def _authority(key: object, certificates: list[x509.Certificate], *, at: datetime) -> CaIdentity:
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadRequestError("The CA's key has to be RSA: devices encrypt to it.", code="key_unsupported")
    if key.key_size not in _RSA_BITS:
        raise BadRequestError(
            f"The CA's key has {key.key_size} bits; it needs {_RSA_BITS.start} to {_RSA_BITS.stop - 1}.",
            code="key_unsupported",
        )
    public = spki(key.public_key())
    try:
        own = [certificate for certificate in certificates if _spki(certificate) == public]
        if not own:
            raise BadRequestError(
                "The private key is not the one of any of these certificates.",
                code="private_key_of_another_certificate",
            )
        # Of several certificates for one key, as of a CA that was renewed, the one that lasts longest.
        certificate = max(own, key=lambda each: each.not_valid_after_utc)
        _check_authority(certificate, at=at)
    except (UnsupportedAlgorithm, x509.DuplicateExtension, ValueError) as error:
        raise _unreadable_certificate() from error
    return CaIdentity(certificate, key)


def _check_authority(certificate: x509.Certificate, *, at: datetime) -> None:
    subject = certificate.subject.rfc4514_string()
    if not certificate.subject.rdns:
        raise BadRequestError("The CA has no name.", code="not_an_authority")
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise BadRequestError(
            f"The certificate of {subject} is none of a CA: its basic constraints do not say so.",
            code="not_an_authority",
        )
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    if not may_sign:
        raise BadRequestError(f"The key of {subject} must not sign certificates.", code="not_an_authority")
    if certificate.not_valid_after_utc <= at:
        raise BadRequestError(f"The certificate of {subject} has expired.", code="authority_expired")
    if certificate.not_valid_before_utc > at:
        raise BadRequestError(f"The certificate of {subject} is not valid yet.", code="authority_not_yet_valid")


def _spki(certificate: x509.Certificate) -> bytes | None:
    key = certificate.public_key()
    return spki(key) if isinstance(key, rsa.RSAPublicKey) else None


def _check_size(encoded: bytes) -> None:
    if len(encoded) > MAX_BYTES:
        raise BadRequestError(f"A CA with its key has at most {MAX_BYTES:,} bytes.", code="authority_too_large")


def _check_password(password: str | None, *, encrypted: bool) -> None:
    if encrypted and not password:
        raise BadRequestError(
            "The private key is encrypted; its password is missing.", code="password_missing", field="password"
        )


def _unreadable_key(*, encrypted: bool) -> BadRequestError:
    if encrypted:
        return BadRequestError(
            "The private key cannot be read with this password.", code="password_wrong", field="password"
        )
    return BadRequestError("The private key cannot be read.", code="private_key_unreadable")


def _unreadable_certificate() -> BadRequestError:
    return BadRequestError("A certificate cannot be read.", code="certificate_unreadable")
