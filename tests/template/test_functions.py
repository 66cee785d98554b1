"""Functions: what they are made of, what they find in their environment, and how requests reach them."""

import importlib
import inspect
import re
from dataclasses import fields
from typing import Any

import pytest

from mdmlib.http.administrators import PREFIXES
from mdmlib.http.device_app import DeviceApp
from mdmlib.http.gateway import AUTHENTICATE_HEADER
from mdmlib.settings import IDENTITY_METHODS, Settings
from tests.template.document import REPOSITORY, Resource, Template, listed, named

FUNCTIONS = sorted(folder.name for folder in (REPOSITORY / "functions").iterdir() if (folder / "app.py").exists())
HTTP = {"checkin", "connect", "enroll", "commands", "admin"}
APIS = {"DeviceApi": {"checkin", "connect", "enroll"}, "AdminApi": {"commands", "admin"}}
DIALECTS = {
    "ANY /v1/{proxy+}": r"/v1/.+",
    "ANY /push/{id}": r"/push/[^/]+",
    "ANY /proxy/{proxy+}": r"/proxy/.+",
    "ANY /migration": r"/migration",
    "GET /version": r"/version",
    "ANY /micromdm/{proxy+}": None,
    "ANY /nanomdm/{proxy+}": None,
    "ANY /api/v1/nanomdm/{proxy+}": None,
    "ANY /api/v1/nanocmd/{proxy+}": None,
    "GET /inventory": r"/inventory",
}
"""Routes that leave it to their function what there is, with the paths that lead to it; None: under a prefix."""
MTLS_ROUTES = {"PUT /mdm": "checkin", "PUT /mdm/checkin": "checkin", "PUT /mdm/connect": "connect"}


def logical_id(function: str, what: str = "Function") -> str:
    return "".join(part.capitalize() for part in function.split("_")) + what


def routes(template: Template, api: str, *, basic: bool = False) -> dict[str, Resource]:
    """Return the routes of an API by their keys: those for HTTP Basic, or all others."""
    found = {}
    for name, route in template.of("ApiGatewayV2::Route").items():
        if named(route["ApiId"]) == api and (template.resources[name].get("Condition") == "HasBasicAuth") is basic:
            found[route["RouteKey"]] = route
    return found


def target(template: Template, route: Resource) -> str:
    """Return the function that a route leads to."""
    integration = re.fullmatch(r"integrations/\$\{(\w+)\}", route["Target"]["Fn::Sub"])
    assert integration
    properties = template.resources[integration[1]]["Properties"]
    assert properties["ApiId"] == route["ApiId"]
    folder: str = template.function(named(properties["IntegrationUri"]))["CodeUri"]
    return folder.removeprefix("functions/").removesuffix("/")


def handled_routes(function: str) -> set[str]:
    """Return the keys of the routes that a function's code answers."""
    app: Any = importlib.import_module(f"functions.{function}.app").app
    if isinstance(app, DeviceApp):
        return {re.sub(r"\{\w+\+?\}", "{}", key) for key in app.route_keys}
    keys = set()
    for route in (*app._static_routes, *app._dynamic_routes):
        path = re.sub(r"<\w+>", "{}", route.path)
        keys |= {f"{method} {path}" for method in listed(route.method)}
    return keys


