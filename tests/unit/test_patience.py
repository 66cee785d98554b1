"""Batches that DynamoDB does not process."""

import pytest
from botocore.exceptions import ClientError

from mdmlib.store.patience import until_some_are_processed


def test_what_is_processed_in_part_is_an_answer() -> None:
    assert until_some_are_processed(lambda keys: ("one", keys[1:]), ["a", "b"]) == ("one", ["b"])


def test_dynamodb_is_asked_a_few_times_with_pauses_and_then_no_more() -> None:
    asked: list[list[str]] = []
    slept: list[float] = []

    def ask(keys: list[str]) -> tuple[str, list[str]]:
        asked.append(keys)
        return "nothing", keys

    with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
        until_some_are_processed(ask, ["a", "b"], sleep=slept.append)

    assert asked == [["a", "b"]] * 4
    assert all(0.5 * pause <= slept_ <= pause for pause, slept_ in zip((0.05, 0.1, 0.2), slept, strict=True))


def test_what_is_processed_after_a_pause_is_an_answer() -> None:
    answers = [("nothing", ["a"]), ("all", None)]

    assert until_some_are_processed(lambda _: answers.pop(0), ["a"], sleep=lambda _: None) == ("all", None)
