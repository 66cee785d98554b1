"""EnvelopedData (RFC 5652, section 6) as SCEP clients make and open it."""

import secrets
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import ciphers, hashes, serialization
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from local.device.cms import CmsError, decoding

Cipher = Literal["des", "3des", "aes128", "aes256"]

# What SCEP clients that know OAEP use with it; RFC 4055's default.
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
        encrypted = enveloped["encrypted_content_info"]
        algorithm = encrypted["content_encryption_algorithm"]
        name = algorithm["algorithm"].native
        cipher = next((cipher for cipher, kind in _CIPHERS.items() if kind.name == name), None)
        if cipher is None:
            raise CmsError(f"The cipher {name} is unknown.")
        content_key = key.decrypt(encrypted_key, padding.PKCS1v15())
        decryptor = _cipher(cipher, content_key, algorithm["parameters"].native).decryptor()
        padded = decryptor.update(encrypted["encrypted_content"].native) + decryptor.finalize()
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
