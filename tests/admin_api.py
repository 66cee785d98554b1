"""The admin API without its gateway: which function a request leads to."""

import re
from typing import Any, Final

from functions.admin import app as admin
from functions.commands import app as commands

_OF_COMMANDS: Final = re.compile(
    r"/(v1|push|proxy|micromdm|nanomdm|api)/|/migration$|/version$|/inventory$"
    r"|/v2/(command|pushes)|/v2/enrollments/[^/]+/(commands|results|block)"
)


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer an event of API Gateway with the function that the template's routes lead it to."""
    function = commands if _OF_COMMANDS.match(event["rawPath"]) else admin
    answer: dict[str, Any] = function.lambda_handler(event, context)
    return answer
