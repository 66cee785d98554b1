"""Emulated AWS on this machine: ministack, in a process of its own.

It lives in ``.emulator-venv`` (made by ``make``), because it and aws-sam-cli pin a botocore of their own. This AWS has
one account, whose root user has the keys ``test``/``test`` and may do everything; IAM users and the roles of functions
may do what their policies say.
"""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import boto3
from botocore.config import Config

from local.processes import Keeper

if TYPE_CHECKING:
    from mypy_boto3_apigatewayv2 import ApiGatewayV2Client
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

REPOSITORY: Final = Path(__file__).resolve().parent.parent
VIRTUAL_ENVIRONMENT: Final = REPOSITORY / ".emulator-venv"

REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"
ROOT_KEYS: Final = ("test", "test")
"""Access key and secret of the account's root user, whom the emulator lets do everything, unverified."""

_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 30
_ATTEMPTS: Final = 5

_MEMORY: Final = Path("/dev/shm")
"""Linux keeps files here in memory."""
_MEMORY_NEEDED: Final = 4 * 1024**3


class EmulatorError(Exception):
    """The emulator does not start, or does not stop."""


class Emulator:
    """A running emulator, and clients of its services as root.

    ``directory`` holds its log, temporary files and, when ``keep_state``, what it needs to find its state again after
    a clean :meth:`stop`.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, port: int, directory: Path, temporary: Path) -> None:
        self._process = process
        self._keeper = Keeper(process, remove=temporary if temporary.is_relative_to(_MEMORY) else None)
        self.port = port
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def start(cls, directory: Path, *, port: int | None = None, keep_state: bool = False) -> Self:
        """Start an emulator on ``port`` (None: a free one) and return it when it answers.

        Raises :class:`EmulatorError`.
        """
        program = VIRTUAL_ENVIRONMENT / "bin" / "ministack"
        if not program.exists():
            raise EmulatorError(f"{program} does not exist: run `make setup`.")
        for attempt in range(1, _ATTEMPTS + 1):
            chosen = port or _free_port()
            try:
                return cls._start_on(chosen, program, directory, keep_state=keep_state)
            except _PortTakenError:
                # Somebody took the free port between our look and the emulator's bind.
                if port or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("not reached")

    @classmethod
    def _start_on(cls, port: int, program: Path, directory: Path, *, keep_state: bool) -> Self:
        directory.mkdir(parents=True, exist_ok=True)
        # An earlier emulator has left tens of thousands of files, the unpacked functions: nobody shall wait until they
        # are gone, and what is not by the end of this process goes the next time.
        left = _left_behind(directory)
        threading.Thread(target=_remove, args=(left,), name="emulator-clean-up", daemon=True).start()
        temporary = _temporary(directory)
        log = directory / "emulator.log"
        # Functions inherit the emulator's environment: nothing of ours may leak into them.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "AUTH": "true",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
        }
        if keep_state:
            environment |= {
                "PERSIST_STATE": "1",
                "STATE_DIR": str(directory / "state"),
                "S3_PERSIST": "1",
                "S3_DATA_DIR": str(directory / "s3"),
            }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program],
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group: it is for us to stop the emulator, last of all.
                start_new_session=True,
            )
        emulator = cls(process, port=port, directory=directory, temporary=temporary)
        # Whatever ends us leaves no emulator behind; but for a kill we stop it ourselves, and wait for it.
        atexit.register(emulator.stop)
        try:
            emulator._wait_until_ready(log)
        except BaseException:
            emulator.stop()
            raise
        return emulator

    def _wait_until_ready(self, log: Path) -> None:
        opener = build_opener(ProxyHandler({}))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = log.read_text(errors="replace")[-2000:]
                if "already in use" in said:
                    raise _PortTakenError(f"Port {self.port} is taken.")
                raise EmulatorError(f"The emulator ended at its start. It said:\n{said}")
            try:
                with opener.open(f"{self.url}/_ministack/ready", timeout=2):
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        raise EmulatorError(f"The emulator does not answer after {_START_SECONDS} seconds; its log is {log}.")

    def stop(self) -> None:
        """Stop it and wait until it has ended; with ``keep_state`` it writes its state first. Safe to repeat."""
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            # Its functions are processes of its group, which is nobody else's; they would outlive it by some seconds.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._keeper.dismiss()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a process that shall see this AWS, as root."""
        access_key, secret_key = ROOT_KEYS
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _options(self) -> dict[str, Any]:
        access_key, secret_key = ROOT_KEYS
        return {
            "endpoint_url": self.url,
            "region_name": REGION,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=60),
        }

    @cached_property
    def apigatewayv2(self) -> "ApiGatewayV2Client":
        """Its API Gateway, as far as HTTP APIs go."""
        return boto3.client("apigatewayv2", **self._options())

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        """Its CloudFormation."""
        return boto3.client("cloudformation", **self._options())

    @cached_property
    def cloudwatch(self) -> Any:  # noqa: ANN401 - too little is asked of it for stubs of its own
        """Its CloudWatch, which has alarms and no metrics."""
        return boto3.client("cloudwatch", **self._options())

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        """Its DynamoDB."""
        return boto3.client("dynamodb", **self._options())

    @cached_property
    def events(self) -> "EventBridgeClient":
        """Its EventBridge."""
        return boto3.client("events", **self._options())

    @cached_property
    def iam(self) -> "IAMClient":
        """Its IAM."""
        return boto3.client("iam", **self._options())

    @cached_property
    def lambda_(self) -> "LambdaClient":
        """Its Lambda."""
        return boto3.client("lambda", **self._options())

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        """Its CloudWatch Logs."""
        return boto3.client("logs", **self._options())

    @cached_property
    def s3(self) -> "S3Client":
        """Its S3."""
        return boto3.client("s3", **self._options())

    @cached_property
    def secretsmanager(self) -> "SecretsManagerClient":
        """Its Secrets Manager."""
        return boto3.client("secretsmanager", **self._options())

    @cached_property
    def sqs(self) -> "SQSClient":
        """Its SQS."""
        return boto3.client("sqs", **self._options())

    @cached_property
    def sts(self) -> "STSClient":
        """Its STS."""
        return boto3.client("sts", **self._options())


class _PortTakenError(EmulatorError):
    pass


def _temporary(directory: Path) -> Path:
    """Make the directory where the emulator unpacks functions: thousands of files each, again and again.

    In memory where there is room, which takes a fifth of the time.
    """
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED:
            return Path(mkdtemp(prefix=f"picomdm-{os.getpid()}-", dir=_MEMORY))
    return Path(mkdtemp(prefix="tmp-", dir=directory))


def _left_behind(directory: Path) -> list[Path]:
    """Find what emulators have left that were killed: of this directory, and of processes that are no more."""
    left = list(directory.glob("tmp-*"))
    for path in _MEMORY.glob("picomdm-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdecimal() and not _is_running(int(owner)):
            left.append(path)
    return left


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # Somebody else's.
    return True


def _remove(directories: list[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
