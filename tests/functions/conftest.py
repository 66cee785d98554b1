"""Functions, in this process."""

from collections.abc import Iterator

import pytest

from local.aws_proxy import AwsProxy
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests.counted_site import Site
from tests.signed_device import TOPIC


@pytest.fixture
def site(aws: Emulator, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with AwsProxy(aws.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        runtime.forget()
        runtime.bind_tables()
        tables.PushCertificate(
            "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
        ).save()
        yield Site(proxy)
