"""PicoMDM's own API, ``/v2``: who may enroll, and what devices are handed for it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import fields as dataclass_fields
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.enrollment_profile import (
    ACCESS_RIGHTS,
    KEY_SIZES,
    SERVER_CAPABILITIES,
    EnrollmentMode,
    ProfileOptions,
    check_access_rights,
)
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import MAX_SERIAL_NUMBERS, listed, page_asked_for, rfc3339
from mdmlib.services.account_driven_enrollment import METHODS, MODEL_FAMILIES, SignInOptions
from mdmlib.services.enrollments import Page
from mdmlib.store.unchanged import OnlyIf

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.account_driven_enrollment import AccountDrivenEnrollment
    from mdmlib.services.ade_rules import AdeSerialNumbers, MinimumOsVersions
    from mdmlib.services.device_authorities import DeviceAuthorities, DeviceAuthorityInfo
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles, ProfileDesign
    from mdmlib.store.tables import AdeSerialNumber, MinimumOsVersion

_MODES: Final = {"user": EnrollmentMode.USER, "device": EnrollmentMode.DEVICE}
_SIGN_IN_FIELDS: Final = (
    "issuer",
    "audiences",
    "method",
    "sign_in_url",
    "client_id",
    "scope",
    "account_claim",
    "domains",
    "mode",
    "mode_by_model_family",
)

_PROFILE_FIELDS: Final = (*(field.name for field in dataclass_fields(ProfileOptions)), "topic")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*", re.ASCII)
_MAX_IDENTIFIER: Final = 128
_MAX_ORGANIZATION: Final = 64
"""It goes into certificates, where X.520 allows no more."""
_MAX_PEM: Final = 50_000


# Enrollment profile


def put_enrollment_profile(request: AdminRequest, profiles: "EnrollmentProfiles") -> "Response[str]":
    """``PUT /v2/enrollment-profile``: how enrollment profiles look; what is left away is as it was at first.

    The template and the signing identity stay. Profiles that were handed out before stay as they are.
    """
    Fields(request.query, known=())
    fields = Fields(request.json(), known=_PROFILE_FIELDS)
    design = profiles.set_options(
        _options(fields), topic=fields.text("topic"), only_if=seen(request, _enrollment_profile)
    )
    return answer_v2(HTTPStatus.OK, _enrollment_profile(design))


def get_enrollment_profile(request: AdminRequest, profiles: "EnrollmentProfiles") -> "Response[str]":
    """``GET /v2/enrollment-profile``: how enrollment profiles look; null is what the deployment is called."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _enrollment_profile(profiles.design()))


def put_profile_template(request: AdminRequest, profiles: "EnrollmentProfiles") -> "Response[str]":
    """``PUT /v2/enrollment-profile/template``: make profiles from this ``.mobileconfig``, the body."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _enrollment_profile(profiles.upload_template(request.body)))


def delete_profile_template(profiles: "EnrollmentProfiles") -> "Response[str]":
    """``DELETE /v2/enrollment-profile/template``: make profiles from the options again."""
    profiles.remove_template()
    return no_content()


def put_signing_identity(request: AdminRequest, profiles: "EnrollmentProfiles") -> "Response[str]":
    """``PUT /v2/enrollment-profile/signing-identity``: sign profiles with the certificate and key of the body, PEM."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _enrollment_profile(profiles.upload_signing_identity(request.body)))


def delete_signing_identity(profiles: "EnrollmentProfiles") -> "Response[str]":
    """``DELETE /v2/enrollment-profile/signing-identity``: sign profiles no more."""
    profiles.remove_signing_identity()
    return no_content()


def _options(fields: Fields) -> ProfileOptions:
    defaults = ProfileOptions()
    identifier = fields.text("identifier", longest=_MAX_IDENTIFIER) or defaults.identifier
    if not _IDENTIFIER.fullmatch(identifier):
        raise BadRequestError(
            "identifier has letters, digits, dots and dashes.", code="invalid_field", field="identifier"
        )
    key_size = fields.integer("key_size", least=min(KEY_SIZES), most=max(KEY_SIZES)) or defaults.key_size
    if key_size not in KEY_SIZES:
        raise BadRequestError(
            f"key_size has to be one of {', '.join(map(str, KEY_SIZES))}.", code="invalid_field", field="key_size"
        )
    access_rights = fields.integer("access_rights", least=1, most=ACCESS_RIGHTS) or defaults.access_rights
    check_access_rights(access_rights, name="access_rights")
    capabilities = fields.texts("server_capabilities", choices=SERVER_CAPABILITIES)
    return ProfileOptions(
        identifier=identifier,
        organization=fields.text("organization", longest=_MAX_ORGANIZATION),
        display_name=fields.text("display_name"),
        description=fields.text("description"),
        access_rights=access_rights,
        server_capabilities=defaults.server_capabilities
        if capabilities is None
        else tuple(dict.fromkeys(capabilities)),
        key_size=key_size,
        trust_certificates=_certificates(fields.text("trust_certificates", longest=_MAX_PEM), "trust_certificates"),
    )


