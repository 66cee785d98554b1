"""Who may do what: roles, queues' and buckets' policies, secrets."""

import pytest

from tests.template.document import Template, listed, named

UNNAMEABLE = {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}
"""AWS has no resource for these: the only ones that may stand on "*"."""

CALLED_BY_THE_EMULATOR_ONLY = {"sqs:SendMessageBatch"}


def allowed(template: Template) -> list[tuple[str, list[str], list[object]]]:
    """Return who is allowed what on what, of everything that is attached to a role or a user."""
    return [
        (name, listed(statement["Action"]), listed(statement["Resource"]))
        for name, statement in template.statements()
        if statement["Effect"] == "Allow" and "Resource" in statement
    ]


def test_no_action_is_a_wildcard(template: Template) -> None:
    for name, actions, _ in allowed(template):
        for action in actions:
            # KMS has families of one meaning: GenerateDataKey, GenerateDataKeyWithoutPlaintext.
            assert "*" not in action or (name == "KmsKeyPolicy" and action.startswith("kms:")), (name, action)


def test_no_resource_is_a_wildcard_but_where_aws_has_none(template: Template) -> None:
    on_everything = {
        action
        for _, actions, resources in allowed(template)
        for resource in resources
        if resource == "*"
        for action in actions
    }

    assert on_everything == UNNAMEABLE


def test_every_resource_is_one_of_this_stack(template: Template) -> None:
    for name, _, resources in allowed(template):
        for resource in resources:
            if resource == "*":
                continue
            assert isinstance(resource, dict), (name, resource)
            text = resource.get("Fn::Sub", "")
            assert text == "" or "${AWS::StackName}" in text or any(each in text for each in template.resources), name


def test_a_role_is_for_one_function(template: Template) -> None:
    roles = [named(each["Role"]) for each in template.of("Serverless::Function").values()]

    assert sorted(roles) == sorted(template.of("IAM::Role"))
    assert len(set(roles)) == len(roles)
    for role in template.of("IAM::Role").values():
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
        assert not any(isinstance(policy, str) for policy in role["ManagedPolicyArns"])


def test_only_the_admin_function_changes_rules_and_only_those_of_webhooks(template: Template) -> None:
    changing = [
        (name, resources)
        for name, actions, resources in allowed(template)
        for action in actions
        if action in {"events:PutRule", "events:DeleteRule"}
    ]

    assert {name for name, _ in changing} == {"AdminRole"}
    for _, resources in changing:
        rule, bus = (next(iter(each.values())) for each in resources if isinstance(each, dict))
        assert rule.endswith(":rule/${EventBus}/${AWS::StackName}-webhook-*")
        assert bus == ["EventBus", "Arn"]


def test_nobody_else_is_let_into_queues_and_topics_but_services_of_aws_for_this_stack(template: Template) -> None:
    for name, statement in template.statements():
        if statement["Effect"] == "Allow" and "Principal" in statement and "Resource" in statement:
            assert set(statement["Principal"]) == {"Service"}, name
            assert "aws:SourceArn" in statement["Condition"]["ArnLike"], name


def test_the_bucket_is_private_encrypted_and_read_over_tls(template: Template) -> None:
    (name,) = template.of("S3::Bucket")
    bucket = template.resources[name]["Properties"]

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["BucketEncryption"]
    (policy,) = template.of("S3::BucketPolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_secret_makes_itself_and_outlives_the_stack(template: Template) -> None:
    (name,) = template.of("SecretsManager::Secret")
    secret = template.resources[name]

    assert secret["Properties"]["GenerateSecretString"] == {
        "SecretStringTemplate": '{"current_key": "k1"}',
        "GenerateStringKey": "k1",
        "PasswordLength": 64,
        "ExcludePunctuation": True,
    }
    assert "SecretString" not in secret["Properties"]
    assert secret["DeletionPolicy"] == "RetainExceptOnCreate"


@pytest.mark.parametrize("kind", ["DynamoDB::Table", "S3::Bucket", "SecretsManager::Secret"])
def test_a_key_of_ones_own_is_for_everything_that_is_kept(template: Template, kind: str) -> None:
    for name in template.of(kind):
        assert "KmsKeyArn" in str(template.resources[name]), name


def test_administrators_are_given_the_admin_api_and_no_more(template: Template) -> None:
    statements = template.resources["AdministratorPolicy"]["Properties"]["PolicyDocument"]["Statement"]

    assert {action for each in statements for action in listed(each["Action"])} == {
        "execute-api:Invoke",
        "cloudformation:DescribeStacks",
    }
    assert "${AdminApi}/*" in statements[0]["Resource"]["Fn::Sub"]
