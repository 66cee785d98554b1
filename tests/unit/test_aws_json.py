import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

from mdmlib.clients.aws_json import DYNAMODB, EVENTBRIDGE, SQS, AwsJsonClient, JsonService, _Signer, credentials

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


@pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjEXAMPLE//w=="])
@pytest.mark.parametrize(
    ("service", "url", "path"),
    [
        (DYNAMODB, "https://dynamodb.eu-central-1.amazonaws.com", "/"),
        (EVENTBRIDGE, "https://events.cn-north-1.amazonaws.com.cn", "/"),
        (SQS, "http://127.0.0.1:4566/behind/a/proxy", "/behind/a/proxy"),
    ],
)
def test_requests_are_signed_as_botocore_signs_them(
    service: JsonService, url: str, path: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.struct_time((2026, 11, 29, 9, 8, 7, 6, 333, 0))
    monkeypatch.setattr(time, "gmtime", lambda: now)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime(2026, 11, 29, 9, 8, 7, tzinfo=UTC))
    give = credentials(KEYS | ({"AWS_SESSION_TOKEN": token} if token else {}))
    signer = _Signer(service.name, "eu-central-1", host=urlsplit(url).netloc, path=path)
    # The second is signed with a key that is at hand.
    for body in b'{"Limit":3}', '{"Name":"Zoë"}'.encode():
        headers = signer.sign("application/x-amz-json-1.0", "DynamoDB_20120810.Query", body, give())

        sent = {name: headers[name] for name in headers.keys() - {"Authorization", "Host"}}
        sent["Content-Type"] = "application/x-amz-json-1.0"
        request = AWSRequest("POST", url, data=body, headers=sent)
        del request.headers["X-Amz-Date"]
        del request.headers["X-Amz-Security-Token"]
        keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], token)
        SigV4Auth(keys, service.name, "eu-central-1").add_auth(request)
        assert headers["Authorization"] == request.headers["Authorization"]
        assert headers["X-Amz-Date"] == request.headers["X-Amz-Date"]
        assert headers.get("X-Amz-Security-Token") == request.headers["X-Amz-Security-Token"]


def test_a_new_day_and_new_credentials_make_a_new_signing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = _Signer("dynamodb", "us-east-1", host="localhost", path="/")
    now = [0.0]
    gmtime = time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda: gmtime(now[0]))

    def key_of(secret: str) -> bytes:
        signer.sign("", "", b"", credentials({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": secret})())
        return signer._key[1]

    keys = [key_of("one"), key_of("one"), key_of("two")]
    now[0] = 86_400
    keys.append(key_of("two"))

    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_without_credentials_of_the_environment_the_sdk_looks_further(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("aws") / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(NoCredentialsError):
        credentials({})
    file.write_text("[default]\naws_access_key_id = of\naws_secret_access_key = a file\n")
    found = credentials({})()
    assert (found.access_key, found.secret_key) == ("of", "a file")


def test_a_client_shows_no_secret() -> None:
    client = AwsJsonClient(
        DYNAMODB,
        endpoint_url="http://127.0.0.1:1",
        region="us-east-1",
        credentials=credentials(KEYS),
        attempts=1,
        connect_timeout=1,
        read_timeout=1,
        user_agent="test",
    )
    assert "wJalr" not in repr(client) + str(vars(client))
