"""The service's side: sessions, devices, profiles, as ``https://mdmenrollment.apple.com`` has them."""

import asyncio
import hashlib
import json
import secrets
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from local.ade.behaviour import Behaviour
from local.ade.devices import Catalogue, Cursor, Device, Server, rfc3339
from local.ade.errors import Refusal
from local.ade.oauth import OAuthError, Verifier
from local.ade.profiles import check_profile

SESSION_HEADER: Final = "X-ADM-Auth-Session"
VERSION_HEADER: Final = "X-Server-Protocol-Version"
NEWEST_VERSION: Final = 10
MAX_DEVICES: Final = 1_000

_JSON: Final = "application/json;charset=UTF8"
_DAY: Final = 86_400
_KEPT_REQUESTS: Final = 20_000
_RETRY_VERSION: Final = 10
_THROTTLED_VERSION: Final = 9
_ACCOUNT_VERSION: Final = 3

Answer = dict[str, Any]


class Service:
    """Routes of the service over a catalogue of servers and devices."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._verifier = Verifier()
        self.behaviour = Behaviour()
        self.requests: deque[dict[str, Any]] = deque(maxlen=_KEPT_REQUESTS)
        self.violations: list[dict[str, Any]] = []
        self._number = 0

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[self._serve], client_max_size=8 * 1024 * 1024)
        routes: list[tuple[str, str, Callable[[Server, dict[str, Any], int, web.Request], Answer]]] = [
            ("GET", "/account", self._account),
            ("POST", "/server/devices", self._fetch),
            ("POST", "/devices/sync", self._sync),
            ("POST", "/devices", self._details),
            ("POST", "/devices/disown", self._disown),
            ("POST", "/device/activationlock", self._lock),
            ("POST", "/profile", self._define),
            ("GET", "/profile", self._profile),
            ("PUT", "/profile/devices", self._assign),
            ("POST", "/profile/devices", self._assign),
            ("DELETE", "/profile/devices", self._clear),
            ("GET", "/account-driven-enrollment/profile", self._account_driven),
            ("POST", "/account-driven-enrollment/profile", self._set_account_driven),
            ("DELETE", "/account-driven-enrollment/profile", self._clear_account_driven),
            ("GET", "/os-beta-enrollment/tokens", self._beta_tokens),
        ]
        application.router.add_get("/session", self._session)
        for method, path, answer in routes:
            application.router.add_route(method, path, self._with_session(answer))
        return application

    @web.middleware
    async def _serve(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.behaviour.latency:
            await asyncio.sleep(self.behaviour.latency)
        try:
            _require_user_agent(request)
            response = await handler(request)
        except OAuthError as error:
            response = web.Response(status=error.status, text=f"oauth_problem_adv_{error.problem}")
        except Refusal as refusal:
            response = self._refused(refusal)
        except web.HTTPException as error:
            response = web.Response(status=error.status)
        self._number += 1
        self.requests.append(
            {
                "number": self._number,
                "method": request.method,
                "path": request.path,
                "status": response.status,
                "version": request.headers.get(VERSION_HEADER),
                "user_agent": request.headers.get("User-Agent"),
            }
        )
        return response

    def violate(self, what: str, request: web.Request) -> None:
        """Note what a client must not do, although it is answered."""
        self.violations.append({"violation": what, "method": request.method, "path": request.path})

    def _refused(self, refusal: Refusal) -> web.Response:
        text = {"bare": refusal.code, "quoted": json.dumps(refusal.code), "json": json.dumps({"code": refusal.code})}
        return web.Response(status=refusal.status, text=text[self.behaviour.error_form])

    async def _session(self, request: web.Request) -> web.Response:
        url = f"{request.scheme}://{request.host}{request.raw_path}"
        authorization = request.headers.get("Authorization")
        token = self._verifier.verify(request.method, url, authorization, self._catalogue.tokens)
        server = self._catalogue.server_of_token(token)
        if not server.terms_signed:
            raise Refusal("T_C_NOT_SIGNED", HTTPStatus.FORBIDDEN)
        return self._json({"auth_session_token": self._new_session(server)})

    def _new_session(self, server: Server) -> str:
        session = secrets.token_urlsafe(48)
        server.sessions[session] = time.time() + self.behaviour.session_seconds
        return session

    def _with_session(
        self, answer: Callable[[Server, dict[str, Any], int, web.Request], Answer]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            session = request.headers.get(SESSION_HEADER, "")
            server = self._server_of(session)
            early = self._trouble() if not self.behaviour.answer_after else None
            response = early or self._json(
                answer(server, await self._document(request), self._version(request), request)
            )
            late = self._trouble() if self.behaviour.answer_after else None
            if self.behaviour.rotate_sessions:
                (late or response).headers[SESSION_HEADER] = self._new_session(server)
                if self.behaviour.forget_rotated:
                    server.sessions.pop(session, None)
            return late or response

        return handle

    def _server_of(self, session: str) -> Server:
        if not session:
            raise Refusal("UNAUTHORIZED", HTTPStatus.UNAUTHORIZED)
        for server in self._catalogue.servers.values():
            if server.sessions.get(session, 0.0) > time.time():
                if not server.terms_signed:
                    raise Refusal("T_C_NOT_SIGNED", HTTPStatus.FORBIDDEN)
                return server
        status = HTTPStatus(self.behaviour.session_refusal)
        raise Refusal("UNAUTHORIZED" if status is HTTPStatus.UNAUTHORIZED else "FORBIDDEN", status)

    def _trouble(self) -> web.Response | None:
        behaviour = self.behaviour
        if behaviour.answer_status is None or not behaviour.answer_times:
            return None
        if behaviour.answer_skip:
            behaviour.answer_skip -= 1
            return None
        behaviour.answer_times -= 1
        response = self._refused(Refusal(behaviour.answer_code, HTTPStatus(behaviour.answer_status)))
        if behaviour.retry_after is not None:
            response.headers["Retry-After"] = str(behaviour.retry_after)
        return response

    def _version(self, request: web.Request) -> int:
        text = request.headers.get(VERSION_HEADER, "1")
        if not text.isdigit() or not 1 <= int(text) <= NEWEST_VERSION:
            raise Refusal("UNSUPPORTED_PROTOCOL_VERSION")
        return int(text)

    async def _document(self, request: web.Request) -> dict[str, Any]:
        if request.method == "GET":
            return {}
        body = await request.read()
        if not body and request.method == "DELETE":
            return {}
        if request.content_type != "application/json":
            self.violate(f"the body's type is {request.content_type}", request)
        try:
            document = json.loads(body)
        except ValueError:
            raise Refusal("MALFORMED_REQUEST_BODY") from None
        if not isinstance(document, dict):
            raise Refusal("MALFORMED_REQUEST_BODY")
        return document

    @staticmethod
    def _json(document: Answer) -> web.Response:
        return web.Response(body=json.dumps(document).encode(), headers={"Content-Type": _JSON})

    def _account(self, server: Server, _document: dict[str, Any], version: int, _request: web.Request) -> Answer:
        account = {
            "server_name": server.name,
            "server_uuid": server.uuid,
            "admin_id": "admin@example.org",
            "org_name": "Example Organization",
            "org_email": "it@example.org",
            "org_phone": "+1 408 555 0100",
            "org_address": "1 Example Way, Cupertino",
        }
        if version < _ACCOUNT_VERSION:
            return account
        limit = {"default": self.behaviour.default_limit, "maximum": MAX_DEVICES}
        return account | {
            "org_id": "1234567890",
            "org_id_hash": hashlib.sha256(b"1234567890").hexdigest(),
            "org_type": "org",
            "org_version": "v2",
            "urls": [
                {"uri": "/account", "http_method": ["GET"]},
                {"uri": "/server/devices", "http_method": ["POST"], "limit": limit},
                {"uri": "/devices/sync", "http_method": ["POST"], "limit": limit},
                {"uri": "/devices", "http_method": ["POST"], "limit": limit},
                {"uri": "/profile", "http_method": ["GET", "POST"], "limit": limit},
                {"uri": "/profile/devices", "http_method": ["POST", "DELETE"], "limit": limit},
            ],
        }

    def _fetch(self, server: Server, document: dict[str, Any], version: int, _request: web.Request) -> Answer:
        if document.get("cursor"):
            cursor = self._cursor(server, document)
            if cursor.fetched is None:
                raise Refusal("EXHAUSTED_CURSOR")
        else:
            cursor = server.begin()
        page, name, more = server.fetch(cursor, self._limit(document))
        return self._page([device.document(version) for device in page], name, more=more)

    def _sync(self, server: Server, document: dict[str, Any], version: int, request: web.Request) -> Answer:
        if not document.get("cursor"):
            raise Refusal("CURSOR_REQUIRED")
        cursor = self._cursor(server, document)
        if cursor.fetched is not None:
            self.violate("a sync before the fetch had come to its end", request)
        page, name, more = server.sync(cursor, self._limit(document))
        if self.behaviour.stuck_cursor:
            name, more = document["cursor"], True
        devices = [
            operation.device.document(version) | {"op_type": operation.kind, "op_date": rfc3339(operation.at)}
            for operation in page
        ]
        return self._page(devices, name, more=more)

    def _cursor(self, server: Server, document: dict[str, Any]) -> Cursor:
        cursor = server.cursors.get(document["cursor"]) if isinstance(document["cursor"], str) else None
        if cursor is None:
            raise Refusal("INVALID_CURSOR")
        if cursor.issued_at + self.behaviour.cursor_days * _DAY <= time.time():
            raise Refusal("EXPIRED_CURSOR")
        return cursor

    def _limit(self, document: dict[str, Any]) -> int:
        limit = document.get("limit", self.behaviour.default_limit)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise Refusal("MALFORMED_REQUEST_BODY")
        return min(limit, MAX_DEVICES)

    @staticmethod
    def _page(devices: list[dict[str, Any]], cursor: str, *, more: bool) -> Answer:
        return {"devices": devices, "cursor": cursor, "fetched_until": rfc3339(), "more_to_follow": more}

    def _serial_numbers(self, document: dict[str, Any], request: web.Request) -> list[str]:
        serial_numbers = document.get("devices")
        if not serial_numbers:
            raise Refusal("DEVICE_ID_REQUIRED")
        if not isinstance(serial_numbers, list) or not all(isinstance(each, str) for each in serial_numbers):
            raise Refusal("MALFORMED_REQUEST_BODY")
        if len(serial_numbers) > MAX_DEVICES:
            self.violate(f"{len(serial_numbers)} devices in one request", request)
            raise Refusal("MALFORMED_REQUEST_BODY")
        if len(set(serial_numbers)) < len(serial_numbers):
            self.violate("a device twice in one request", request)
        return serial_numbers

    def _details(self, server: Server, document: dict[str, Any], version: int, request: web.Request) -> Answer:
        return {
            "devices": {
                serial_number: server.devices[serial_number].document(version) | {"response_status": "SUCCESS"}
                if serial_number in server.devices
                else {"serial_number": serial_number, "response_status": self._why_not(serial_number)}
                for serial_number in self._serial_numbers(document, request)
            }
        }

    def _why_not(self, serial_number: str) -> str:
        return "NOT_ACCESSIBLE" if serial_number in self._catalogue.devices else "NOT_FOUND"

    def _disown(self, server: Server, document: dict[str, Any], _version: int, request: web.Request) -> Answer:
        statuses = {}
        for serial_number in self._serial_numbers(document, request):
            statuses[serial_number] = "SUCCESS" if serial_number in server.devices else "NOT_ACCESSIBLE"
            if serial_number in server.devices:
                server.remove(serial_number)
        return {"devices": statuses}

    def _lock(self, server: Server, document: dict[str, Any], _version: int, request: web.Request) -> Answer:
        serial_number = document.get("device")
        if not isinstance(serial_number, str) or not serial_number:
            raise Refusal("DEVICE_ID_REQUIRED")
        escrow_key = document.get("escrow_key")
        if escrow_key is not None and (not isinstance(escrow_key, str) or len(escrow_key) != 2 * 32):
            self.violate("an escrow key that is no SHA-256 in hex", request)
            raise Refusal("MALFORMED_REQUEST_BODY")
        if serial_number not in server.devices:
            return {"serial_number": serial_number, "response_status": "NOT_ACCESSIBLE"}
        device = server.devices[serial_number]
        device.activation_lock = {"escrow_key": escrow_key, "lost_message": document.get("lost_message")}
        return {"serial_number": serial_number, "response_status": "SUCCESS"}

    def _define(self, server: Server, document: dict[str, Any], version: int, _request: web.Request) -> Answer:
        check_profile(document)
        serial_numbers = document.pop("devices", [])
        profile_uuid = uuid.uuid4().hex.upper()
        server.profiles[profile_uuid] = document
        return {
            "profile_uuid": profile_uuid,
            "devices": {serial: self._assigned(server, serial, profile_uuid, version) for serial in serial_numbers},
        }

    def _profile(self, server: Server, _document: dict[str, Any], _version: int, request: web.Request) -> Answer:
        profile_uuid = request.query.get("profile_uuid")
        if not profile_uuid:
            raise Refusal("PROFILE_UUID_REQUIRED")
        if profile_uuid not in server.profiles:
            raise Refusal("NOT_FOUND", HTTPStatus.NOT_FOUND)
        return server.profiles[profile_uuid] | {"profile_uuid": profile_uuid}

    def _assign(self, server: Server, document: dict[str, Any], version: int, request: web.Request) -> Answer:
        profile_uuid = document.get("profile_uuid")
        if not profile_uuid:
            raise Refusal("PROFILE_UUID_REQUIRED")
        serial_numbers = self._serial_numbers(document, request)
        if profile_uuid not in server.profiles:
            raise Refusal("PROFILE_NOT_FOUND")
        statuses = {serial: self._assigned(server, serial, profile_uuid, version) for serial in serial_numbers}
        answer: Answer = {"profile_uuid": profile_uuid, "devices": statuses}
        if "THROTTLED" in statuses.values() and version >= _RETRY_VERSION:
            answer["retry_after_seconds"] = self.behaviour.retry_after_seconds
        return answer

    def _assigned(self, server: Server, serial_number: str, profile_uuid: str, version: int) -> str:
        if serial_number not in server.devices:
            return "NOT_ACCESSIBLE"
        if _counted_down(self.behaviour.throttled, serial_number):
            return "THROTTLED" if version >= _THROTTLED_VERSION else "FAILED"
        if _counted_down(self.behaviour.failing, serial_number):
            return "FAILED"
        server.devices[serial_number].assign(profile_uuid)
        return "SUCCESS"

    def _clear(self, server: Server, document: dict[str, Any], _version: int, request: web.Request) -> Answer:
        statuses = {}
        for serial_number in self._serial_numbers(document, request):
            statuses[serial_number] = "SUCCESS" if serial_number in server.devices else "NOT_ACCESSIBLE"
            if serial_number in server.devices:
                server.devices[serial_number].clear()
        return {"devices": statuses}

    def _account_driven(
        self, server: Server, _document: dict[str, Any], _version: int, _request: web.Request
    ) -> Answer:
        if server.account_driven_url is None:
            raise Refusal("NOT_FOUND", HTTPStatus.NOT_FOUND)
        return {"mdm_service_discovery_url": server.account_driven_url}

    def _set_account_driven(
        self, server: Server, document: dict[str, Any], _version: int, _request: web.Request
    ) -> Answer:
        url = document.get("mdm_service_discovery_url")
        if not url:
            raise Refusal("MDM_SERVICE_DISCOVERY_URL_REQUIRED")
        if not isinstance(url, str) or not url.startswith("https://"):
            raise Refusal("MDM_SERVICE_DISCOVERY_URL_NOT_VALID")
        server.account_driven_url = url
        return {}

    def _clear_account_driven(
        self, server: Server, _document: dict[str, Any], _version: int, _request: web.Request
    ) -> Answer:
        server.account_driven_url = None
        return {}

    def _beta_tokens(self, server: Server, _document: dict[str, Any], _version: int, _request: web.Request) -> Answer:
        token = {"token": f"beta-{server.uuid[:8]}", "title": "iOS Developer Beta", "os": "iOS"}
        return {"betaEnrollmentTokens": [token], "seedBuildTokens": []}

    def activate(self, device: Device) -> dict[str, Any] | None:
        """Return the profile that a device gets out of its box, and let it count as pushed."""
        server = self._catalogue.server_of(device.serial_number)
        profile_uuid = device.record.get("profile_uuid")
        if server is None or profile_uuid not in server.profiles:
            return None
        device.record |= {"profile_status": "pushed", "profile_push_time": rfc3339()}
        return server.profiles[profile_uuid] | {"profile_uuid": profile_uuid}


def _require_user_agent(request: web.Request) -> None:
    if not request.headers.get("User-Agent"):
        raise Refusal("USER_AGENT_MISSING")


def _counted_down(counters: dict[str, int], name: str) -> bool:
    if counters.get(name, 0) < 1:
        return False
    counters[name] -= 1
    return True
