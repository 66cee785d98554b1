"""Cryptographic Message Syntax (RFC 5652, section 6): envelopes, as SCEP and Apple's token files use them.

The content is encrypted in CBC mode under a fresh key, and that key under each recipient's RSA key, or under a password
when the recipient's key can only sign. Neither of them is
authenticated, so an answer that tells a wrong key from wrong padding would decrypt other people's envelopes for
whoever asks often enough (RFC 3218). Here nothing tells them apart: opening yields bytes, and what was not meant for
us, or was changed, yields noise that no parser takes.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, modes
from cryptography.hazmat.primitives.ciphers import Cipher as CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple import ber, cms
from mdmlib.apple.certificate_encoding import encoding_of
from mdmlib.errors import BadRequestError, MalformedBodyError


@dataclass(frozen=True)
class ContentCipher:
    """A block cipher in CBC mode with PKCS #7 padding; ``oid`` is what its AlgorithmIdentifier says."""

    oid: bytes
    key_bytes: int
    block_bytes: int
    algorithm: Callable[[bytes], BlockCipherAlgorithm] = field(repr=False)

    def encrypt(self, plaintext: bytes, *, key: bytes, iv: bytes) -> bytes:
        """Encrypt and pad."""
        padder = PKCS7(self.block_bytes * 8).padder()
        encryptor = CipherContext(self.algorithm(key), modes.CBC(iv)).encryptor()
        return encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()

    def decrypt(self, ciphertext: bytes, *, key: bytes, iv: bytes) -> bytes:
        """Decrypt whole blocks. Padding that is none is left where it is: nobody learns of it from here."""
        decryptor = CipherContext(self.algorithm(key), modes.CBC(iv)).decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        unpadder = PKCS7(self.block_bytes * 8).unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            return padded


def _single_des(key: bytes) -> TripleDES:
    # Three times the same key: the second step undoes the first, and what is left is DES.
    return TripleDES(key * 3)


DES: Final = ContentCipher(cms.oid("1.3.14.3.2.7"), 8, 8, _single_des)
TRIPLE_DES: Final = ContentCipher(cms.oid("1.2.840.113549.3.7"), 24, 8, TripleDES)
AES_128: Final = ContentCipher(cms.oid("2.16.840.1.101.3.4.1.2"), 16, 16, AES)
AES_192: Final = ContentCipher(cms.oid("2.16.840.1.101.3.4.1.22"), 24, 16, AES)
AES_256: Final = ContentCipher(cms.oid("2.16.840.1.101.3.4.1.42"), 32, 16, AES)

_CIPHERS: Final = {cipher.oid: cipher for cipher in (DES, TRIPLE_DES, AES_128, AES_192, AES_256)}

_PBKDF2: Final = cms.oid("1.2.840.113549.1.5.12")
_HMAC_SHA256: Final = cms.oid("1.2.840.113549.2.9")
_PWRI_KEK: Final = cms.oid("1.2.840.113549.1.9.16.3.9")
_PBKDF2_ITERATIONS: Final = 10_000
"""Passwords here are challenges, with more entropy than people's; it matters only for what an administrator chose."""
_SALT_BYTES: Final = 16
_CHECK_BYTES: Final = 3

_OAEP: Final = cms.oid("1.2.840.113549.1.1.7")
_MGF1: Final = cms.oid("1.2.840.113549.1.1.8")


