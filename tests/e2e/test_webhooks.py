"""A webhook's life by the command line against the deployed stack, with its rules and its roles."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from local.administrator import Administrator, CommandLineError
from local.customer import Customer
from local.life import World


@pytest.fixture
def customer(world: World) -> Iterator[Customer]:
    with closing(Customer(world.webhook_control, path="/webhook-of-tests")) as customer:
        yield customer


def test_a_webhook_is_tried_out_changed_and_ended(
    administrator: Administrator, world: World, customer: Customer, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(world.hmac_key)
    made = administrator.picomdm(
        "webhooks", "create", f"{world.webhook_url}-of-tests", "--topic", "mdm.CheckOut", "--hmac-key-file", str(key)
    )
    webhook = made["id"]

    tried = administrator.picomdm("webhooks", "test", webhook)
    heard = customer.hear(lambda heard: heard.topic == "webhook.Test", what="the test")
    assert (tried["delivered"], tried["status"], tried["event_id"]) == (True, 200, heard.event_id)

    httpx.put(
        f"{world.webhook_control}/behaviour", json={"status": 503, "path": "/webhook-of-tests"}, trust_env=False
    ).raise_for_status()
    with pytest.raises(CommandLineError, match="503"):
        administrator.picomdm("webhooks", "test", webhook)
    httpx.delete(f"{world.webhook_control}/behaviour", trust_env=False).raise_for_status()

    changed = administrator.picomdm("webhooks", "change", webhook, "--status", "Error", "--header", "X-Tenant: a")
    assert (changed["statuses"], changed["header_names"]) == (["Error"], ["X-Tenant"])
    assert administrator.picomdm("webhooks", "change", webhook, "--all-events", "--no-headers")["statuses"] is None
    assert administrator.picomdm("webhooks", "rotate-key", webhook, "--hmac-key-file", str(key))["next_key_waits"]
    assert not administrator.picomdm("webhooks", "rotate-key", webhook, "--finish")["next_key_waits"]
    assert administrator.picomdm("webhooks", "pause", webhook, "--drop")["drops_events"]
    assert administrator.picomdm("webhooks", "resume", webhook)["paused_at"] is None
    assert administrator.picomdm("webhooks", "show", webhook)["failures"] == 0
    # The emulator's CloudFormation makes no archive.
    with pytest.raises(CommandLineError, match="no_archive"):
        administrator.picomdm("webhooks", "replay", webhook, "--from", "1h")
    assert administrator.picomdm("webhooks", "delete", webhook)["deleted"]
