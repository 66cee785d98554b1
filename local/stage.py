"""The stage of a life: the stack, Apple and a customer on this machine, and what they keep from one run to the next."""

import json
import secrets
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from local.life import World
from local.processes import Program, end_left_over, note_children
from local.stack import Stack


@dataclass(kw_only=True)
class _Memory:
    """What would be somebody's for years: a topic never changes, and the customer's listener has its address."""

    topic: str = field(default_factory=lambda: f"com.apple.mgmt.External.{uuid.uuid4()}")
    hmac_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    webhook_port: int = 0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything that a life needs, running."""

    stack: Stack
    world: World
    _parts: ExitStack = field(repr=False)

    @classmethod
    def set(
        cls, directory: Path, *, keep_state: bool = False, report: Callable[[str], None] = lambda _step: None
    ) -> Self:
        """Start everything; ``report`` is told each step, in a few words.

        With ``keep_state`` a later start in the same ``directory`` goes on where this one stopped. Raises what
        :meth:`local.stack.Stack.start` raises, and :class:`local.processes.ProgramError`.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "customer.json"
        memory = _Memory(**json.loads(path.read_text())) if keep_state and path.exists() else _Memory()
        processes = directory / "processes.json"
        end_left_over(processes)
        with ExitStack() as parts:
            parts.callback(processes.unlink, missing_ok=True)
            stack = Stack.start(directory, keep_state=keep_state, report=report)
            parts.callback(stack.stop)
            report("Starting a customer, who listens to webhooks")
            key = directory / "webhook-key"
            key.touch(mode=0o600)
            key.write_text(memory.hmac_key)
            listener = Program.start(
                "customer",
                "local.webhook_listener",
                ["--port", str(memory.webhook_port), "--hmac-key-file", key],
                directory=directory,
            )
            parts.callback(listener.stop)
            memory.webhook_port = urlsplit(listener.ready["url"]).port or 0
            path.touch(mode=0o600)
            path.write_text(json.dumps(asdict(memory)))
            world = World(
                admin_url=stack.admin_url,
                device_url=stack.device_url,
                keys=stack.administrator,
                trust=stack.trust_anchor,
                apns_control=stack.apns.control_url,
                ade_control=stack.ade.control_url,
                webhook_url=listener.ready["url"],
                webhook_control=listener.ready["control"],
                hmac_key=memory.hmac_key,
                topic=memory.topic,
                directory=directory / "life",
            )
            note_children(processes)
            return cls(stack=stack, world=world, _parts=parts.pop_all())

    def strike(self) -> None:
        """Stop everything that was started, in the opposite order. Safe to repeat."""
        self._parts.close()
