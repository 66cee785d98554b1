"""Functions, in this process."""

import pytest

from local.aws_proxy import AwsProxy
from mdmlib import runtime
from mdmlib.store import tables
from tests.counted_site import Site
from tests.signed_device import TOPIC


@pytest.fixture
def site(proxy: AwsProxy) -> Site:
    runtime.bind_tables()
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()
    return Site(proxy)
