"""The control interface of the simulated service; the package's docstring describes it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from local.ade.behaviour import Behaviour
from local.ade.devices import FIELDS, Catalogue, Device, Server
from local.ade.portal import CertificateRefusedError, new_token, renewed, token_file
from local.ade.service import MAX_DEVICES, Service

_MAX_BUYING = 1_000_000


class Control:
    """Routes of the control interface over a service and its catalogue."""

    def __init__(self, service: Service, catalogue: Catalogue) -> None:
        self._service = service
        self._catalogue = catalogue

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[_errors_as_json], client_max_size=8 * 1024 * 1024)
        application.add_routes(
            [
                web.post("/servers", self.make_server),
                web.get("/servers/{name}", self.server),
                web.post("/servers/{name}/terms", self.terms),
                web.post("/servers/{name}/devices", self.buy),
                web.post("/servers/{name}/devices/modify", self.modify),
                web.post("/servers/{name}/devices/remove", self.remove),
                web.get("/devices/{serial}", self.device),
                web.post("/devices/{serial}/activate", self.activate),
                web.get("/behaviour", self.behaviour),
                web.put("/behaviour", self.behave),
                web.post("/sessions/expire", self.expire_sessions),
                web.post("/cursors/expire", self.expire_cursors),
                web.get("/requests", self.requests),
                web.get("/violations", self.violations),
                web.post("/reset", self.reset),
            ]
        )
        return application

    async def make_server(self, request: web.Request) -> web.Response:
        """Make a server, or renew its token."""
        document = await _document(request)
        days = float(document.get("days", 365))
        known = self._catalogue.servers.get(document["name"])
        token = renewed(known.token, days=days) if known else new_token(days=days)
        file = token_file(token, document["certificate"])
        if known:
            known.token = token
            known.sessions.clear()
        else:
            self._catalogue.servers[document["name"]] = Server(document["name"], token)
        return web.Response(body=file, status=201, content_type="application/pkcs7-mime")

    async def server(self, request: web.Request) -> web.Response:
        """Show a server."""
        server = self._server(request)
        return web.json_response(
            {
                "name": server.name,
                "server_uuid": server.uuid,
                "devices": len(server.devices),
                "profiles": server.profiles,
                "sessions": len(server.sessions),
                "fetches": server.fetches,
                "account_driven_url": server.account_driven_url,
            }
        )

    async def terms(self, request: web.Request) -> web.Response:
        """Accept terms, or have new ones to accept."""
        self._server(request).terms_signed = bool((await _document(request))["signed"])
        return web.Response(status=204)

    async def buy(self, request: web.Request) -> web.Response:
        """Buy devices, or move them there."""
        document = await _document(request)
        fields = {name: value for name, value in document.items() if name in FIELDS}
        serial_numbers = document.get("serial_numbers") or self._catalogue.next_serial_numbers(
            min(int(document["count"]), _MAX_BUYING)
        )
        bought = self._catalogue.buy(self._server(request), serial_numbers, fields)
        numbers = [device.serial_number for device in bought[:MAX_DEVICES]]
        return web.json_response({"serial_numbers": numbers}, status=201)

    async def modify(self, request: web.Request) -> web.Response:
        """Change what is known of devices."""
        server, document = self._server(request), await _document(request)
        fields = {name: value for name, value in document.items() if name in FIELDS}
        for serial_number in document["serial_numbers"]:
            server.modify(server.devices[serial_number], fields)
        return web.Response(status=204)

    async def remove(self, request: web.Request) -> web.Response:
        """Take devices away from a server."""
        server = self._server(request)
        for serial_number in (await _document(request))["serial_numbers"]:
            server.remove(serial_number)
        return web.Response(status=204)

    async def device(self, request: web.Request) -> web.Response:
        """Show a device."""
        device = self._device(request)
        server = self._catalogue.server_of(device.serial_number)
        profile = server.profiles.get(str(device.record.get("profile_uuid"))) if server else None
        return web.json_response(
            {
                "server": server.name if server else None,
                "profile": profile,
                "activation_lock": device.activation_lock,
                **device.record,
            }
        )

    async def activate(self, request: web.Request) -> web.Response:
        """Tell a device out of its box what to do."""
        profile = self._service.activate(self._device(request))
        return web.json_response(profile) if profile else web.Response(status=404)

    async def behaviour(self, _request: web.Request) -> web.Response:
        """Show what trouble is made."""
        return web.json_response(self._service.behaviour.document())

    async def behave(self, request: web.Request) -> web.Response:
        """Make trouble, or none."""
        self._service.behaviour = Behaviour.from_document(await _document(request))
        return web.Response(status=204)

    async def expire_sessions(self, _request: web.Request) -> web.Response:
        """End all sessions."""
        for server in self._catalogue.servers.values():
            server.sessions.clear()
        return web.Response(status=204)

    async def expire_cursors(self, _request: web.Request) -> web.Response:
        """End all cursors."""
        for server in self._catalogue.servers.values():
            for cursor in server.cursors.values():
                cursor.issued_at = 0.0
        return web.Response(status=204)

    async def requests(self, request: web.Request) -> web.Response:
        """List what was asked."""
        after = int(request.query.get("after", "0"))
        return web.json_response([each for each in self._service.requests if each["number"] > after])

    async def violations(self, _request: web.Request) -> web.Response:
        """List what must not be."""
        return web.json_response(self._service.violations)

    async def reset(self, _request: web.Request) -> web.Response:
        """Forget requests, violations and trouble."""
        self._service.requests.clear()
        self._service.violations.clear()
        self._service.behaviour = Behaviour()
        return web.Response(status=204)

    def _server(self, request: web.Request) -> Server:
        return self._catalogue.servers[request.match_info["name"]]

    def _device(self, request: web.Request) -> Device:
        return self._catalogue.devices[request.match_info["serial"]]


async def _document(request: web.Request) -> dict[str, Any]:
    document = await request.json()
    if not isinstance(document, dict):
        raise TypeError("send a JSON object")
    return cast("dict[str, Any]", document)


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except KeyError as error:
        return web.json_response({"error": f"missing or unknown: {error.args[0]}"}, status=404)
    except (ValueError, TypeError, json.JSONDecodeError, CertificateRefusedError) as error:
        return web.json_response({"error": str(error)}, status=400)
