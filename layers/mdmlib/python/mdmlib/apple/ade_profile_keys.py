"""The keys of a profile of ADE, each of its kind; :mod:`mdmlib.apple.ade_profile` says what may stand there."""

from collections.abc import Mapping
from typing import Final

FLAGS: Final = frozenset(
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
TEXTS: Final[Mapping[str, int]] = {
    "configuration_web_url": 2_000,
    "department": 125,
    "language": 3,
    "org_magic": 256,
    "profile_name": 125,
    "region": 2,
    "support_email_address": 250,
    "support_phone_number": 50,
    "url": 2_000,
}
"""Texts, and how many characters of each Apple takes."""
CERTIFICATES: Final = frozenset({"anchor_certs", "supervising_host_certs"})
KEYS: Final = frozenset({*FLAGS, *TEXTS, *CERTIFICATES, "skip_setup_items"})
"""What a stored profile may say. ``devices`` and ``profile_uuid`` are of one request, and of Apple's answer."""
