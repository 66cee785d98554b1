"""The ways in which a device comes by its enrollment profile."""

import base64
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Final

import httpx

from local.device.account import AccountSignIn, Challenge, Grant, Service
from local.device.cms import Identity
from local.device.errors import ProtocolViolation
from local.device.hardware import Hardware
from local.device.identities import Identities
from local.device.instructions import refusal_before_enrollment
from local.device.machine_info import (
    HEADER,
    SIGNED,
    MachineInfoForm,
    anonymous_machine_info,
    asked_attributes,
    machine_info,
)
from local.device.ota import ProfileService, identity_settings
from local.device.profile import EnrollmentProfile
from local.device.state import DeviceState
from local.device.web_session import Person
from local.device.wire import Wire, must_be_ok

PROFILE: Final = "application/x-apple-aspen-config"
_CLIENT: Final = "DeviceManagementClient/1.0"


class ProfileSources:
    """Gets profiles and checks them.

    ``built_in`` is the identity that the device left the factory with. All raise what
    :class:`~local.device.wire.Wire` and the checks raise, and what the server tells a device before it may enroll
    (:func:`~local.device.instructions.refusal_before_enrollment`).
    """

    def __init__(
        self,
        wire: Wire,
        hardware: Hardware,
        identities: Identities,
        *,
        accounts: AccountSignIn,
        built_in: Identity | None,
        form: MachineInfoForm,
        now: Callable[[], datetime],
    ) -> None:
        self._wire = wire
        self._hardware = hardware
        self._identities = identities
        self._accounts = accounts
        self._built_in = built_in
        self._form = form
        self._now = now

    def download(self, url: str) -> EnrollmentProfile:
        """Open a link in the browser."""
        response = must_be_ok(self._wire.send("GET", url, what="profile"), "profile")
        return EnrollmentProfile.decode(profile_in(response))

    def by_ade(self, url: str) -> EnrollmentProfile:
        """Ask where Apple's list of devices says (ADE: ``url`` of its profile), in Setup Assistant."""
        signed = self._signed_machine_info(can_update=True)
        response = self._wire.send("POST", url, what="MachineInfo", body=signed, headers={"Content-Type": SIGNED})
        return EnrollmentProfile.decode(self._profile_for(response, can_update=True))

    def by_web_view(self, url: str) -> EnrollmentProfile:
        """Ask at the end of a web page that ADE shows (``configuration_web_url``), where a header says who asks."""
        header = base64.b64encode(self._signed_machine_info(can_update=True)).decode("ascii")
        response = self._wire.send("GET", url, what="profile", headers={HEADER: header})
        return EnrollmentProfile.decode(self._profile_for(response, can_update=True))

    def over_the_air(self, url: str, state: DeviceState) -> EnrollmentProfile:
        """Open a link to a Profile Service, and go through its phases."""
        response = must_be_ok(self._wire.send("GET", url, what="profile service"), "profile service")
        service = ProfileService.decode(profile_in(response))
        told = service.told(asked_attributes(self._hardware, state, service.attributes))
        body = self._tell(service.url, self._form.sign(told, self._built_in, at=self._now()), "OTA phase 2")
        if settings := identity_settings(body):
            identity = self._identities.enroll(settings, state)
            body = self._tell(service.url, self._form.sign(told, identity, at=self._now()), "OTA phase 3")
        return EnrollmentProfile.decode(body)

    def with_account(self, user_identifier: str, person: Person) -> tuple[EnrollmentProfile, Grant]:
        """Find the server of an account, let a person sign in, and get the profile that is theirs."""
        service = self._accounts.discover(user_identifier, self._hardware.model_family)
        body = self._form.sign(anonymous_machine_info(self._hardware), self._built_in, at=self._now())
        first = self._ask_for_account(service, body)
        if first.status_code not in {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}:
            raise refusal_before_enrollment(first, "MachineInfo", self._hardware, can_update=False)
        grant = self._accounts.sign_in(Challenge.of(first), user_identifier, person)
        response = self._ask_for_account(service, body, access_token=grant.access_token)
        profile = self._profile_for(response, can_update=False)
        return EnrollmentProfile.decode(profile, mode=service.mode), grant

    def _ask_for_account(self, service: Service, body: bytes, *, access_token: str | None = None) -> httpx.Response:
        headers = {"Content-Type": SIGNED, "User-Agent": _CLIENT}
        if access_token is not None:
            headers["Authorization"] = f"Bearer {access_token}"
        return self._wire.send("POST", service.base_url, what="MachineInfo", body=body, headers=headers)

    def _tell(self, url: str, signed: bytes, what: str) -> bytes:
        response = self._wire.send("POST", url, what=what, body=signed, headers={"Content-Type": SIGNED})
        return self._profile_for(response, can_update=False, what=what)

    def _signed_machine_info(self, *, can_update: bool) -> bytes:
        can_update = can_update and self._hardware.knows_update_required
        told = machine_info(self._hardware, can_update=can_update)
        return self._form.sign(told, self._built_in, at=self._now())

    def _profile_for(self, response: httpx.Response, *, can_update: bool, what: str = "MachineInfo") -> bytes:
        if response.status_code != HTTPStatus.OK:
            can_update = can_update and self._hardware.knows_update_required
            raise refusal_before_enrollment(response, what, self._hardware, can_update=can_update)
        return profile_in(response)


def profile_in(response: httpx.Response) -> bytes:
    """Return the profile that a response brings. Raises :class:`~local.device.errors.ProtocolViolation`."""
    content_type = response.headers.get("content-type", "")
    if content_type != PROFILE:
        raise ProtocolViolation("Content-Type", f"That of the profile is {content_type!r}, not {PROFILE!r}.")
    return response.content