def _certificates(pem: str | None, name: str) -> tuple[bytes, ...]:
    if pem is None:
        return ()
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError) as error:
        raise BadRequestError(
            f"{name} has to be certificates in PEM, one after the other.", code="invalid_field", field=name
        ) from error


# Device authorities


def put_device_authority(name: str, request: AdminRequest, authorities: "DeviceAuthorities") -> "Response[str]":
    """``PUT /v2/device-certificate-authorities/{name}``: trust devices whose built-in certificate is of this authority.

    The body is its certificate, PEM or DER.
    """
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _device_authority(authorities.upload(name, request.body)))


def list_device_authorities(request: AdminRequest, authorities: "DeviceAuthorities") -> "Response[str]":
    """``GET /v2/device-certificate-authorities``: whose devices are trusted. Without any, nobody enrolls by ADE."""
    Fields(request.query, known=())
    return answer_v2(
        HTTPStatus.OK, listed("device_certificate_authorities", Page(authorities.list()), _device_authority)
    )


def delete_device_authority(name: str, authorities: "DeviceAuthorities") -> "Response[str]":
    """``DELETE /v2/device-certificate-authorities/{name}``: trust it no more. Who enrolled stays enrolled."""
    authorities.delete(name)
    return no_content()


# Automated Device Enrollment


def add_ade_serial_numbers(request: AdminRequest, serial_numbers: "AdeSerialNumbers") -> "Response[str]":
    """``POST /v2/ade-serial-numbers``: let these devices enroll by ADE, and no others but those of the list."""
    fields = Fields(request.json(), known=("serial_numbers", "note"))
    asked = fields.texts("serial_numbers", most=MAX_SERIAL_NUMBERS)
    if not asked:
        raise BadRequestError("serial_numbers is missing.", code="missing_field", field="serial_numbers")
    added = serial_numbers.add(asked, note=fields.text("note"))
    return answer_v2(HTTPStatus.CREATED, listed("ade_serial_numbers", Page(added), _ade_serial_number))


def list_ade_serial_numbers(request: AdminRequest, serial_numbers: "AdeSerialNumbers") -> "Response[str]":
    """``GET /v2/ade-serial-numbers``: the devices that may enroll by ADE; none: every genuine one."""
    limit, after = page_asked_for(Fields(request.query, known=("limit", "cursor")))
    found, next_cursor = serial_numbers.list(limit=limit, after=after)
    return answer_v2(HTTPStatus.OK, listed("ade_serial_numbers", Page(found, next_cursor), _ade_serial_number))


def remove_ade_serial_number(serial_number: str, serial_numbers: "AdeSerialNumbers") -> "Response[str]":
    """``DELETE /v2/ade-serial-numbers/{serial_number}``: take a device out of the list."""
    serial_numbers.remove(serial_number)
    return no_content()


def put_minimum_os_version(platform: str, request: AdminRequest, versions: "MinimumOsVersions") -> "Response[str]":
    """``PUT /v2/minimum-os-versions/{platform}``: what a device has to run before it may enroll by ADE."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("os_version", "build_version"))
    version = versions.set(
        platform, fields.required_text("os_version", longest=40), build_version=fields.text("build_version", longest=40)
    )
    return answer_v2(HTTPStatus.OK, _minimum_os_version(version))


def list_minimum_os_versions(request: AdminRequest, versions: "MinimumOsVersions") -> "Response[str]":
    """``GET /v2/minimum-os-versions``: what devices have to run, by platform."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("minimum_os_versions", Page(versions.list()), _minimum_os_version))


def remove_minimum_os_version(platform: str, versions: "MinimumOsVersions") -> "Response[str]":
    """``DELETE /v2/minimum-os-versions/{platform}``: let devices of a platform enroll with any OS."""
    versions.remove(platform)
    return no_content()


# Account-driven enrollment


