"""The control interface of the simulated APNs; the package's docstring describes it."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, cast

from aiohttp import web

from local.apns.behaviour import Behaviour
from local.apns.devices import Device
from local.apns.portal import Authority
from local.apns.server import Service

_MAX_WAIT_SECONDS = 300.0


class Control:
    """Routes of the control interface over one :class:`~local.apns.server.Service`."""

    def __init__(self, service: Service, url: str) -> None:
        self._service = service
        self._url = url

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[_errors_as_json])
        application.add_routes(
            [
                web.post("/devices", self.register),
                web.get("/devices", self.devices),
                web.get("/devices/{token}", self.device),
                web.delete("/devices/{token}", self.remove),
                web.get("/devices/{token}/wait", self.wait),
                web.post("/devices/{token}/unregister", self.unregister),
                web.post("/certificates", self.issue),
                web.post("/certificates/revoke", self.revoke),
                web.get("/trust-anchor", self.trust_anchor),
                web.get("/pushes", self.pushes),
                web.get("/violations", self.violations),
                web.get("/status", self.status),
                web.get("/behaviour", self.behaviour),
                web.put("/behaviour", self.behave),
                web.post("/connections/{what}", self.disturb),
                web.post("/reset", self.reset),
            ]
        )
        return application

    async def register(self, request: web.Request) -> web.Response:
        """Register a device, or what changed about it."""
        document = await _document(request)
        device = self._service.devices.register(
            token=document["token"], topic=document["topic"], magic=document["magic"]
        )
        return web.json_response(device.document(), status=201)

    async def devices(self, _request: web.Request) -> web.Response:
        """List the devices."""
        return web.json_response([device.document() for device in self._service.devices.all()])

    async def device(self, request: web.Request) -> web.Response:
        """Show one device."""
        return web.json_response(self._device(request).document())

    async def remove(self, request: web.Request) -> web.Response:
        """Make the token one that never was."""
        self._service.devices.remove(self._device(request))
        return web.Response(status=204)

    async def wait(self, request: web.Request) -> web.Response:
        """Wait for a push."""
        device = self._device(request)
        push = await device.wait(min(float(request.query.get("timeout", "25")), _MAX_WAIT_SECONDS))
        if push is None:
            return web.Response(status=204)
        return web.json_response({"apns_id": push.apns_id, "received_at": push.received_at, "pushes": device.pushes})

    async def unregister(self, request: web.Request) -> web.Response:
        """Answer 410 for the device from now on."""
        document = await _document(request)
        self._service.devices.unregister(
            self._device(request),
            timestamp=document.get("timestamp"),
            reason=document.get("reason", "Unregistered"),
        )
        return web.Response(status=204)

    async def issue(self, request: web.Request) -> web.Response:
        """Issue a push certificate, as the portal does."""
        document = await _document(request)
        authority = Authority.new("Unknown Authority") if document.get("foreign") else self._service.portal.push
        pem = authority.issue_push(document["topic"], days=int(document.get("days", 365)))
        return web.Response(body=pem, status=201, content_type="application/x-pem-file")

    async def revoke(self, request: web.Request) -> web.Response:
        """Refuse what was issued for the topic until now."""
        document = await _document(request)
        self._service.revoke(document["topic"])
        return web.Response(status=204)

    async def trust_anchor(self, _request: web.Request) -> web.Response:
        """Return the CA that a provider shall trust."""
        return web.Response(body=self._service.portal.servers.certificate_pem, content_type="application/x-pem-file")

    async def pushes(self, request: web.Request) -> web.Response:
        """List what was asked and answered."""
        after = int(request.query.get("after", "0"))
        return web.json_response([push for push in self._service.pushes if push["number"] > after])

    async def violations(self, _request: web.Request) -> web.Response:
        """List what must not be."""
        return web.json_response(list(self._service.violations))

    async def status(self, _request: web.Request) -> web.Response:
        """Show the counters."""
        return web.json_response(
            {
                "url": self._url,
                "connections": len(self._service.connections),
                "connections_made": self._service.connections_made,
                "pushes": self._service.pushes_made,
                "peak_streams": self._service.peak_streams,
            }
        )

    async def behaviour(self, _request: web.Request) -> web.Response:
        """Show the trouble that is being made, with what is left of it."""
        return web.json_response(asdict(self._service.behaviour))

    async def behave(self, request: web.Request) -> web.Response:
        """Make trouble."""
        self._service.behaviour = Behaviour.from_document(await _document(request))
        return web.Response(status=204)

    async def disturb(self, request: web.Request) -> web.Response:
        """Disturb all connections."""
        connections = list(self._service.connections)
        match request.match_info["what"]:
            case "goaway":
                for connection in connections:
                    connection.go_away("Shutdown")
            case "cut":
                for connection in connections:
                    connection.cut()
            case "freeze":
                for connection in connections:
                    connection.freeze()
            case _:
                raise web.HTTPNotFound
        return web.json_response({"connections": len(connections)})

    async def reset(self, _request: web.Request) -> web.Response:
        """Forget what was seen and behave again."""
        self._service.reset()
        return web.Response(status=204)

    def _device(self, request: web.Request) -> Device:
        device = self._service.devices.get(request.match_info["token"].lower())
        if device is None:
            raise web.HTTPNotFound(text="no such device")
        return device


async def _document(request: web.Request) -> dict[str, Any]:
    body = await request.read()
    document = json.loads(body or b"{}")
    if not isinstance(document, dict):
        raise TypeError("not a JSON object")
    return cast("dict[str, Any]", document)


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (KeyError, TypeError, ValueError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
