"""An EventBridge schedule, and whoever asks for it: Apple's lists of devices are read, and profiles assigned."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.observability import logger


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Go on with the server that the event names; a schedule names none, and has every server gone on with."""
    if server := event.get("server"):
        runtime.ade_syncs().run(server, seconds_left=lambda: context.get_remaining_time_in_millis() / 1000)
    else:
        runtime.ade_syncs().start()
