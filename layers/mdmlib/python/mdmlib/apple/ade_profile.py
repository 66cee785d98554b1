"""Profiles of ADE: what a device is told by Apple when it is switched on for the first time.

Apple's page: https://developer.apple.com/documentation/devicemanagement/profile. What Apple would refuse, or silently
make nothing of, is refused here, with the field's name. False stays false: ``allow_pairing`` is true where it is
missing.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.ade_profile_keys import CERTIFICATES, FLAGS, KEYS, TEXTS
from mdmlib.apple.skip_items import check_skip_item
from mdmlib.errors import BadRequestError

_MOST_CERTIFICATES: Final = 50
_MOST_CERTIFICATE: Final = 20_000
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_REGION: Final = re.compile(r"[A-Z]{2}")


def checked_profile(document: Mapping[str, Any], *, unknown_skip_items: bool = False) -> dict[str, Any]:
    """Return what a profile says, in Apple's form: certificates may also be PEM; null and "" are left out.

    With ``unknown_skip_items`` names are taken that Apple's list does not have, for a release that is newer than ours.
    Raises :class:`~mdmlib.errors.BadRequestError` with ``field``.
    """
    checked: dict[str, Any] = {}
    for name, value in document.items():
        if name not in KEYS:
            raise BadRequestError(
                f"{name[:64]!r} is no key of a profile; known: {', '.join(sorted(KEYS))}.",
                code="unknown_field",
                field=name[:64],
            )
        if value is None or value == "":
            continue
        if name in FLAGS:
            checked[name] = _flag(name, value)
        elif name in TEXTS:
            checked[name] = _text(name, value)
        elif name in CERTIFICATES:
            checked[name] = [_certificate(name, each) for each in _list(name, value, most=_MOST_CERTIFICATES)]
        else:
            checked[name] = list(dict.fromkeys(_list(name, value, most=len(KEYS) * 10)))
            for item in checked[name] if not unknown_skip_items else ():
                check_skip_item(item)
    return checked


def complete_profile(said: Mapping[str, Any], *, name: str, url: str, org_magic: str) -> dict[str, Any]:
    """Return the profile to define at Apple: what was said, and what it takes for the rest.

    Supervised and mandatory unless it says otherwise, as all devices of today are anyway. Raises
    :class:`~mdmlib.errors.BadRequestError` for what contradicts itself.
    """
    profile = {
        "profile_name": name,
        "url": url,
        "org_magic": org_magic,
        "is_supervised": True,
        "is_mandatory": True,
        "is_mdm_removable": True,
        **said,
    }
    if not profile["is_mdm_removable"] and not profile["is_supervised"]:
        raise _invalid("is_mdm_removable", "true where is_supervised is false")
    return profile


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _invalid(name, "true or false")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXTS[name]:
        raise _invalid(name, f"a text of at most {TEXTS[name]} characters")
    if name in {"url", "configuration_web_url"} and not _is_https(value):
        raise _invalid(name, "a URL that begins with https://")
    if name == "language" and not _LANGUAGE.fullmatch(value):
        raise _invalid(name, "a language of ISO 639, such as en")
    if name == "region" and not _REGION.fullmatch(value):
        raise _invalid(name, "a country of ISO 3166, such as US")
    if name == "support_email_address" and "@" not in value:
        raise _invalid(name, "an e-mail address")
    return value


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and url.isprintable() and " " not in url


def _list(name: str, value: object, *, most: int) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value) or len(value) > most:
        raise _invalid(name, f"a list of at most {most} texts")
    return value


def _certificate(name: str, text: str) -> str:
    """Return a certificate as Apple takes it: DER in base64."""
    if len(text) > _MOST_CERTIFICATE:
        raise _invalid(name, "a list of certificates; one of these is too long")
    try:
        if text.lstrip().startswith("-----BEGIN"):
            certificate = x509.load_pem_x509_certificate(text.encode())
        else:
            certificate = x509.load_der_x509_certificate(b64decode("".join(text.split()), validate=True))
    except (ValueError, binascii.Error) as error:
        raise _invalid(name, "a list of certificates, each PEM, or DER in base64") from error
    return b64encode(certificate.public_bytes(Encoding.DER)).decode()


def _invalid(name: str, expectation: str) -> BadRequestError:
    return BadRequestError(f"{name} has to be {expectation}.", code="invalid_field", field=name)
