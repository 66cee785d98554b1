"""PicoMDM's own API, ``/v2``: who may enroll, and what devices are handed for it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, page_asked_for, rfc3339
from mdmlib.services.enrollments import Page

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.ade_rules import AdeSerialNumbers, MinimumOsVersions
    from mdmlib.services.device_authorities import DeviceAuthorities, DeviceAuthorityInfo
    from mdmlib.store.tables import AdeSerialNumber, MinimumOsVersion

MAX_SERIAL_NUMBERS: Final = 1_000
"""In one request."""


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


# How things look


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
