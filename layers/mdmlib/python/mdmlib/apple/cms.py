"""Cryptographic Message Syntax (RFC 5652): signatures, as devices make them and as SCEP answers them.

Seen in the field: BER with indefinite lengths, SHA-1 and no signed attributes (the signature is over the content
itself), and DER with signed attributes (the signature is over them, and one of them is the content's digest).
Envelopes are next door, in :mod:`mdmlib.apple.cms_envelope`.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mdmlib.apple import ber
from mdmlib.apple.certificate_encoding import encoding_of
from mdmlib.errors import IdentityError, MalformedBodyError

MAX_SIGNATURE_BYTES: Final = 64 * 1024


def oid(dotted: str) -> bytes:
    """Return the content of an OBJECT IDENTIFIER: that is the form in which they are compared."""
    return ber.decode(ber.der_oid(dotted)).content


DATA: Final = oid("1.2.840.113549.1.7.1")
SIGNED_DATA: Final = oid("1.2.840.113549.1.7.2")
ENVELOPED_DATA: Final = oid("1.2.840.113549.1.7.3")
CONTENT_TYPE: Final = oid("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = oid("1.2.840.113549.1.9.4")

RSA_ENCRYPTION: Final = oid("1.2.840.113549.1.1.1")

DIGESTS: Final[Mapping[bytes, hashes.HashAlgorithm]] = {
    oid("1.3.14.3.2.26"): hashes.SHA1(),  # noqa: S303 - devices in the field sign with it
    oid("2.16.840.1.101.3.4.2.1"): hashes.SHA256(),
    oid("2.16.840.1.101.3.4.2.2"): hashes.SHA384(),
    oid("2.16.840.1.101.3.4.2.3"): hashes.SHA512(),
}

_SIGNATURES: Final[Mapping[bytes, tuple[str, hashes.HashAlgorithm | None]]] = {
    # The key's kind, and the hash when the algorithm names one: else it is the digest algorithm's.
    RSA_ENCRYPTION: ("RSA", None),
    oid("1.2.840.113549.1.1.5"): ("RSA", hashes.SHA1()),  # noqa: S303 - devices in the field sign with it
    oid("1.2.840.113549.1.1.11"): ("RSA", hashes.SHA256()),
    oid("1.2.840.113549.1.1.12"): ("RSA", hashes.SHA384()),
    oid("1.2.840.113549.1.1.13"): ("RSA", hashes.SHA512()),
    oid("1.2.840.10045.2.1"): ("EC", None),
    oid("1.2.840.10045.4.1"): ("EC", hashes.SHA1()),  # noqa: S303 - devices in the field sign with it
    oid("1.2.840.10045.4.3.2"): ("EC", hashes.SHA256()),
    oid("1.2.840.10045.4.3.3"): ("EC", hashes.SHA384()),
    oid("1.2.840.10045.4.3.4"): ("EC", hashes.SHA512()),
}

SIGNATURES: Final = frozenset(_SIGNATURES)
"""OIDs (content octets) of the signature algorithms that are accepted."""


@dataclass(frozen=True, slots=True)
class SignerCertificate:
    """A certificate whose private key signed the message, or the handshake of the connection that it came by.

    Nothing says yet that we trust who issued it.
    """

    der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One signature of a SignedData (RFC 5652, section 5.3)."""

    issuer: bytes | None
    """DER of the issuer's name, with ``serial_number``; None when the signer is named by ``key_id``."""
    serial_number: int | None
    key_id: bytes | None
    digest_algorithm: bytes
    """Content of the OBJECT IDENTIFIER, like all algorithms and attribute types here."""
    signature_algorithm: bytes
    signature: bytes
    signed_attributes: bytes | None
    """What was signed: the attributes' encoding as a SET OF; None when the signature is over the content itself."""
    attributes: Mapping[bytes, ber.Element]
    """The one value of each signed attribute."""

    @classmethod
    def decode(cls, element: ber.Element) -> Self:
        """Decode. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        fields = iter(element.expect(ber.SEQUENCE).children())
        _version, sid, digest_algorithm, signed = next(fields), next(fields), next(fields), next(fields)
        issuer = serial_number = key_id = signed_attributes = None
        attributes: dict[bytes, ber.Element] = {}
        if sid.tag == ber.SEQUENCE:
            name, serial = sid.children()
            issuer, serial_number = name.encoded, serial.integer()
        else:
            key_id = sid.expect(ber.context(0), ber.context(0, constructed=False)).octets()
        if signed.tag == ber.context(0):
            attributes = _attributes(signed)
            # RFC 5652, section 5.4: what is signed is their DER encoding, under the tag of a SET OF. The order stays as
            # it was received: not every signer sorts.
            signed_attributes = signed.to_der(tag=ber.SET)
            signature_algorithm = next(fields)
        else:
            signature_algorithm = signed
        return cls(
            issuer=issuer,
            serial_number=serial_number,
            key_id=key_id,
            digest_algorithm=algorithm_oid(digest_algorithm),
            signature_algorithm=algorithm_oid(signature_algorithm),
            signature=next(fields).octet_string(),
            signed_attributes=signed_attributes,
            attributes=attributes,
        )

    def verify(self, certificate: x509.Certificate, content: bytes, *, content_type: bytes) -> None:
        """Check that the certificate's key signed ``content``.

        Raises :class:`~mdmlib.errors.IdentityError` when it did not, or used an algorithm that is not accepted.
        """
        digest = DIGESTS.get(self.digest_algorithm)
        kind, signature_hash = _SIGNATURES.get(self.signature_algorithm, ("", None))
        if digest is None or not kind:
            raise IdentityError("The signature uses an algorithm that is not accepted.")
        signed = content
        if self.signed_attributes is not None:
            self._check_attributes(hashlib.new(digest.name, content).digest(), content_type=content_type)
            signed = self.signed_attributes
        try:
            key = certificate.public_key()
            if kind == "RSA" and isinstance(key, rsa.RSAPublicKey):
                key.verify(self.signature, signed, padding.PKCS1v15(), signature_hash or digest)
            elif kind == "EC" and isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(self.signature, signed, ec.ECDSA(signature_hash or digest))
            else:
                raise IdentityError("The certificate's key is not of the signature's kind.")
        except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
            raise IdentityError("The signature is not over this content by this certificate's key.") from error

    def _check_attributes(self, digest: bytes, *, content_type: bytes) -> None:
        try:
            named = self.attributes[CONTENT_TYPE].expect(ber.OID).content
            found = self.attributes[MESSAGE_DIGEST].octet_string()
        except KeyError as error:
            raise IdentityError("A mandatory signed attribute is missing.") from error
        if named != content_type or not hmac.compare_digest(found, digest):
            raise IdentityError("The signed attributes are of another content.")


@dataclass(frozen=True, slots=True)
class SignedData:
    """A decoded SignedData (RFC 5652, section 5.1). Decoding verifies nothing."""

    content_type: bytes
    content: bytes | None = field(repr=False)
    """None when the content is detached."""
    certificates: Sequence[bytes]
    """DER, as they came: in no order, and none of them checked."""
    signers: Sequence[SignerInfo]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Decode a ContentInfo that holds a SignedData. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        try:
            fields = content_info(data, SIGNED_DATA).expect(ber.SEQUENCE).children()
            _version, _digest_algorithms, encapsulated, *optional, signers = fields
            content_type, *content = encapsulated.expect(ber.SEQUENCE).children()
            return cls(
                content_type=content_type.expect(ber.OID).content,
                content=content[0].expect(ber.context(0)).only_child().octet_string() if content else None,
                certificates=[
                    certificate.encoded
                    for group in optional
                    if group.tag == ber.context(0)
                    for certificate in group.children()
                    # The other kinds (attribute certificates) have tags of their own.
                    if certificate.tag == ber.SEQUENCE
                ],
                signers=[SignerInfo.decode(signer) for signer in signers.expect(ber.SET).children()],
            )
        except (ValueError, StopIteration) as error:  # a structure with fewer fields than it has
            raise MalformedBodyError("CMS: not a SignedData.") from error

    def signer(self) -> "Signer":
        """Return the one signature and the certificate that it names, still unverified.

        Raises :class:`~mdmlib.errors.IdentityError` when there is another number of signatures or no such certificate.
        """
        if len(self.signers) != 1:
            raise IdentityError(f"There are {len(self.signers)} signatures where one belongs.")
        signer = self.signers[0]
        for der in self.certificates:
            if certificate := _load_if_named(der, signer):
                return Signer(signer, certificate, der)
        raise IdentityError("The signer's certificate is not with the signature.")


class Signer(NamedTuple):
    """A signature and the certificate that it names."""

    info: SignerInfo
    certificate: x509.Certificate
    der: bytes
    """The certificate as it came."""


def verify_detached(signature: bytes, content: bytes) -> SignerCertificate:
    """Return the certificate whose key signed exactly ``content``; whether to trust it is not asked here.

    ``signature`` is a SignedData in BER or DER, with or without signed attributes. Raises
    :class:`~mdmlib.errors.IdentityError` for whatever proves nothing.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise IdentityError("The signature is larger than any signature.")
    try:
        signed_data = SignedData.decode(signature)
        signer, certificate, der = signed_data.signer()
        if signed_data.content not in {None, content}:
            raise IdentityError("The signature is over a content of its own.")
        signer.verify(certificate, content, content_type=signed_data.content_type)
    except MalformedBodyError as error:
        raise IdentityError("The signature is not in the form of a CMS SignedData.") from error
    return SignerCertificate(der)