def put_account_driven_enrollment(request: AdminRequest, enrollment: "AccountDrivenEnrollment") -> "Response[str]":
    """``PUT /v2/account-driven-enrollment``: let people enroll by signing in at an OpenID Connect issuer."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=_SIGN_IN_FIELDS)
    audiences = fields.texts("audiences")
    if not audiences:
        raise BadRequestError("audiences is missing.", code="missing_field", field="audiences")
    options = SignInOptions(
        issuer=fields.required_text("issuer"),
        audiences=audiences,
        method=_choice(fields, "method", METHODS) or METHODS[0],
        sign_in_url=fields.text("sign_in_url"),
        client_id=fields.text("client_id"),
        scope=fields.text("scope"),
        account_claim=fields.text("account_claim") or SignInOptions.account_claim,
        domains=[domain.lower() for domain in fields.texts("domains") or ()],
        mode=_MODES[_choice(fields, "mode", _MODES) or "user"],
        mode_by_model_family=_modes_by_model_family(request.json().get("mode_by_model_family")),
    )
    complete = enrollment.set_options(options, only_if=_signed_in_as_seen(request))
    return answer_v2(HTTPStatus.OK, _account_driven_enrollment(complete))


def get_account_driven_enrollment(request: AdminRequest, enrollment: "AccountDrivenEnrollment") -> "Response[str]":
    """``GET /v2/account-driven-enrollment``: who may enroll by signing in. 404 where nobody may."""
    Fields(request.query, known=())
    options = enrollment.options()
    if options is None:
        raise NotFoundError("Nobody enrolls by signing in here.", code="account_driven_enrollment_off")
    return answer_v2(HTTPStatus.OK, _account_driven_enrollment(options))


def delete_account_driven_enrollment(request: AdminRequest, enrollment: "AccountDrivenEnrollment") -> "Response[str]":
    """``DELETE /v2/account-driven-enrollment``: let nobody enroll by signing in. Who did so stays enrolled."""
    enrollment.remove(only_if=_signed_in_as_seen(request))
    return no_content()


def _signed_in_as_seen(request: AdminRequest) -> OnlyIf[SignInOptions | None] | None:
    return seen(request, lambda options: _account_driven_enrollment(options) if options else None)


def _choice(fields: Fields, name: str, choices: Collection[str]) -> str | None:
    value = fields.text(name)
    if value is not None and value not in choices:
        raise BadRequestError(f"{name} has to be one of {', '.join(choices)}.", code="invalid_field", field=name)
    return value


def _modes_by_model_family(value: object) -> dict[str, EnrollmentMode]:
    name = "mode_by_model_family"
    if value is None:
        return {}
    # A value may be an object, which has no hash.
    if not isinstance(value, dict) or not all(
        family in MODEL_FAMILIES and mode in list(_MODES) for family, mode in value.items()
    ):
        raise BadRequestError(
            f"{name} has to be an object of {', '.join(MODEL_FAMILIES)}, each with {' or '.join(_MODES)}.",
            code="invalid_field",
            field=name,
        )
    return {family: _MODES[mode] for family, mode in value.items()}


# How things look


def _enrollment_profile(design: "ProfileDesign") -> Mapping[str, Any]:
    options = design.options
    pem = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in options.trust_certificates]
    signing = design.signing
    return {
        "identifier": options.identifier,
        "organization": options.organization,
        "display_name": options.display_name,
        "description": options.description,
        "access_rights": options.access_rights,
        "server_capabilities": list(options.server_capabilities),
        "key_size": options.key_size,
        "trust_certificates": b"".join(pem).decode() or None,
        "topic": design.topic,
        "template": {"uploaded_at": rfc3339(design.template_uploaded_at)} if design.template else None,
        "signing_identity": {
            "subject": signing.certificate.subject.rfc4514_string(),
            "not_after": rfc3339(signing.not_after.timestamp()),
        }
        if signing
        else None,
    }


def _account_driven_enrollment(options: SignInOptions) -> Mapping[str, Any]:
    words = {mode: word for word, mode in _MODES.items()}
    return {
        "issuer": options.issuer,
        "audiences": list(options.audiences),
        "method": options.method,
        "sign_in_url": options.sign_in_url,
        "client_id": options.client_id,
        "scope": options.scope,
        "account_claim": options.account_claim,
        "domains": list(options.domains),
        "mode": words[options.mode],
        "mode_by_model_family": {family: words[mode] for family, mode in options.mode_by_model_family.items()},
    }


def _device_authority(info: "DeviceAuthorityInfo") -> Mapping[str, Any]:
    return {
        "name": info.name,
        "subject": info.subject,
        "not_after": rfc3339(info.not_after.timestamp()),
        "sha256": info.sha256,
        "uploaded_at": rfc3339(info.uploaded_at),
    }


def _ade_serial_number(item: "AdeSerialNumber") -> Mapping[str, Any]:
    return {"serial_number": item.name, "note": item.note, "added_at": rfc3339(item.added_at)}


def _minimum_os_version(item: "MinimumOsVersion") -> Mapping[str, Any]:
    return {"platform": item.name, "os_version": item.os_version, "build_version": item.build_version}
