"""What the simulated service keeps from one run to the next: everything but sessions, as a JSON document."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local.ade.devices import Catalogue, Cursor, Device, Operation, Server
from local.ade.oauth import Token


def load(file: Path) -> Catalogue:
    """Return the catalogue that :func:`save` wrote, or an empty one."""
    catalogue = Catalogue()
    if file.exists():
        document = json.loads(file.read_text())
        catalogue.bought = document["bought"]
        for each in document["devices"]:
            catalogue.devices[each["serial_number"]] = Device(**each)
        for each in document["servers"]:
            catalogue.servers[each["name"]] = _server(each, catalogue.devices)
    return catalogue


def save(catalogue: Catalogue, file: Path) -> None:
    """Write a catalogue, for nobody else to read."""
    document = {
        "bought": catalogue.bought,
        "devices": [asdict(device) for device in catalogue.devices.values()],
        "servers": [_document(server) for server in catalogue.servers.values()],
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps(document))


def _document(server: Server) -> dict[str, Any]:
    return {
        "name": server.name,
        "token": asdict(server.token),
        "uuid": server.uuid,
        "terms_signed": server.terms_signed,
        "profiles": server.profiles,
        "account_driven_url": server.account_driven_url,
        "fetches": server.fetches,
        "cursors": {name: asdict(cursor) for name, cursor in server.cursors.items()},
        "devices": list(server.devices),
        "order": server.order,
        "operations": [[each.kind, each.device.serial_number, each.at] for each in server.operations],
    }


def _server(document: dict[str, Any], devices: dict[str, Device]) -> Server:
    return Server(
        **{
            **document,
            "token": Token(**document["token"]),
            "cursors": {name: Cursor(**cursor) for name, cursor in document["cursors"].items()},
            "devices": {serial: devices[serial] for serial in document["devices"]},
            "operations": [Operation(kind, devices[serial], at) for kind, serial, at in document["operations"]],
        }
    )