def sign(
    content: bytes | None,
    *,
    certificate: bytes,
    private_key: rsa.RSAPrivateKey,
    digest: hashes.HashAlgorithm,
    attributes: Mapping[bytes, bytes],
) -> bytes:
    """Return a SignedData over ``content`` with its signer's ``certificate`` (DER) embedded, as DER.

    None makes one whose content is empty and absent. ``attributes`` are signed attributes beside contentType and
    messageDigest: the DER value of each by its type.
    """
    named = encoding_of(certificate)
    digest_algorithm = _algorithm(next(kind for kind, known in DIGESTS.items() if known.name == digest.name))
    everything = {
        CONTENT_TYPE: ber.der(ber.OID, DATA),
        MESSAGE_DIGEST: ber.der(ber.OCTET_STRING, hashlib.new(digest.name, content or b"").digest()),
        **attributes,
    }
    signed = [
        ber.der(ber.SEQUENCE, ber.der(ber.OID, kind), ber.der(ber.SET, value)) for kind, value in everything.items()
    ]
    signature = private_key.sign(ber.der_set_of(ber.SET, signed), padding.PKCS1v15(), digest)
    signer_info = ber.der(
        ber.SEQUENCE,
        ber.der_integer(1),
        ber.der(ber.SEQUENCE, named.issuer, ber.der_integer(named.serial_number)),
        digest_algorithm,
        ber.der_set_of(ber.context(0), signed),
        _algorithm(RSA_ENCRYPTION),
        ber.der(ber.OCTET_STRING, signature),
    )
    return _signed_data(
        content, digest_algorithms=[digest_algorithm], certificates=[certificate], signer_infos=[signer_info]
    )


