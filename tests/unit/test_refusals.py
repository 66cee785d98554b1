import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from pynamodb.exceptions import UpdateError

from mdmlib.store.refusals import code_of, condition_failed

FAILED = "ConditionalCheckFailedException"


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (ClientError({"Error": {"Code": FAILED}}, "UpdateItem"), FAILED),
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem"), "ThrottlingException"),
        (ConnectionClosedError(endpoint_url="https://dynamodb"), None),
        (None, None),
    ],
)  # fmt: skip
def test_only_what_dynamodb_said_is_its_word(cause: Exception | None, code: str | None) -> None:
    error = UpdateError("failed", cause)
    assert code_of(error) == code
    assert condition_failed(error) == (code == FAILED)
