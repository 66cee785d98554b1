"""A function in place of ``functions/dep_sync``: it takes invocations, and tests let the real one do them."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from local.emulator import Emulator
from mdmlib.settings import Settings

_CODE = "def lambda_handler(event, context):\n    return None\n"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


@contextmanager
def invoked(emulator: Emulator, settings: Settings) -> Iterator[None]:
    """Let there be one for these settings."""
    name = f"{settings.stack_name}-dep_sync"
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", _CODE)
    role = emulator.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))["Role"]["Arn"]
    emulator.lambda_.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.lambda_handler",
        Role=role,
        Code={"ZipFile": code.getvalue()},
    )
    yield
    emulator.lambda_.delete_function(FunctionName=name)
    emulator.iam.delete_role(RoleName=name)