def test_every_function_is_in_the_template(template: Template) -> None:
    folders = {function["CodeUri"] for function in template.of("Serverless::Function").values()}

    assert folders == {f"functions/{name}/" for name in FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_role_and_a_log_of_its_own(template: Template, name: str) -> None:
    function = template.function(logical_id(name))

    assert named(function["Role"]) == logical_id(name, "Role")
    log = named(function["LoggingConfig"]["LogGroup"])
    assert log == logical_id(name, "Logs")
    role = template.resources[named(function["Role"])]["Properties"]
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    assert [each["Resource"] for each in statements if "logs:PutLogEvents" in each["Action"]] == [
        {"Fn::GetAtt": [log, "Arn"]}
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_traced_and_structured_in_its_log(template: Template, name: str) -> None:
    function = template.function(logical_id(name))

    assert function["Tracing"] == {"Ref": "Tracing"}
    assert template.parameters["Tracing"]["Default"] == "Active"
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == name


def test_no_level_makes_the_sdk_log_what_it_sends_or_drops_the_lines_that_are_metrics(template: Template) -> None:
    defaults = template.function_defaults

    assert defaults["LoggingConfig"]["ApplicationLogLevel"] == "INFO"
    assert defaults["Environment"]["Variables"]["POWERTOOLS_LOG_LEVEL"] == {"Ref": "LogLevel"}
    assert "DEBUG" not in template.parameters["LogLevel"]["AllowedValues"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_handler_is_where_lambda_looks_for_it(template: Template, name: str) -> None:
    module, _, handler = template.function(logical_id(name))["Handler"].partition(".")

    assert (REPOSITORY / "functions" / name / f"{module}.py").exists()
    assert callable(getattr(importlib.import_module(f"functions.{name}.{module}"), handler))


def test_functions_find_all_settings_in_their_environment_and_nothing_else(template: Template) -> None:
    variables = set(template.function_defaults["Environment"]["Variables"])

    assert variables - {"POWERTOOLS_LOG_LEVEL"} == {field.name.upper() for field in fields(Settings)}


def test_defaults_of_the_template_are_those_of_the_settings(template: Template) -> None:
    defaults = {
        name: str(parameter.default)
        for name, parameter in inspect.signature(Settings).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    for setting, default in defaults.items():
        reference = template.function_defaults["Environment"]["Variables"][setting.upper()]
        # CloudFormation's own parameters have no defaults.
        if not reference["Ref"].startswith("AWS::"):
            assert str(template.parameters[reference["Ref"]]["Default"]) == default, setting


@pytest.mark.parametrize("api", APIS)
def test_routes_lead_to_the_functions_that_answer_them_and_none_is_missing(template: Template, api: str) -> None:
    found: dict[str, set[str]] = {name: set() for name in APIS[api]}
    for key, route in routes(template, api).items():
        if key not in DIALECTS:
            found[target(template, route)].add(re.sub(r"\{\w+\+?\}", "{}", key))

    assert found == {name: {key for key in handled_routes(name) if not is_of_a_dialect(key)} for name in APIS[api]}


def is_of_a_dialect(key: str) -> bool:
    path = key.partition(" ")[2]
    return any(pattern and re.fullmatch(pattern, path) for pattern in DIALECTS.values())


def test_other_servers_apis_are_at_both_apis_with_one_function_behind(template: Template) -> None:
    signed, basic = routes(template, "AdminApi"), routes(template, "DeviceApi", basic=True)

    assert set(basic) == set(DIALECTS)
    assert set(signed) >= set(DIALECTS)
    assert {target(template, each[key]) for each in (signed, basic) for key in DIALECTS} == {"commands"}
    assert [key for name in HTTP - {"commands"} for key in handled_routes(name) if is_of_a_dialect(key)] == []


def test_every_prefix_of_a_dialect_has_a_route(template: Template) -> None:
    prefixed = {key for key, pattern in DIALECTS.items() if pattern is None}

    assert prefixed == {f"ANY {prefix}{{proxy+}}" for prefix in PREFIXES}


def test_passwords_are_for_nothing_unless_the_deployment_says_so(template: Template) -> None:
    belonging = {name for name in template.resources if name.startswith("Basic")}

    assert template.parameters["BasicAuth"]["Default"] == "false"
    assert {template.resources[name].get("Condition") for name in belonging} == {"HasBasicAuth"}
    assert not routes(template, "MtlsApi", basic=True)


def test_who_guesses_passwords_is_slowed_down(template: Template) -> None:
    (stage,) = [each for each in template.of("ApiGatewayV2::Stage").values() if named(each["ApiId"]) == "DeviceApi"]
    condition, limits, otherwise = stage["RouteSettings"]["Fn::If"]

    assert (condition, otherwise) == ("HasBasicAuth", {"Ref": "AWS::NoValue"})
    assert set(limits) == set(DIALECTS)
    for limit in limits.values():
        assert 0 < limit["ThrottlingRateLimit"] <= 50
        assert 0 < limit["ThrottlingBurstLimit"] <= 100


def test_every_function_that_answers_requests_is_reached_through_one_api(template: Template) -> None:
    assert set().union(*APIS.values()) == HTTP
    for integration in template.of("ApiGatewayV2::Integration").values():
        assert integration["IntegrationType"] == "AWS_PROXY"
        assert integration["PayloadFormatVersion"] == "2.0"


@pytest.mark.parametrize(("api", "name"), [(api, name) for api, names in APIS.items() for name in sorted(names)])
def test_an_api_may_call_its_functions_and_nobody_else_may(template: Template, api: str, name: str) -> None:
    permissions = [
        each for each in template.of("Lambda::Permission").values() if named(each["FunctionName"]) == logical_id(name)
    ]

    assert {each["Principal"] for each in permissions} == {"apigateway.amazonaws.com"}
    sources = sorted(each["SourceArn"]["Fn::Sub"].rpartition(":")[2] for each in permissions)
    mtls = ["${MtlsApi}/*"] if name in MTLS_ROUTES.values() else []
    basic = ["${DeviceApi}/*"] if name == "commands" else []
    assert sources == [f"${{{api}}}/*", *basic, *mtls]


def test_mutual_tls_is_for_what_enrolled_devices_send_and_nothing_else(template: Template) -> None:
    found = routes(template, "MtlsApi")

    assert {key: target(template, route) for key, route in found.items()} == MTLS_ROUTES
    assert template.resources["MtlsApi"]["Properties"]["DisableExecuteApiEndpoint"] is True


def test_mutual_tls_is_there_only_with_its_domain(template: Template) -> None:
    domain = template.resources["MtlsDomain"]
    belonging = {
        name
        for name, each in template.resources.items()
        if name == "MtlsApi" or "MtlsApi" in str(each.get("Properties", {}).get("ApiId")) or name == "MtlsDomain"
    }

    assert {template.resources[name].get("Condition") for name in belonging} == {"HasMtls"}
    assert domain["Properties"]["MutualTlsAuthentication"]["TruststoreUri"] == {"Ref": "MtlsTruststoreUri"}
    assert domain["Properties"]["DomainName"] == {"Ref": "MtlsDomainName"}


@pytest.mark.parametrize(
    ("method", "rule", "parameter"),
    [("mtls", "MutualTlsHasDomain", "MtlsDomainName"), ("header", "ProxyHasSecret", "ProxySecretHash")],
)
def test_no_way_to_prove_an_identity_is_set_without_what_it_needs(
    template: Template, method: str, rule: str, parameter: str
) -> None:
    values = template.parameters["Identity"]["AllowedValues"]
    condition = template.document["Rules"][rule]["RuleCondition"]["Fn::Contains"]

    assert sorted(condition[0]) == sorted(value for value in values if method in value)
    assert parameter in str(template.document["Rules"][rule]["Assertions"])
    assert all(set(value.split(",")) <= IDENTITY_METHODS for value in values)


def test_every_admin_route_asks_for_iam(template: Template) -> None:
    found = routes(template, "AdminApi")

    assert found
    assert {route["AuthorizationType"] for route in found.values()} == {"AWS_IAM"}


def test_nothing_is_public_but_the_device_edge(template: Template) -> None:
    public = {
        key
        for api in template.of("ApiGatewayV2::Api")
        for key, route in routes(template, api).items()
        if route["AuthorizationType"] == "NONE"
    }

    assert public == {
        "GET /.well-known/com.apple.remotemanagement",
        "ANY /authproxy/{proxy+}",
        "GET /health",
        "GET /crl/{name}",
        "GET /repo/{name}",
        "GET /mdm",
        "POST /mdm/account/{mode}",
        "PUT /mdm",
        "PUT /mdm/checkin",
        "PUT /mdm/connect",
        "GET /mdm/enroll",
        "POST /mdm/enroll",
        "GET /ota/enroll",
        "GET /ota/enroll/{token}",
        "POST /ota/phase23",
        "GET /mdm/enroll/{token}",
        "GET /scep",
        "POST /scep",
    }
    assert not template.of("Lambda::Url")
    assert not any("FunctionUrlConfig" in each for each in template.of("Serverless::Function").values())


@pytest.mark.parametrize("name", ["AccountEnrollIntegration", "BasicIntegration"])
def test_www_authenticate_gets_through_the_gateway(template: Template, name: str) -> None:
    leading = [key for key, each in template.of("ApiGatewayV2::Route").items() if name in each["Target"]["Fn::Sub"]]
    assert leading
    mapped = template.resources[name]["Properties"]["ResponseParameters"]["401"]["ResponseParameters"]

    assert {
        "Destination": "overwrite:header.WWW-Authenticate",
        "Source": f"$response.header.{AUTHENTICATE_HEADER}",
    } in mapped


def test_every_stage_is_throttled(template: Template) -> None:
    stages = template.of("ApiGatewayV2::Stage")

    assert {named(stage["ApiId"]) for stage in stages.values()} == set(template.of("ApiGatewayV2::Api"))
    for stage in stages.values():
        for limit in ("ThrottlingRateLimit", "ThrottlingBurstLimit"):
            reference = stage["DefaultRouteSettings"][limit]
            assert int(template.parameters[reference["Ref"]]["Default"]) > 0


def test_a_function_behind_an_api_ends_before_the_api_gives_up(template: Template) -> None:
    for name in HTTP:
        assert template.function(logical_id(name))["Timeout"] < 30


def test_every_log_ends_some_day(template: Template) -> None:
    for log in template.of("Logs::LogGroup").values():
        assert log["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_the_layer_is_built_for_what_the_functions_run_on(template: Template) -> None:
    layer = template.resources["MdmlibLayer"]

    assert layer["Properties"]["ContentUri"] == "layers/mdmlib/python/"
    assert layer["Metadata"] == {"BuildMethod": {"Ref": "PythonRuntime"}, "BuildArchitecture": {"Ref": "Architecture"}}
    assert template.function_defaults["Runtime"] == {"Ref": "PythonRuntime"}
    assert template.function_defaults["Architectures"] == [{"Ref": "Architecture"}]