@dataclass(frozen=True)
class Recipient:
    """A KeyTransRecipientInfo: the content's key, encrypted for one certificate."""

    issuer: bytes | None
    """DER of the issuer's name, with ``serial_number``; None when the recipient is named by ``key_id``."""
    serial_number: int | None
    key_id: bytes | None
    algorithm: ber.Element = field(repr=False)
    encrypted_key: bytes = field(repr=False)

    @classmethod
    def decode(cls, element: ber.Element) -> Self:
        """Decode. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        _version, rid, algorithm, encrypted_key = element.expect(ber.SEQUENCE).children()
        issuer = serial_number = key_id = None
        if rid.tag == ber.SEQUENCE:
            name, serial = rid.children()
            issuer, serial_number = name.encoded, serial.integer()
        else:
            key_id = rid.expect(ber.context(0), ber.context(0, constructed=False)).octets()
        return cls(issuer, serial_number, key_id, algorithm, encrypted_key.octet_string())

    def names(self, certificate: x509.Certificate) -> bool:
        """Say whether this is for the holder of ``certificate``."""
        if self.key_id is not None:
            try:
                extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
            except x509.ExtensionNotFound:
                return False
            return extension.value.key_identifier == self.key_id
        encoding = encoding_of(certificate.public_bytes(Encoding.DER))
        return (self.issuer, self.serial_number) == (encoding.issuer, encoding.serial_number)


@dataclass(frozen=True)
class EnvelopedData:
    """A decoded EnvelopedData; its content is still encrypted."""

    recipients: Sequence[Recipient]
    cipher: ContentCipher
    iv: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Decode a ContentInfo that holds an EnvelopedData, in BER or DER.

        Raises :class:`~mdmlib.errors.MalformedBodyError`, and :class:`~mdmlib.errors.BadRequestError` with the code
        ``algorithm_not_accepted`` for another cipher than those above.
        """
        try:
            fields = cms.content_info(data, cms.ENVELOPED_DATA).expect(ber.SEQUENCE).children()
            # The originator's certificates, [0], and unprotected attributes, [1], are optional and mean nothing here.
            _version, recipients, content, *_rest = [element for element in fields if element.tag != ber.context(0)]
            _type, algorithm, ciphertext = content.expect(ber.SEQUENCE).children()
            oid, iv = algorithm.expect(ber.SEQUENCE).children()
            decoded = [
                Recipient.decode(recipient)
                for recipient in recipients.expect(ber.SET).children()
                # Other kinds of recipients (key agreement, passwords) have tags of their own.
                if recipient.tag == ber.SEQUENCE
            ]
        except ValueError as error:  # a structure with more or fewer fields than it has
            raise MalformedBodyError("CMS: not an EnvelopedData.") from error
        cipher = _CIPHERS.get(oid.expect(ber.OID).content)
        if cipher is None:
            raise BadRequestError("The envelope is encrypted with another cipher.", code="algorithm_not_accepted")
        encrypted = ciphertext.expect(ber.context(0), ber.context(0, constructed=False)).octets()
        if len(iv.octet_string()) != cipher.block_bytes or not encrypted or len(encrypted) % cipher.block_bytes:
            raise MalformedBodyError("CMS: an envelope of another length than its cipher makes.")
        return cls(recipients=decoded, cipher=cipher, iv=iv.octet_string(), ciphertext=encrypted)

    def open(self, certificate: x509.Certificate, private_key: rsa.RSAPrivateKey) -> bytes:
        """Decrypt what was encrypted for the holder of ``certificate``.

        A wrong key, a changed key and changed content give noise, all alike. Raises
        :class:`~mdmlib.errors.BadRequestError` for what everybody can see: no recipient is ours
        (``recipient_unknown``), or the key was encrypted in another way (``algorithm_not_accepted``).
        """
        recipient = next((recipient for recipient in self.recipients if recipient.names(certificate)), None)
        if recipient is None:
            raise BadRequestError("The envelope is for somebody else.", code="recipient_unknown")
        key = _unwrap(recipient, private_key, self.cipher.key_bytes)
        return self.cipher.decrypt(self.ciphertext, key=key, iv=self.iv)


def seal(content: bytes, *, recipient: x509.Certificate, cipher: ContentCipher) -> bytes:
    """Return a ContentInfo that only the holder of ``recipient`` can open, as DER.

    Raises :class:`~mdmlib.errors.BadRequestError` when its key cannot decrypt (it is no RSA key).
    """
    public_key = recipient.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise BadRequestError("An answer can only be encrypted to an RSA key.", code="key_unsupported")
    key = os.urandom(cipher.key_bytes)
    named = encoding_of(recipient.public_bytes(Encoding.DER))
    recipient_info = ber.der(
        ber.SEQUENCE,
        ber.der_integer(0),
        ber.der(ber.SEQUENCE, named.issuer, ber.der_integer(named.serial_number)),
        ber.der(ber.SEQUENCE, ber.der(ber.OID, cms.RSA_ENCRYPTION), ber.der(ber.NULL)),
        ber.der(ber.OCTET_STRING, public_key.encrypt(key, asymmetric_padding.PKCS1v15())),
    )
    return _enveloped(content, recipient_info, version=0, key=key, cipher=cipher)


