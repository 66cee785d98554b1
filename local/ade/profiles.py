"""What Apple demands of a profile before a server may define it."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from local.ade.errors import Refusal

_BOOLEANS: Final = frozenset(
    {
        "allow_pairing",
        "auto_advance_setup",
        "await_device_configured",
        "do_not_use_profile_from_backup",
        "is_mandatory",
        "is_mdm_removable",
        "is_multi_user",
        "is_return_to_service",
        "is_supervised",
    }
)
_TEXTS: Final = {
    "configuration_web_url": (2_000, "CONFIG_URL_INVALID"),
    "department": (125, "DEPARTMENT_INVALID"),
    "language": (3, "LANGUAGE_INVALID"),
    "org_magic": (256, "MAGIC_INVALID"),
    "profile_name": (125, "CONFIG_NAME_INVALID"),
    "region": (2, "REGION_INVALID"),
    "support_email_address": (250, "SUPPORT_EMAIL_INVALID"),
    "support_phone_number": (50, "SUPPORT_PHONE_INVALID"),
    "url": (2_000, "CONFIG_URL_INVALID"),
}
_CERTIFICATES: Final = frozenset({"anchor_certs", "supervising_host_certs"})
_LISTS: Final = frozenset({"devices", "skip_setup_items"}) | _CERTIFICATES


def check_profile(profile: Mapping[str, Any]) -> None:
    """Raise :class:`~local.ade.errors.Refusal` for a profile that cannot be defined."""
    _check_types(profile)
    _check_texts(profile)
    if not profile.get("is_mdm_removable", True) and not profile.get("is_supervised"):
        raise Refusal("FLAGS_INVALID")
    for name in _CERTIFICATES & profile.keys():
        for entry in profile[name]:
            _check_certificate(entry)


def _check_types(profile: Mapping[str, Any]) -> None:
    known = not profile.keys() - _BOOLEANS - _TEXTS.keys() - _LISTS
    booleans = all(isinstance(profile[name], bool) for name in _BOOLEANS & profile.keys())
    lists = [profile[name] for name in _LISTS & profile.keys()]
    texts = all(isinstance(each, list) and all(isinstance(entry, str) for entry in each) for each in lists)
    if not (known and booleans and texts):
        raise Refusal("MALFORMED_REQUEST_BODY")


def _check_texts(profile: Mapping[str, Any]) -> None:
    required = {"profile_name": "CONFIG_NAME_REQUIRED", "url": "CONFIG_URL_REQUIRED", "org_magic": "MAGIC_INVALID"}
    for name, code in required.items():
        if not profile.get(name):
            raise Refusal(code)
    for name, (most, code) in _TEXTS.items():
        if name in profile and not (isinstance(profile[name], str) and 0 < len(profile[name]) <= most):
            raise Refusal(code)
    for name in ("url", "configuration_web_url"):
        if name in profile and (urlsplit(profile[name]).scheme != "https" or not urlsplit(profile[name]).hostname):
            raise Refusal("CONFIG_URL_INVALID")
    if "@" not in profile.get("support_email_address", "@"):
        raise Refusal("SUPPORT_EMAIL_INVALID")


def _check_certificate(entry: str) -> None:
    try:
        x509.load_der_x509_certificate(base64.b64decode(entry, validate=True))
    except (ValueError, binascii.Error) as error:
        raise Refusal("MALFORMED_REQUEST_BODY") from error
