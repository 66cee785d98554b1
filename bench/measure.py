"""How a request is measured: the handler, the bare SDK calls that it makes, and its RSA operations, in turns.

Short batches of the three take turns, so that a machine that slows down slows them all, and the ratio of one round
holds on a noisy one. ``bare`` is boto3 making the very calls that the handler made (recorded, with conditions that
always hold), with nothing around them; ``RSA`` is cryptography making the same kinds of operations, on keys as they
come: a private key of ours is loaded, a public one came with the request. Neither can be done without: what is left is
ours.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, cast

import boto3
from botocore import xform_name
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from mdmlib import runtime
from tests.aws_calls import watch

BATCHES: Final = int(os.environ.get("BENCH_BATCHES", "20"))
BATCH: Final = int(os.environ.get("BENCH_BATCH", "20"))
TARGET: Final = 1.35


@dataclass(frozen=True)
class Request:
    """One kind of request. ``make`` gives the next one, ready to be handled: only handling it is measured."""

    name: str
    make: Callable[[], Callable[[], object]]
    rsa: "RsaOperations"
    before: Callable[[], object] | None = None
    """Puts things back as the request needs them; before each one, and not measured."""
    batches: int = BATCHES
    batch: int = BATCH
    target: float | None = TARGET
    """How many times its bare calls it may take; None: nobody has said."""


@dataclass(frozen=True)
class RsaOperations:
    """How many operations with keys of 2,048 bits a request takes.

    Whoever sends a request brings the key that verifies it, so it is new to OpenSSL, which prepares it for its first
    use: that is a third of a verification.
    """

    verify: int = 0
    encrypt: int = 0
    sign: int = 0
    decrypt: int = 0

    def __call__(self) -> None:
        """Make them."""
        key, public_key, signature, ciphertext = _rsa_samples()
        for _ in range(self.verify):
            _public_key(public_key).verify(signature, _SAMPLE, padding.PKCS1v15(), SHA256())
        for _ in range(self.encrypt):
            key.public_key().encrypt(_SAMPLE[:32], padding.PKCS1v15())
        for _ in range(self.sign):
            key.sign(_SAMPLE, padding.PKCS1v15(), SHA256())
        for _ in range(self.decrypt):
            key.decrypt(ciphertext, padding.PKCS1v15())


@dataclass(frozen=True)
class Cost:
    """Milliseconds a request."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Row:
    """What a request costs, batch by batch."""

    request: Request
    calls: Sequence[str]
    written: int
    """How many items are written."""
    handler: Sequence[Cost]
    bare: Sequence[Cost]
    rsa: Sequence[Cost]

    @property
    def ratio(self) -> Cost:
        """How many times its bare calls and RSA operations a request takes, of the CPU and by the clock on the wall."""
        rounds = list(zip(self.handler, self.bare, self.rsa, strict=True))
        return Cost(
            statistics.median(ours.cpu / (bare.cpu + operations.cpu) for ours, bare, operations in rounds),
            statistics.median(ours.wall / (bare.wall + operations.wall) for ours, bare, operations in rounds),
        )


def measure(request: Request) -> Row:
    """Measure a request, after as many of each as warm everything up."""
    _time([request.make() for _ in range(request.batch)], before=request.before)
    if request.before:
        request.before()
    bare = Recorder(request.make())
    _time([bare, request.rsa] * request.batch)
    handler_costs, bare_costs, rsa_costs = [], [], []
    for _ in range(request.batches):
        handler_costs.append(mean(_time([request.make() for _ in range(request.batch)], before=request.before)))
        # In turns, as in a request: in a loop of its own a key would stay in the processor's cache.
        costs = _time([bare, request.rsa] * request.batch)
        bare_costs.append(mean(costs[::2]))
        rsa_costs.append(mean(costs[1::2]))
    calls = [operation for _, operation, _ in bare.calls]
    return Row(request, calls, bare.written, handler_costs, bare_costs, rsa_costs)


def mean(costs: Sequence[Cost]) -> Cost:
    """Return what one of them costs on the average."""
    return Cost(statistics.fmean(cost.cpu for cost in costs), statistics.fmean(cost.wall for cost in costs))


def _time(calls: Sequence[Callable[[], object]], *, before: Callable[[], object] | None = None) -> list[Cost]:
    costs = []
    for call in calls:
        if before:
            before()
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        costs.append(Cost((time.process_time() - cpu) * 1000, (time.perf_counter() - wall) * 1000))
    return costs


class Recorder:
    """Writes down which SDK calls a request makes, and makes the same ones bare."""

    def __init__(self, request: Callable[[], object]) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        ours: list[tuple[str, Any]] = [
            ("dynamodb", runtime.dynamodb_client()),
            ("dynamodb", runtime.dynamodb_batch_client()),
            ("events", runtime.events_client()),
            ("sqs", runtime.sqs_client()),
            ("s3", runtime.s3_client()),
        ]
        ends = [watch(client, before=partial(self._record, service)) for service, client in ours]
        request()
        for end in ends:
            end()
        self._methods = [
            (getattr(_plain_client(service), xform_name(operation)), params)
            for service, operation, params in self.calls
        ]

    def __call__(self) -> None:
        """Make the calls."""
        for method, params in self._methods:
            method(**params)

    @property
    def written(self) -> int:
        """How many items of DynamoDB the calls write."""
        return sum(_written(operation, params) for _, operation, params in self.calls)

    def _record(self, service: str, operation: str, parameters: dict[str, Any]) -> None:
        copy = deepcopy(parameters)
        copy.pop("ClientRequestToken", None)
        _always_true(copy)
        self.calls.append((service, operation, copy))


@cache
def _plain_client(service: str) -> Any:  # noqa: ANN401 - of any service
    return boto3.client(service)  # type: ignore[call-overload]


def _written(operation: str, params: dict[str, Any]) -> int:
    if operation == "BatchWriteItem":
        return sum(len(requests) for requests in params["RequestItems"].values())
    if operation == "TransactWriteItems":
        return sum("ConditionCheck" not in item for item in params["TransactItems"])
    return int(operation in {"PutItem", "UpdateItem", "DeleteItem"})


def _always_true(params: Any) -> None:  # noqa: ANN401 - any part of a request
    """Keep each condition at its length, but let it hold: the same write is made many times."""
    if isinstance(params, dict):
        if "ConditionExpression" in params:
            params["ConditionExpression"] += " OR attribute_exists(cls) OR attribute_not_exists(cls)"
        for value in params.values():
            _always_true(value)
    elif isinstance(params, list):
        for value in params:
            _always_true(value)


_SAMPLE: Final = bytes(range(256)) * 4


@cache
def _rsa_samples() -> tuple[rsa.RSAPrivateKey, bytes, bytes, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(_SAMPLE, padding.PKCS1v15(), SHA256())
    return key, public_key, signature, key.public_key().encrypt(_SAMPLE[:32], padding.PKCS1v15())


def _public_key(der: bytes) -> rsa.RSAPublicKey:
    return cast("rsa.RSAPublicKey", load_der_public_key(der))
