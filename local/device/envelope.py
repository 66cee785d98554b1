"""EnvelopedData (RFC 5652, section 6) as SCEP clients make and open it."""

import secrets
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import ciphers, hashes, serialization
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from local.device.cms import CmsError, decoding

Cipher = Literal["des", "3des", "aes128", "aes256"]

# What SCEP clients that know OAEP use with it; RFC 4055's default.
_PWRI_KEK: Final = "1.2.840.113549.1.9.16.3.9"
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)


class _Kind(NamedTuple):
    """How a cipher is called in asn1crypto, and the bytes that its key and block have."""

    name: str
    key: int
    block: int


_CIPHERS: Final[dict[Cipher, _Kind]] = {
    "des": _Kind("des", 8, 8),
    "3des": _Kind("tripledes_3key", 24, 8),
    "aes128": _Kind("aes128_cbc", 16, 16),
    "aes256": _Kind("aes256_cbc", 32, 16),
}


def key_size(cipher: Cipher) -> int:
    """Return the bytes of the cipher's key: the more, the stronger."""
    return _CIPHERS[cipher].key


def seal(
    content: bytes,
    recipient: x509.Certificate,
    *,
    cipher: Cipher,
    oaep: bool = False,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> bytes:
    """Encrypt ``content`` to the holder of the recipient's RSA key; return the ContentInfo as DER."""
    public_key = recipient.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise CmsError("Nothing can be encrypted to a key that is not RSA.")
    kind = _CIPHERS[cipher]
    key, vector = random_bytes(kind.key), random_bytes(kind.block)
    padder = block_padding.PKCS7(kind.block * 8).padder()
    padded = padder.update(content) + padder.finalize()
    encryptor = _cipher(cipher, key, vector).encryptor()
    certificate = asn1_x509.Certificate.load(recipient.public_bytes(serialization.Encoding.DER))
    transport: dict[str, object] = {"algorithm": "rsaes_oaep" if oaep else "rsaes_pkcs1v15"}
    if not oaep:
        transport["parameters"] = core.Null()
    recipient_info = cms.KeyTransRecipientInfo(
        {
            "version": "v0",
            "rid": {
                "issuer_and_serial_number": {
                    "issuer": certificate.issuer,
                    "serial_number": certificate.serial_number,
                }
            },
            "key_encryption_algorithm": transport,
            "encrypted_key": public_key.encrypt(key, _OAEP if oaep else padding.PKCS1v15()),
        }
    )
    enveloped = cms.EnvelopedData(
        {
            "version": "v0",
            "recipient_infos": [cms.RecipientInfo({"ktri": recipient_info})],
            "encrypted_content_info": {
                "content_type": "data",
                "content_encryption_algorithm": {"algorithm": kind.name, "parameters": core.OctetString(vector)},
                "encrypted_content": encryptor.update(padded) + encryptor.finalize(),
            },
        }
    )
    return bytes(cms.ContentInfo({"content_type": "enveloped_data", "content": enveloped}).dump())


def open_envelope(der: bytes, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> tuple[bytes, Cipher]:
    """Decrypt an envelope to ``certificate``; return the content and the cipher. Raises :class:`CmsError`."""
    with decoding():
        info = cms.ContentInfo.load(der, strict=True)
        if info["content_type"].native != "enveloped_data":
            raise CmsError(f"It is {info['content_type'].native}, not an envelope.")
        enveloped = info["content"]
        encrypted_key = _encrypted_key(enveloped, certificate)
        return _content(enveloped, key.decrypt(encrypted_key, padding.PKCS1v15()))


def open_with_password(der: bytes, password: bytes) -> tuple[bytes, Cipher]:
    """Decrypt an envelope for who knows a password (RFC 3211). Raises :class:`CmsError`."""
    with decoding():
        enveloped = cms.ContentInfo.load(der, strict=True)["content"]
        recipient = next((one for one in enveloped["recipient_infos"] if one.name == "pwri"), None)
        if recipient is None:
            raise CmsError("No recipient is who knows the password.")
        derivation = recipient.chosen["key_derivation_algorithm"]
        wrapping = recipient.chosen["key_encryption_algorithm"]
        if derivation["algorithm"].native != "pbkdf2" or wrapping["algorithm"].native != _PWRI_KEK:
            raise CmsError("The key is wrapped in another way than PBKDF2 and PWRI-KEK.")
        inner = algos.EncryptionAlgorithm.load(wrapping["parameters"].dump(), strict=True)
        cipher = _known(inner["algorithm"].native)
        parameters = derivation["parameters"]
        prf = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}[parameters["prf"]["algorithm"].native]
        derived = PBKDF2HMAC(
            prf(),
            length=_CIPHERS[cipher].key,
            salt=parameters["salt"].native,
            iterations=parameters["iteration_count"].native,
        ).derive(password)
        wrapped = recipient.chosen["encrypted_key"].native
        key = _unwrapped(cipher, derived, inner["parameters"].native, wrapped)
        return _content(enveloped, key)


def _unwrapped(cipher: Cipher, key: bytes, vector: bytes, wrapped: bytes) -> bytes:
    """Undo PWRI-KEK (RFC 3211, section 2.3.2)."""
    block = _CIPHERS[cipher].block
    if len(wrapped) < 2 * block or len(wrapped) % block:
        raise CmsError("The wrapped key has no length that PWRI-KEK makes.")
    # The last block under the one before it is what the first pass ended with, the vector of the second one.
    last = _decrypted(cipher, key, wrapped[-2 * block : -block], wrapped[-block:])
    once = _decrypted(cipher, key, last, wrapped)
    plain = _decrypted(cipher, key, vector, once)
    length, check, found = plain[0], plain[1:4], plain[4 : 4 + plain[0]]
    if length != len(found) or check != bytes(255 - byte for byte in found[:3]):
        raise CmsError("The password is not the one that the key was wrapped with.")
    return found


def _decrypted(cipher: Cipher, key: bytes, vector: bytes, content: bytes) -> bytes:
    decryptor = _cipher(cipher, key, vector).decryptor()
    return decryptor.update(content) + decryptor.finalize()


def _known(name: str) -> Cipher:
    cipher = next((cipher for cipher, kind in _CIPHERS.items() if kind.name == name), None)
    if cipher is None:
        raise CmsError(f"The cipher {name} is unknown.")
    return cipher


def _content(enveloped: cms.EnvelopedData, key: bytes) -> tuple[bytes, Cipher]:
    encrypted = enveloped["encrypted_content_info"]
    algorithm = encrypted["content_encryption_algorithm"]
    cipher = _known(algorithm["algorithm"].native)
    padded = _decrypted(cipher, key, algorithm["parameters"].native, encrypted["encrypted_content"].native)
    unpadder = block_padding.PKCS7(_CIPHERS[cipher].block * 8).unpadder()
    return unpadder.update(padded) + unpadder.finalize(), cipher


def _encrypted_key(enveloped: cms.EnvelopedData, certificate: x509.Certificate) -> bytes:
    for recipient in enveloped["recipient_infos"]:
        if recipient.name != "ktri":
            continue
        rid = recipient.chosen["rid"]
        if rid.name != "issuer_and_serial_number":
            continue
        same_issuer = rid.chosen["issuer"].dump() == certificate.issuer.public_bytes()
        if same_issuer and rid.chosen["serial_number"].native == certificate.serial_number:
            return bytes(recipient.chosen["encrypted_key"].native)
    raise CmsError("No recipient is the certificate that signed the request.")


def _cipher(cipher: Cipher, key: bytes, vector: bytes) -> ciphers.Cipher[modes.CBC]:
    if cipher == "des":
        # Triple DES with one key three times is DES; cryptography has no DES of its own.
        return ciphers.Cipher(TripleDES(key * 3), modes.CBC(vector))
    if cipher == "3des":
        return ciphers.Cipher(TripleDES(key), modes.CBC(vector))
    return ciphers.Cipher(algorithms.AES(key), modes.CBC(vector))
