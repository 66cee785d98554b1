"""Cryptographic messages (RFC 5652) as a device makes and checks them.

Written for the simulated device alone, on asn1crypto's structures and cryptography's primitives: a mistake that the
server shared with its own counterpart would stay unseen.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, Self

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

Digest = Literal["sha1", "sha256", "sha384", "sha512"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
_SIGNING_TIME: Final = "1.2.840.113549.1.9.5"

_PART_BYTES: Final = 1000

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    # SHA-1 is what older devices sign with; a device still verifies it.
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class CmsError(ValueError):
    """A message is malformed, or its signature does not hold."""


class SignatureForm(StrEnum):
    """The two forms of a detached signature that devices are seen to send."""

    BER_NO_ATTRIBUTES = "ber-no-attributes"
    """Indefinite lengths, and the signature is over the body itself."""
    DER_WITH_ATTRIBUTES = "der-with-attributes"
    """Definite lengths, and the signature is over contentType, messageDigest and signingTime."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    key: PrivateKey
    certificate: x509.Certificate

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read an identity of one key and its certificate."""
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise TypeError("The key is neither RSA nor on a curve.")
        return cls(key, x509.load_pem_x509_certificate(pem))

    @property
    def certificate_der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Signed:
    """A message whose signature was verified with ``signer``. Whether the signer is to be trusted is another matter."""

    content: bytes
    signer: x509.Certificate
    attributes: Mapping[str, bytes]
    """Dotted OID to the DER of the attribute's only value."""
    certificates: tuple[x509.Certificate, ...]


def digest_of(content: bytes, digest: str) -> bytes:
    """Hash ``content``."""
    hasher = hashes.Hash(_HASHES[digest])
    hasher.update(content)
    return hasher.finalize()


def sign(
    content: bytes,
    identity: Identity,
    *,
    digest: Digest,
    attributes: Mapping[str, bytes] | None,
    detached: bool,
    null_parameters: bool = True,
) -> bytes:
    """Return a SignedData as DER. ``attributes`` are dotted OID to the DER of the value, None for none at all.

    contentType and messageDigest are added where there are attributes.
    """
    signed_attributes = None
    to_sign = content
    if attributes is not None:
        attribute_set = _attribute_set(
            {
                _CONTENT_TYPE: cms.ContentType("data").dump(),
                _MESSAGE_DIGEST: core.OctetString(digest_of(content, digest)).dump(),
                **attributes,
            }
        )
        signed_attributes = cms.CMSAttributes.load(attribute_set)
        to_sign = attribute_set
    encapsulated: dict[str, object] = {"content_type": "data"}
    if not detached:
        encapsulated["content"] = content
    signed = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [_digest_algorithm(digest, null_parameters=null_parameters)],
            "encap_content_info": encapsulated,
            "certificates": [asn1_x509.Certificate.load(identity.certificate_der)],
            "signer_infos": [_signer_info(to_sign, identity, digest, signed_attributes, null_parameters)],
        }
    )
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump())


def sign_message(
    body: bytes,
    identity: Identity,
    *,
    form: SignatureForm,
    digest: Digest,
    at: datetime,
    null_parameters: bool = True,
) -> bytes:
    """Return the detached signature over a message's body that goes, in base64, into ``Mdm-Signature``."""
    if form is SignatureForm.DER_WITH_ATTRIBUTES:
        attributes = {_SIGNING_TIME: asn1_x509.Time({"utc_time": at}).dump()}
        return sign(
            body,
            identity,
            digest=digest,
            attributes=attributes,
            detached=True,
            null_parameters=null_parameters,
        )
    return _signed_without_attributes(body, identity, digest, content=None, null_parameters=null_parameters)


