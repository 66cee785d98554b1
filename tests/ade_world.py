"""A server of Apple's simulated portal, and what reads its list of devices here."""

import os
import uuid
from dataclasses import dataclass, field

from local.ade.client import AdeSimulator
from local.emulator import Emulator
from mdmlib.apple.ade_token import open_token_file
from mdmlib.clients.ade import AdeClient
from mdmlib.errors import AppleRefusedError, NotFoundError
from mdmlib.services.ade_assignment_rules import AdeAssignmentRules, Rule
from mdmlib.services.ade_sync import AdeSyncs
from mdmlib.services.events import EventPublisher
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.ade_devices import AdeDeviceStore
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer
from tests.ade_token import ServerKey
from tests.deployment import Clock
from tests.fleet import Bus

KEY = ServerKey.new()
PROFILE = {"profile_name": "Pupils", "url": "https://mdm.example.org/mdm/enroll", "org_magic": "1"}


@dataclass
class AdeWorld:
    """Servers by their names here; those at the simulator are called anew for each test.

    ``profiles`` has Apple's UUIDs by server and name, as whoever defines profiles would know them.
    """

    simulator: AdeSimulator
    emulator: Emulator
    settings: Settings
    sealer: Sealer
    clock: Clock
    page: int = 3
    clients: dict[str, AdeClient] = field(default_factory=dict)
    made: list[AdeClient] = field(default_factory=list)
    at_apple: dict[str, str] = field(default_factory=dict)
    profiles: dict[tuple[str, str], str] = field(default_factory=dict)
    asked_for: list[str] = field(default_factory=list)
    """Runs that somebody wants."""
    seconds_left: float = 300

    def __post_init__(self) -> None:
        self.bus = Bus(self.emulator, self.settings.event_bus)
        self.control = self.simulator.control
        self.store = AdeDeviceStore()
        payloads = PayloadStore(lambda: self.emulator.s3, bucket=self.settings.payload_bucket, sealer=self.sealer)
        self.events = EventPublisher(
            lambda: self.emulator.events,
            lambda: self.emulator.sqs,
            payloads=payloads,
            sealer=self.sealer,
            settings=self.settings,
        )
        self.rules = AdeAssignmentRules(
            profile_uuid=self._profile_uuid,
            check_profile=self._check_profile,
            check_server=self.client,
            now=self.clock,
        )
        self.syncs = self.another()

    def another(self) -> AdeSyncs:
        """Return what another invocation would use."""
        return AdeSyncs(
            names=lambda: list(self.clients),
            client_of=self.client,
            run_later=self.asked_for.append,
            rules=self.rules,
            devices=self.store,
            events=self.events,
            now=self.clock,
            page=self.page,
        )

    def server(self, name: str = "school") -> str:
        """Make a server in the portal, and bring its token here; return its name there."""
        there = self.at_apple[name] = f"{name}-{uuid.uuid4().hex[:8]}"
        self.renew(name)
        return there

    def renew(self, name: str, *, days: float = 365) -> None:
        """Download the server's token from the portal, and bring it here."""
        file = self.control.make_server(self.at_apple[name], KEY.pem, days=days)
        token = open_token_file(file, certificate=KEY.certificate, private_key=KEY.private_key)
        self.made.append(AdeClient(token, user_agent="PicoMDM/test", base_url=self.simulator.url))
        self.clients[name] = self.made[-1]

    def client(self, name: str) -> AdeClient:
        if name not in self.clients:
            raise NotFoundError(f"There is no ADE server {name!r}.")
        return self.clients[name]

    def define(self, name: str = "pupils", server: str = "school") -> str:
        """Define a profile, or define it anew; return Apple's UUID of it."""
        uuid_ = self.client(server).define_profile(PROFILE | {"profile_name": name, "department": os.urandom(4).hex()})
        self.profiles[server, name] = uuid_
        return uuid_

    def rule(self, name: str = "all", **fields: object) -> None:
        """Store a rule."""
        self.rules.put(name, Rule(**fields))  # type: ignore[arg-type]

    def sync(self, server: str = "school", *, at_most: int = 20) -> int:
        """Let runs follow each other until none is asked for; return how many they were."""
        self.asked_for.append(server)
        runs = 0
        while self.asked_for:
            assert runs < at_most
            self.syncs.run(self.asked_for.pop(0), seconds_left=lambda: self.seconds_left)
            runs += 1
        return runs

    def device(self, serial_number: str, server: str = "school") -> tables.AdeDevice:
        """Return what is known of a device."""
        return self.store.get_many(server, [serial_number])[serial_number]

    def state(self, server: str = "school") -> tables.AdeSync:
        """Return how far a list was read."""
        return self.syncs.state(server)

    def waiting(self, server: str = "school") -> list[str]:
        """Return what leads to devices that wait for their profile."""
        return [item.name for item in tables.AdeAssignment.query(f"ade_assignment#{server}")]

    def told(self) -> list[tuple[str, str]]:
        """Return topics and serial numbers of the events about single devices that came since the last call."""
        return [
            (document["topic"], document["dep_device_event"]["serial_number"])
            for document in self.bus.take()
            if "dep_device_event" in document
        ]

    def _profile_uuid(self, server: str, profile: str) -> str:
        self._check_profile(profile)
        if (server, profile) not in self.profiles:
            raise AppleRefusedError("It cannot be defined there.", apple_code="CONFIG_NAME_INVALID", status=400)
        return self.profiles[server, profile]

    def _check_profile(self, profile: str) -> None:
        if profile not in {name for _, name in self.profiles}:
            raise NotFoundError(f"There is no ADE profile {profile!r}.")
