"""Which deployment a command is about, and how it is reached."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound
from botocore.session import Session

from picomdm.basic import LOOPBACK, BasicAccess
from picomdm.errors import RefusedError, SetupError

DEFAULT_STACK: Final = "picomdm-dev"
"""What ``make deploy`` calls its stack unless it is told otherwise."""


@dataclass(frozen=True)
class Deployment:
    """A deployed stack, by its name; its admin API alone can also be given by its URL.

    Everything is looked up on first use: a command that needs the admin API alone, and was given its URL, never asks
    CloudFormation.
    """

    stack: str = DEFAULT_STACK
    given_admin_url: str | None = None
    given_region: str | None = None
    profile: str | None = None
    basic: BasicAccess | None = None
    """In place of AWS: the dialects alone, by HTTP Basic."""

    @cached_property
    def admin_url(self) -> str:
        """The base of the admin API, without a slash at its end."""
        if self.basic:
            return self.basic.url.rstrip("/")
        return (self.given_admin_url or self.output("AdminUrl")).rstrip("/")

    @cached_property
    def region(self) -> str:
        """The region that the stack is in."""
        # botocore itself reads AWS_DEFAULT_REGION alone; AWS' newer tools read AWS_REGION.
        region = self.given_region or os.environ.get("AWS_REGION") or self._session.get_config_variable("region")
        if not region:
            raise SetupError("No region is set: use --region or the variable AWS_REGION.", code="no_region")
        return str(region)

    @property
    def credentials(self) -> Credentials:
        """The keys to sign a request with now, found where every tool of AWS finds them; those of a role change."""
        try:
            found = self._session.get_credentials()
            if found is None:
                raise NoCredentialsError
            keys = found.get_frozen_credentials()
            if not keys.access_key or not keys.secret_key:
                raise NoCredentialsError
        except (BotoCoreError, ClientError) as error:
            raise SetupError(
                f"No usable AWS credentials ({error}): log in, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY.",
                code="no_credentials",
            ) from error
        return Credentials(keys.access_key, keys.secret_key, keys.token)

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """The stack's outputs."""
        return {output["OutputKey"]: output["OutputValue"] for output in self.description.get("Outputs", ())}

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """What CloudFormation says of the stack."""
        self._need_aws()
        try:
            stacks: list[dict[str, Any]] = self.client("cloudformation").describe_stacks(StackName=self.stack)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                raise SetupError(
                    f"There is no stack {self.stack} in {self.region}: name yours with --stack or PICOMDM_STACK, or "
                    "deploy it with `make deploy`.",
                    code="no_stack",
                ) from error
            raise refused_by_aws(error) from error
        except BotoCoreError as error:
            raise SetupError(f"AWS cannot be asked for the stack {self.stack}: {error}", code="no_aws") from error
        return stacks[0]

    def output(self, name: str) -> str:
        """Return one output of the stack."""
        try:
            return self.outputs[name]
        except KeyError:
            raise SetupError(
                f"The stack {self.stack} has no output {name}: it is none of PicoMDM, or not deployed yet.",
                code="no_output",
            ) from None

    def client(self, service: str) -> Any:  # noqa: ANN401 - botocore makes its clients while it runs
        """Return a client of an AWS service."""
        self._need_aws()
        self.credentials  # noqa: B018 - without any, botocore would fail at the first call, in other words
        return self._session.create_client(service, region_name=self.region)

    def _need_aws(self) -> None:
        # What is on this machine is in no region: keys that are good there have no business with AWS.
        local = self.given_admin_url and urlsplit(self.given_admin_url).hostname in LOOPBACK
        if local and "AWS_ENDPOINT_URL" not in os.environ:
            raise SetupError(
                "This asks AWS itself, and the admin API is on this machine: say by AWS_ENDPOINT_URL where its AWS is.",
                code="needs_aws",
            )
        if self.basic:
            raise SetupError(
                "This asks AWS itself, which a context of HTTP Basic cannot: use one with credentials of AWS.",
                code="needs_aws",
            )

    @cached_property
    def _session(self) -> Session:
        session = Session(profile=self.profile)
        try:
            session.get_scoped_config()
        except ProfileNotFound as error:
            raise SetupError(f"{error}.", code="no_profile") from error
        return session


def refused_by_aws(error: ClientError) -> RefusedError:
    """Return the error that tells of AWS' refusal in its own words."""
    told = error.response.get("Error", {})
    return RefusedError(
        f"{error.operation_name}: {told.get('Message') or 'AWS refuses.'}",
        code=told.get("Code"),
        status=error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
    )