def sign_content(content: bytes, identity: Identity, *, form: SignatureForm, digest: Digest, at: datetime) -> bytes:
    """Return a SignedData around ``content``, as a MachineInfo is."""
    if form is SignatureForm.DER_WITH_ATTRIBUTES:
        attributes = {_SIGNING_TIME: asn1_x509.Time({"utc_time": at}).dump()}
        return sign(content, identity, digest=digest, attributes=attributes, detached=False)
    # Octets in parts, as who signs a stream writes them.
    parts = [content[index : index + _PART_BYTES] for index in range(0, len(content), _PART_BYTES)]
    octets = _indefinite(0x24, *(core.OctetString(part).dump() for part in parts))
    return _signed_without_attributes(content, identity, digest, content=_indefinite(0xA0, octets))


def _signed_without_attributes(
    to_sign: bytes,
    identity: Identity,
    digest: Digest,
    *,
    content: bytes | None,
    null_parameters: bool = True,
) -> bytes:
    signer_info = _signer_info(to_sign, identity, digest, None, null_parameters).dump()
    return _indefinite(
        0x30,
        core.ObjectIdentifier("1.2.840.113549.1.7.2").dump(),
        _indefinite(
            0xA0,
            _indefinite(
                0x30,
                core.Integer(1).dump(),
                _definite(0x31, _digest_algorithm(digest, null_parameters=null_parameters).dump()),
                _indefinite(0x30, core.ObjectIdentifier("1.2.840.113549.1.7.1").dump(), content or b""),
                _indefinite(0xA0, identity.certificate_der),
                _definite(0x31, signer_info),
            ),
        ),
    )


@contextmanager
def decoding() -> Iterator[None]:
    """Turn what the decoders raise for malformed messages into :class:`CmsError`."""
    try:
        yield
    except CmsError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise CmsError(f"It is malformed: {error}") from error


def verify(der: bytes) -> Signed:
    """Check a SignedData with one signer, signed attributes and its content inside, as SCEP and signed profiles are.

    Raises :class:`CmsError`.
    """
    with decoding():
        signed = _signed_data(der)
        encapsulated = signed["encap_content_info"]
        # Octets in parts (BER) are one string to whoever digests them.
        content = bytes(encapsulated["content"].native or b"") if encapsulated["content"] else b""
        certificates = _certificates_of(signed)
        if len(signed["signer_infos"]) != 1:
            raise CmsError(f"It has {len(signed['signer_infos'])} signers, not one.")
        signer_info = signed["signer_infos"][0]
        signer = _signer(signer_info["sid"], certificates)
        attributes, attribute_set = _attributes(signer_info)
        digest = signer_info["digest_algorithm"]["algorithm"].native
        if digest not in _HASHES:
            raise CmsError(f"The digest {digest} is unknown.")
        if attributes.get(_CONTENT_TYPE) != encapsulated["content_type"].dump():
            raise CmsError("The contentType attribute is not that of the content.")
        if attributes.get(_MESSAGE_DIGEST) != core.OctetString(digest_of(content, digest)).dump():
            raise CmsError("The messageDigest attribute is not that of the content.")
        _verify_signature(signer, signer_info["signature"].native, attribute_set, digest)
    return Signed(content, signer, attributes, certificates)