def certificates_only(certificates: Iterable[bytes]) -> bytes:
    """Return the degenerate SignedData that only carries certificates (DER), in the given order.

    DER would sort them; SCEP clients take the first for the one that was issued.
    """
    return _signed_data(None, digest_algorithms=[], certificates=certificates, signer_infos=[])


def _signed_data(
    content: bytes | None,
    *,
    digest_algorithms: Iterable[bytes],
    certificates: Iterable[bytes],
    signer_infos: Iterable[bytes],
) -> bytes:
    encapsulated = [ber.der(ber.OID, DATA)]
    if content is not None:
        encapsulated.append(ber.der(ber.context(0), ber.der(ber.OCTET_STRING, content)))
    signed_data = ber.der(
        ber.SEQUENCE,
        ber.der_integer(1),
        ber.der(ber.SET, *digest_algorithms),
        ber.der(ber.SEQUENCE, *encapsulated),
        ber.der(ber.context(0), *certificates),
        ber.der(ber.SET, *signer_infos),
    )
    return wrap(SIGNED_DATA, signed_data)


def wrap(content_type: bytes, content: bytes) -> bytes:
    """Return the ContentInfo that holds ``content``."""
    return ber.der(ber.SEQUENCE, ber.der(ber.OID, content_type), ber.der(ber.context(0), content))


def _algorithm(algorithm: bytes) -> bytes:
    return ber.der(ber.SEQUENCE, ber.der(ber.OID, algorithm), ber.der(ber.NULL))


def decode_mdm_signature(header: str) -> bytes:
    """Decode the value of an ``Mdm-Signature`` header, which may be folded or hold spaces.

    Raises :class:`~mdmlib.errors.IdentityError` when it is empty or not base64.
    """
    try:
        signature = base64.b64decode("".join(header.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise IdentityError("The Mdm-Signature header is not base64.") from error
    if not signature:
        raise IdentityError("The Mdm-Signature header is missing or empty.")
    return signature


def content_info(data: bytes, content_type: bytes) -> ber.Element:
    """Return what a ContentInfo of this type holds. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
    fields = ber.decode(data).expect(ber.SEQUENCE).children()
    if len(fields) != 2 or fields[0].expect(ber.OID).content != content_type:  # noqa: PLR2004 - type and content
        raise MalformedBodyError("CMS: another type of content.")
    return fields[1].expect(ber.context(0)).only_child()


def algorithm_oid(identifier: ber.Element) -> bytes:
    """Return an AlgorithmIdentifier's OBJECT IDENTIFIER; its parameters may be NULL or missing."""
    fields = identifier.expect(ber.SEQUENCE).children()
    if not fields:
        raise MalformedBodyError("CMS: an empty AlgorithmIdentifier.")
    return fields[0].expect(ber.OID).content


def _attributes(signed: ber.Element) -> dict[bytes, ber.Element]:
    attributes: dict[bytes, ber.Element] = {}
    for attribute in signed.children():
        kind, values = attribute.expect(ber.SEQUENCE).children()
        # A second value of the same type would leave open which of them was checked.
        if kind.expect(ber.OID).content in attributes:
            raise MalformedBodyError("CMS: a signed attribute occurs twice.")
        if len(children := values.expect(ber.SET).children()) == 1:
            attributes[kind.content] = children[0]
    return attributes


def _load_if_named(der: bytes, signer: SignerInfo) -> x509.Certificate | None:
    """Load the certificate if it is the signer's."""
    try:
        if signer.key_id is not None:
            certificate = x509.load_der_x509_certificate(der)
            extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
            return certificate if extension.value.key_identifier == signer.key_id else None
        encoding = encoding_of(der)
        if (encoding.issuer, encoding.serial_number) != (signer.issuer, signer.serial_number):
            return None
        return x509.load_der_x509_certificate(der)
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.InvalidVersion, UnsupportedAlgorithm, ValueError) as error:
        raise MalformedBodyError("CMS: a certificate that cannot be read.") from error