def seal_with_password(content: bytes, *, password: str, cipher: ContentCipher) -> bytes:
    """Return a ContentInfo that only who knows the password can open, as DER.

    For a recipient whose key signs and no more, such as that of an elliptic curve (RFC 8894, section 3.1): PBKDF2 with
    HMAC-SHA-256 makes a key of the password, and PWRI-KEK wraps the content's key with it (RFC 3211, RFC 5652, 6.2.4).
    """
    key, salt, iv = os.urandom(cipher.key_bytes), os.urandom(_SALT_BYTES), os.urandom(cipher.block_bytes)
    derivation = PBKDF2HMAC(hashes.SHA256(), length=cipher.key_bytes, salt=salt, iterations=_PBKDF2_ITERATIONS)
    derived = derivation.derive(password.encode())
    recipient_info = ber.der(
        ber.context(3),
        ber.der_integer(0),
        ber.der(
            ber.context(0),
            ber.der(ber.OID, _PBKDF2),
            ber.der(
                ber.SEQUENCE,
                ber.der(ber.OCTET_STRING, salt),
                ber.der_integer(_PBKDF2_ITERATIONS),
                ber.der_integer(cipher.key_bytes),
                ber.der(ber.SEQUENCE, ber.der(ber.OID, _HMAC_SHA256), ber.der(ber.NULL)),
            ),
        ),
        ber.der(ber.SEQUENCE, ber.der(ber.OID, _PWRI_KEK), _algorithm(cipher, iv)),
        ber.der(ber.OCTET_STRING, _wrap(key, cipher, derived, iv)),
    )
    return _enveloped(content, recipient_info, version=3, key=key, cipher=cipher)


def _enveloped(content: bytes, recipient_info: bytes, *, version: int, key: bytes, cipher: ContentCipher) -> bytes:
    iv = os.urandom(cipher.block_bytes)
    encrypted_content = ber.der(
        ber.SEQUENCE,
        ber.der(ber.OID, cms.DATA),
        _algorithm(cipher, iv),
        ber.der(ber.context(0, constructed=False), cipher.encrypt(content, key=key, iv=iv)),
    )
    enveloped = ber.der(ber.SEQUENCE, ber.der_integer(version), ber.der(ber.SET, recipient_info), encrypted_content)
    return cms.wrap(cms.ENVELOPED_DATA, enveloped)


def _algorithm(cipher: ContentCipher, iv: bytes) -> bytes:
    return ber.der(ber.SEQUENCE, ber.der(ber.OID, cipher.oid), ber.der(ber.OCTET_STRING, iv))


def _wrap(key: bytes, cipher: ContentCipher, derived: bytes, iv: bytes) -> bytes:
    """Wrap a key by PWRI-KEK (RFC 3211, section 2.3.1): encrypted twice, so that each bit depends on each other."""
    check = bytes(byte ^ 0xFF for byte in key[:_CHECK_BYTES])
    block = bytes([len(key)]) + check + key
    length = max(-(-len(block) // cipher.block_bytes), 2) * cipher.block_bytes
    block += os.urandom(length - len(block))
    encryptor = CipherContext(cipher.algorithm(derived), modes.CBC(iv)).encryptor()
    # The second pass goes on where the first one ended.
    encryptor_output = encryptor.update(block)
    return encryptor.update(encryptor_output) + encryptor.finalize()


def _unwrap(recipient: Recipient, private_key: rsa.RSAPrivateKey, length: int) -> bytes:
    """Return the content's key, or random bytes in its place when what was encrypted is no such key."""
    scheme = _key_transport(recipient.algorithm)
    substitute = os.urandom(length)
    try:
        key = private_key.decrypt(recipient.encrypted_key, scheme)
    except ValueError:
        return substitute
    return key if len(key) == length else substitute


def _key_transport(algorithm: ber.Element) -> AsymmetricPadding:
    """Return the padding scheme of an RSA key transport: PKCS #1 v1.5 or OAEP (RFC 8017, appendix A.2.1)."""
    kind = cms.algorithm_oid(algorithm)
    if kind == cms.RSA_ENCRYPTION:
        return asymmetric_padding.PKCS1v15()
    if kind != _OAEP:
        raise BadRequestError("The key is encrypted in another way than RSA.", code="algorithm_not_accepted")
    parameters = {element.tag: element.only_child() for element in _parameters(algorithm)}
    digest: hashes.HashAlgorithm = hashes.SHA1()  # noqa: S303 - OAEP's default, and it rests on no collisions
    mask_digest = digest
    if (named := parameters.get(ber.context(0))) is not None:
        digest = _digest(named)
    if (mask := parameters.get(ber.context(1))) is not None:
        if cms.algorithm_oid(mask) != _MGF1 or len(mask.children()) != 2:  # noqa: PLR2004 - MGF1 and its hash
            raise BadRequestError("OAEP with another mask than MGF1.", code="algorithm_not_accepted")
        mask_digest = _digest(mask.children()[1])
    return asymmetric_padding.OAEP(asymmetric_padding.MGF1(mask_digest), digest, None)


def _parameters(algorithm: ber.Element) -> Sequence[ber.Element]:
    _oid, *parameters = algorithm.children()
    return parameters[0].expect(ber.SEQUENCE).children() if parameters else ()


def _digest(identifier: ber.Element) -> hashes.HashAlgorithm:
    digest = cms.DIGESTS.get(cms.algorithm_oid(identifier))
    if digest is None:
        raise BadRequestError("OAEP with another digest.", code="algorithm_not_accepted")
    return digest