def degenerate_certificates(der: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a certs-only SignedData (RFC 8894, section 3.4), in their order.

    Raises :class:`CmsError`.
    """
    with decoding():
        return _certificates_of(_signed_data(der))


def _signed_data(der: bytes) -> cms.SignedData:
    info = cms.ContentInfo.load(der, strict=True)
    if info["content_type"].native != "signed_data":
        raise CmsError(f"It is {info['content_type'].native}, not signed data.")
    return info["content"]


def _certificates_of(signed: cms.SignedData) -> tuple[x509.Certificate, ...]:
    return tuple(
        x509.load_der_x509_certificate(choice.chosen.dump())
        for choice in signed["certificates"] or ()
        if choice.name == "certificate"
    )


def _attribute_set(attributes: Mapping[str, bytes]) -> bytes:
    encoded = [
        _definite(0x30, core.ObjectIdentifier(oid).dump(), _definite(0x31, value)) for oid, value in attributes.items()
    ]
    return _definite(0x31, *sorted(encoded))


def _attributes(signer_info: cms.SignerInfo) -> tuple[dict[str, bytes], bytes]:
    """Return the signed attributes and the bytes that are signed: their DER, the SET OF in its order."""
    found: dict[str, bytes] = {}
    if not signer_info["signed_attrs"]:
        raise CmsError("It has no signed attributes.")
    for attribute in signer_info["signed_attrs"]:
        oid = attribute["type"].dotted
        if oid in found:
            raise CmsError(f"The attribute {oid} stands twice.")
        values = core.SetOf.load(attribute["values"].dump(), spec=core.Any)
        if len(values) != 1:
            raise CmsError(f"The attribute {oid} has {len(values)} values.")
        found[oid] = values[0].dump()
    return found, _attribute_set(found)


def _signer(sid: cms.SignerIdentifier, certificates: tuple[x509.Certificate, ...]) -> x509.Certificate:
    for certificate in certificates:
        if sid.name == "issuer_and_serial_number":
            issuer, serial = sid.chosen["issuer"].dump(), sid.chosen["serial_number"].native
            if certificate.issuer.public_bytes() == issuer and certificate.serial_number == serial:
                return certificate
        elif x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest == sid.native:
            return certificate
    raise CmsError("The signer's certificate is not embedded.")


def _verify_signature(signer: x509.Certificate, signature: bytes, content: bytes, digest: str) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, padding.PKCS1v15(), _HASHES[digest])
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(_HASHES[digest]))
        else:
            raise CmsError("The signer's key is neither RSA nor on a curve.")
    except InvalidSignature as error:
        raise CmsError("The signature does not hold.") from error


def _signer_info(
    to_sign: bytes,
    identity: Identity,
    digest: Digest,
    signed_attributes: cms.CMSAttributes | None,
    null_parameters: bool,  # noqa: FBT001  # internal
) -> cms.SignerInfo:
    certificate = asn1_x509.Certificate.load(identity.certificate_der)
    if isinstance(identity.key, rsa.RSAPrivateKey):
        signature = identity.key.sign(to_sign, padding.PKCS1v15(), _HASHES[digest])
        algorithm = _algorithm("1.2.840.113549.1.1.1", null_parameters=null_parameters)
    else:
        signature = identity.key.sign(to_sign, ec.ECDSA(_HASHES[digest]))
        # RFC 5758, section 3.2: never a parameter.
        name = algos.SignedDigestAlgorithmId(f"{digest}_ecdsa").dotted
        algorithm = _algorithm(name, null_parameters=False)
    fields: dict[str, object] = {
        "version": "v1",
        "sid": {
            "issuer_and_serial_number": {"issuer": certificate.issuer, "serial_number": certificate.serial_number},
        },
        "digest_algorithm": _digest_algorithm(digest, null_parameters=null_parameters),
        "signature_algorithm": algos.SignedDigestAlgorithm.load(algorithm),
        "signature": signature,
    }
    if signed_attributes is not None:
        fields["signed_attrs"] = signed_attributes
    return cms.SignerInfo(fields)


def _digest_algorithm(digest: str, *, null_parameters: bool) -> algos.DigestAlgorithm:
    name = algos.DigestAlgorithmId(digest).dotted
    return algos.DigestAlgorithm.load(_algorithm(name, null_parameters=null_parameters))


def _algorithm(oid: str, *, null_parameters: bool) -> bytes:
    # By hand, for asn1crypto's own constructors put the NULL there always.
    return _definite(0x30, core.ObjectIdentifier(oid).dump(), core.Null().dump() if null_parameters else b"")


def _definite(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:  # noqa: PLR2004  # X.690, 8.1.3: the short form
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def _indefinite(tag: int, *parts: bytes) -> bytes:
    return bytes([tag, 0x80]) + b"".join(parts) + b"\x00\x00"
