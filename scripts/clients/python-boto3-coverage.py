"""Judges the emulator's control plane with boto3: makes, reads back, and meets each documented error.

Usage: python-boto3-coverage.py EMULATOR_JSON, a file with the line that `fleetmint emulate` prints.
       python-boto3-coverage.py EMULATOR_JSON --table FILE writes the table of docs/CONTROL_PLANE.md.
       python-boto3-coverage.py --catalogue prints the operations of botocore's model, for the emulator's source.

An operation counts when its calls have succeeded, what it made was read back by another call, and each error that botocore's
model documents for it, besides those that every operation has, was met. Errors that cannot come from this emulator are listed
in UNREACHABLE with the reason, and shown in the table.
"""

import json
import re
import sys
import time
from collections import defaultdict

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

# Every operation has these: throttling, a lost session, trouble on the service's side, and what is asserted apart.
COMMON = {
    "InternalException", "InternalFailureException", "InternalServerException", "InvalidRequestException",
    "ServiceUnavailableException", "ThrottlingException", "UnauthorizedException", "AccessDeniedException",
    "DependencyAccessDeniedException", "TooManyRequestsException", "ServiceException",
    "IllegalArgumentException", "InvalidPaginationTokenException", "ExpiredTokenException",
}
# What cannot happen here, and why.
UNREACHABLE = {
    ("CreateProvisioningTemplate", "LimitExceededException"): "no limit on templates is documented",
    ("CreateProvisioningTemplateVersion", "ConflictingResourceUpdateException"): "changes come one after the other",
    ("UpdateProvisioningTemplate", "ConflictingResourceUpdateException"): "changes come one after the other",
    ("DeleteProvisioningTemplate", "ConflictingResourceUpdateException"): "changes come one after the other",
    ("DeleteProvisioningTemplateVersion", "ConflictingResourceUpdateException"): "changes come one after the other",
    ("DeleteProvisioningTemplate", "DeleteConflictException"): "no CA certificate can hold a template here",
    ("RegisterThing", "ConflictingResourceUpdateException"): "changes come one after the other",
    ("DeleteThing", "ResourceNotFoundException"): "documented: deleting what is not there succeeds",
    ("UpdateCertificate", "CertificateStateException"): "needs a transfer to another account",
    ("DetachPolicy", "LimitExceededException"): "detaching exceeds no limit here",
    ("ListAttachedPolicies", "LimitExceededException"): "listing exceeds no limit here",
    ("ListTargetsForPolicy", "LimitExceededException"): "listing exceeds no limit here",
    ("ListBillingGroups", "ResourceNotFoundException"): "the request names nothing that could be missing",
}
ROLE = "arn:aws:iam::123456789012:role/provisioning"
ALLOW = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]})


def catalogue():
    model = botocore.session.get_session().get_service_model("iot")
    for name in model.operation_names:
        http = model.operation_model(name).http
        print(http["method"], re.sub(r"\{[^}]*\}", "{}", http["requestUri"].split("?")[0]), name)


class Judge:
    """Calls operations, and keeps what was seen of each."""

    def __init__(self, emulator):
        endpoint = emulator["endpoint"].replace("wss://", "https://").removesuffix("/mqtt")
        config = Config(retries={"max_attempts": 1, "mode": "standard"}, connect_timeout=10, read_timeout=30)
        keys = dict(
            endpoint_url=endpoint, region_name=emulator["region"], verify=emulator["ca_file"], config=config,
            aws_access_key_id=emulator["access_key_id"], aws_secret_access_key=emulator["secret_access_key"],
            aws_session_token=emulator.get("session_token"),
        )
        self.clients = {name: boto3.client(name, **keys) for name in ("iot", "sts", "service-quotas")}
        self.succeeded = set()
        self.read_back = set()
        self.met = defaultdict(set)

    def call(self, operation, service="iot", **arguments):
        client = self.clients[service]
        methods = {name: method for method, name in client.meta.method_to_api_mapping.items()}
        reply = getattr(client, methods[operation])(**arguments)
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 200, (operation, reply)
        assert reply["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"], operation
        self.succeeded.add((service, operation))
        return reply

    def refused(self, error, operation, service="iot", **arguments):
        """The operation is refused with this error, at the status that the model documents."""
        try:
            self.call(operation, service, **arguments)
        except ClientError as raised:
            found = raised.response["Error"]["Code"]
            assert found == error, f"{operation}: {found} ({raised}), wanted {error}"
            shape = self.clients[service].meta.service_model.shape_for(error)
            wanted = shape.metadata.get("error", {}).get("httpStatusCode", 400)
            status = raised.response["ResponseMetadata"]["HTTPStatusCode"]
            assert status == wanted, f"{operation} {error}: {status}, wanted {wanted}"
            self.met[service, operation].add(error)
            return
        raise AssertionError(f"{operation}: succeeded, wanted {error}")

    def shows(self, condition, *operations):
        """What these operations did was read back."""
        assert condition, operations
        self.read_back.update(("iot", name) for name in operations)


def template(policy="judged", thing_type=None, extra=""):
    thing = {"ThingName": {"Ref": "SerialNumber"}, **({"ThingTypeName": thing_type} if thing_type else {})}
    return json.dumps({
        "Parameters": {"SerialNumber": {"Type": "String"}, "Csr": {"Type": "String", "Default": extra}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": thing},
            "certificate": {"Type": "AWS::IoT::Certificate",
                            "Properties": {"CertificateSigningRequest": {"Ref": "Csr"}} if extra else {}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}},
        },
    })


def judge_templates(j):
    body = template()
    made = j.call("CreateProvisioningTemplate", templateName="judged", templateBody=body, provisioningRoleArn=ROLE,
                  description="first", preProvisioningHook={"targetArn": "arn:aws:lambda:us-east-1:123456789012:function:f"})
    j.refused("ResourceAlreadyExistsException", "CreateProvisioningTemplate", templateName="judged", templateBody=body,
              provisioningRoleArn=ROLE)
    j.refused("InvalidRequestException", "CreateProvisioningTemplate", templateName="broken", templateBody="{}",
              provisioningRoleArn=ROLE)
    described = j.call("DescribeProvisioningTemplate", templateName="judged")
    j.shows(described["templateBody"] == body and described["templateArn"] == made["templateArn"]
            and described["enabled"] is False and described["preProvisioningHook"]["targetArn"].endswith(":f"),
            "CreateProvisioningTemplate", "DescribeProvisioningTemplate")
    j.refused("ResourceNotFoundException", "DescribeProvisioningTemplate", templateName="nobody")
    j.call("UpdateProvisioningTemplate", templateName="judged", enabled=True, removePreProvisioningHook=True)
    j.refused("ResourceNotFoundException", "UpdateProvisioningTemplate", templateName="nobody")
    described = j.call("DescribeProvisioningTemplate", templateName="judged")
    j.shows(described["enabled"] and "preProvisioningHook" not in described, "UpdateProvisioningTemplate")
    version = j.call("CreateProvisioningTemplateVersion", templateName="judged", templateBody=template(thing_type="x"))
    assert version["versionId"] == 2 and not version["isDefaultVersion"]
    j.refused("ResourceNotFoundException", "CreateProvisioningTemplateVersion", templateName="nobody", templateBody=body)
    listed = j.call("ListProvisioningTemplateVersions", templateName="judged")["versions"]
    j.shows([v["versionId"] for v in listed] == [1, 2], "CreateProvisioningTemplateVersion",
            "ListProvisioningTemplateVersions")
    j.refused("ResourceNotFoundException", "ListProvisioningTemplateVersions", templateName="nobody")
    read = j.call("DescribeProvisioningTemplateVersion", templateName="judged", versionId=2)
    j.shows(json.loads(read["templateBody"]) == json.loads(template(thing_type="x")),
            "DescribeProvisioningTemplateVersion")
    j.refused("ResourceNotFoundException", "DescribeProvisioningTemplateVersion", templateName="judged", versionId=9)
    for _ in range(3):
        j.call("CreateProvisioningTemplateVersion", templateName="judged", templateBody=body, setAsDefault=True)
    j.refused("VersionsLimitExceededException", "CreateProvisioningTemplateVersion", templateName="judged",
              templateBody=body)
    j.refused("DeleteConflictException", "DeleteProvisioningTemplateVersion", templateName="judged", versionId=5)
    j.refused("ResourceNotFoundException", "DeleteProvisioningTemplateVersion", templateName="judged", versionId=9)
    j.call("DeleteProvisioningTemplateVersion", templateName="judged", versionId=2)
    j.call("UpdateProvisioningTemplate", templateName="judged", defaultVersionId=1)
    listed = j.call("ListProvisioningTemplateVersions", templateName="judged", maxResults=2)
    j.shows([v["versionId"] for v in listed["versions"]] == [1, 3] and listed["nextToken"]
            and listed["versions"][0]["isDefaultVersion"], "DeleteProvisioningTemplateVersion")
    claim = j.call("CreateProvisioningClaim", templateName="judged")
    j.shows("PRIVATE KEY" in claim["keyPair"]["PrivateKey"] and "PUBLIC KEY" in claim["keyPair"]["PublicKey"]
            and 0 < claim["expiration"].timestamp() - time.time() < 301, "CreateProvisioningClaim")
    j.refused("ResourceNotFoundException", "CreateProvisioningClaim", templateName="nobody")
    names = [t["templateName"] for t in j.call("ListProvisioningTemplates")["templates"]]
    j.shows("judged" in names, "ListProvisioningTemplates")
    j.call("DeleteProvisioningTemplate", templateName="judged")
    j.refused("ResourceNotFoundException", "DeleteProvisioningTemplate", templateName="judged")
    j.shows("judged" not in [t["templateName"] for t in j.call("ListProvisioningTemplates")["templates"]],
            "DeleteProvisioningTemplate")


def judge_certificates(j):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "judge")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    csr = csr.public_bytes(serialization.Encoding.PEM).decode()
    keys = j.call("CreateKeysAndCertificate", setAsActive=True)
    private = serialization.load_pem_private_key(keys["keyPair"]["PrivateKey"].encode(), None)
    certificate = x509.load_pem_x509_certificate(keys["certificatePem"].encode())
    public = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.PEM
    assert private.public_key() == certificate.public_key()
    assert certificate.public_key().public_bytes(public[1], public[0]).decode() == keys["keyPair"]["PublicKey"]
    described = j.call("DescribeCertificate", certificateId=keys["certificateId"])["certificateDescription"]
    j.shows(described["status"] == "ACTIVE" and described["certificatePem"] == keys["certificatePem"]
            and described["validity"]["notAfter"], "CreateKeysAndCertificate", "DescribeCertificate")
    j.refused("ResourceNotFoundException", "DescribeCertificate", certificateId="0" * 64)
    signed = j.call("CreateCertificateFromCsr", certificateSigningRequest=csr)
    j.refused("InvalidRequestException", "CreateCertificateFromCsr", certificateSigningRequest="no CSR")
    described = j.call("DescribeCertificate", certificateId=signed["certificateId"])["certificateDescription"]
    j.shows(described["status"] == "INACTIVE", "CreateCertificateFromCsr")
    j.call("UpdateCertificate", certificateId=signed["certificateId"], newStatus="REVOKED")
    j.refused("ResourceNotFoundException", "UpdateCertificate", certificateId="0" * 64, newStatus="ACTIVE")
    j.refused("InvalidRequestException", "UpdateCertificate", certificateId=signed["certificateId"],
              newStatus="PENDING_ACTIVATION")
    described = j.call("DescribeCertificate", certificateId=signed["certificateId"])["certificateDescription"]
    j.shows(described["status"] == "REVOKED", "UpdateCertificate")

    now = __import__("datetime").datetime.now(__import__("datetime").timezone.utc)
    own = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    own = own.serial_number(x509.random_serial_number()).not_valid_before(now)
    own = own.not_valid_after(now.replace(year=now.year + 1)).sign(key, hashes.SHA256())
    pem = own.public_bytes(serialization.Encoding.PEM).decode()
    registered = j.call("RegisterCertificateWithoutCA", certificatePem=pem, status="ACTIVE")
    assert registered["certificateId"] == own.fingerprint(hashes.SHA256()).hex()
    j.refused("ResourceAlreadyExistsException", "RegisterCertificateWithoutCA", certificatePem=pem)
    j.refused("CertificateValidationException", "RegisterCertificateWithoutCA", certificatePem="no PEM")
    j.refused("CertificateStateException", "RegisterCertificateWithoutCA", certificatePem=pem, status="REVOKED")
    described = j.call("DescribeCertificate", certificateId=registered["certificateId"])["certificateDescription"]
    j.shows(described["certificateMode"] == "SNI_ONLY" and described["status"] == "ACTIVE",
            "RegisterCertificateWithoutCA")
    page = j.call("ListCertificates", pageSize=2, ascendingOrder=True)
    rest = j.call("ListCertificates", pageSize=250, marker=page["nextMarker"], ascendingOrder=True)
    listed = [c["certificateId"] for c in page["certificates"] + rest["certificates"]]
    j.shows(listed[-3:] == [keys["certificateId"], signed["certificateId"], registered["certificateId"]]
            and len(set(listed)) == len(listed), "ListCertificates")
    j.refused("CertificateStateException", "DeleteCertificate", certificateId=keys["certificateId"])
    j.call("DeleteCertificate", certificateId=signed["certificateId"])
    j.refused("ResourceNotFoundException", "DeleteCertificate", certificateId=signed["certificateId"])
    return keys, registered, csr


def judge_policies(j, keys):
    made = j.call("CreatePolicy", policyName="judged", policyDocument=ALLOW)
    j.refused("ResourceAlreadyExistsException", "CreatePolicy", policyName="judged", policyDocument=ALLOW)
    j.refused("MalformedPolicyException", "CreatePolicy", policyName="broken", policyDocument='{"hello": "x"}')
    read = j.call("GetPolicy", policyName="judged")
    j.shows(read["policyDocument"] == ALLOW and read["policyArn"] == made["policyArn"]
            and read["defaultVersionId"] == "1", "CreatePolicy", "GetPolicy")
    j.refused("ResourceNotFoundException", "GetPolicy", policyName="nobody")
    j.shows("judged" in [p["policyName"] for p in j.call("ListPolicies")["policies"]], "ListPolicies")
    version = j.call("CreatePolicyVersion", policyName="judged", policyDocument=ALLOW)
    assert version["policyVersionId"] == "2" and not version["isDefaultVersion"]
    j.refused("ResourceNotFoundException", "CreatePolicyVersion", policyName="nobody", policyDocument=ALLOW)
    j.refused("MalformedPolicyException", "CreatePolicyVersion", policyName="judged", policyDocument="")
    j.call("SetDefaultPolicyVersion", policyName="judged", policyVersionId="2")
    j.refused("ResourceNotFoundException", "SetDefaultPolicyVersion", policyName="judged", policyVersionId="9")
    read = j.call("GetPolicyVersion", policyName="judged", policyVersionId="2")
    j.shows(read["isDefaultVersion"] and read["policyDocument"] == ALLOW, "CreatePolicyVersion", "GetPolicyVersion",
            "SetDefaultPolicyVersion")
    j.refused("ResourceNotFoundException", "GetPolicyVersion", policyName="judged", policyVersionId="9")
    for _ in range(3):
        j.call("CreatePolicyVersion", policyName="judged", policyDocument=ALLOW)
    j.refused("VersionsLimitExceededException", "CreatePolicyVersion", policyName="judged", policyDocument=ALLOW)
    j.refused("DeleteConflictException", "DeletePolicy", policyName="judged")
    j.refused("DeleteConflictException", "DeletePolicyVersion", policyName="judged", policyVersionId="2")
    j.refused("ResourceNotFoundException", "DeletePolicyVersion", policyName="judged", policyVersionId="9")
    for number in ("1", "3", "4", "5"):
        j.call("DeletePolicyVersion", policyName="judged", policyVersionId=number)
    listed = j.call("ListPolicyVersions", policyName="judged")["policyVersions"]
    j.shows([v["versionId"] for v in listed] == ["2"], "DeletePolicyVersion", "ListPolicyVersions")
    j.refused("ResourceNotFoundException", "ListPolicyVersions", policyName="nobody")

    arn, nobody = keys["certificateArn"], keys["certificateArn"][:-64] + "0" * 64
    j.call("AttachPolicy", policyName="judged", target=arn)
    j.refused("ResourceNotFoundException", "AttachPolicy", policyName="judged", target=nobody)
    j.refused("ResourceNotFoundException", "AttachPrincipalPolicy", policyName="nobody", principal=arn)
    for number in range(9):
        j.call("CreatePolicy", policyName=f"more-{number}", policyDocument=ALLOW)
        j.call("AttachPrincipalPolicy", policyName=f"more-{number}", principal=arn)
    j.call("CreatePolicy", policyName="one-too-many", policyDocument=ALLOW)
    j.refused("LimitExceededException", "AttachPolicy", policyName="one-too-many", target=arn)
    j.refused("LimitExceededException", "AttachPrincipalPolicy", policyName="one-too-many", principal=arn)
    attached = j.call("ListAttachedPolicies", target=arn, pageSize=4)
    rest = j.call("ListAttachedPolicies", target=arn, marker=attached["nextMarker"])
    names = [p["policyName"] for p in attached["policies"] + rest["policies"]]
    j.shows(len(names) == 10 and "judged" in names, "AttachPolicy", "AttachPrincipalPolicy", "ListAttachedPolicies")
    j.refused("ResourceNotFoundException", "ListAttachedPolicies", target=nobody)
    j.shows(len(j.call("ListPrincipalPolicies", principal=arn)["policies"]) == 10, "ListPrincipalPolicies")
    j.refused("ResourceNotFoundException", "ListPrincipalPolicies", principal=nobody)
    j.shows(j.call("ListTargetsForPolicy", policyName="judged")["targets"] == [arn], "ListTargetsForPolicy")
    j.refused("ResourceNotFoundException", "ListTargetsForPolicy", policyName="nobody")
    j.shows(j.call("ListPolicyPrincipals", policyName="judged")["principals"] == [arn], "ListPolicyPrincipals")
    j.refused("ResourceNotFoundException", "ListPolicyPrincipals", policyName="nobody")
    j.refused("DeleteConflictException", "DeletePolicy", policyName="judged")
    j.call("UpdateCertificate", certificateId=keys["certificateId"], newStatus="INACTIVE")
    j.refused("DeleteConflictException", "DeleteCertificate", certificateId=keys["certificateId"])
    j.call("UpdateCertificate", certificateId=keys["certificateId"], newStatus="ACTIVE")
    for number in range(8):
        j.call("DetachPolicy", policyName=f"more-{number}", target=arn)
    j.call("DetachPrincipalPolicy", policyName="more-8", principal=arn)
    j.refused("ResourceNotFoundException", "DetachPrincipalPolicy", policyName="nobody", principal=arn)
    names = [p["policyName"] for p in j.call("ListAttachedPolicies", target=arn)["policies"]]
    j.shows(names == ["judged"], "DetachPolicy", "DetachPrincipalPolicy")
    for name in [f"more-{number}" for number in range(9)] + ["one-too-many"]:
        j.call("DeletePolicy", policyName=name)
    j.refused("ResourceNotFoundException", "DeletePolicy", policyName="more-1")
    j.shows(not [p for p in j.call("ListPolicies")["policies"] if p["policyName"].startswith("more-")], "DeletePolicy")


def judge_things(j, keys):
    j.call("CreateThingType", thingTypeName="judged", thingTypeProperties={"thingTypeDescription": "d",
                                                                         "searchableAttributes": ["site"]})
    j.refused("ResourceAlreadyExistsException", "CreateThingType", thingTypeName="judged")
    read = j.call("DescribeThingType", thingTypeName="judged")
    j.shows(read["thingTypeProperties"] == {"thingTypeDescription": "d", "searchableAttributes": ["site"]},
            "CreateThingType", "DescribeThingType")
    j.refused("ResourceNotFoundException", "DescribeThingType", thingTypeName="nobody")
    j.shows([t["thingTypeName"] for t in j.call("ListThingTypes", thingTypeName="judged")["thingTypes"]] == ["judged"],
            "ListThingTypes")
    j.call("CreateBillingGroup", billingGroupName="judged", billingGroupProperties={"billingGroupDescription": "d"})
    for number in range(5):
        attributes = {"site": f"s{number % 2}", "n": str(number)}
        j.call("CreateThing", thingName=f"judged-{number}", thingTypeName="judged", billingGroupName="judged",
               attributePayload={"attributes": attributes})
    again = dict(thingName="judged-0", thingTypeName="judged", billingGroupName="judged")
    j.call("CreateThing", attributePayload={"attributes": {"site": "s0", "n": "0"}}, **again)
    j.refused("ResourceAlreadyExistsException", "CreateThing", attributePayload={"attributes": {"site": "other"}}, **again)
    j.refused("ResourceNotFoundException", "CreateThing", thingName="new", thingTypeName="nobody")
    j.refused("InvalidRequestException", "CreateThing", thingName="new",
              attributePayload={"attributes": {"site": "a b"}})
    read = j.call("DescribeThing", thingName="judged-1")
    j.shows(read["attributes"] == {"site": "s1", "n": "1"} and read["version"] == 1
            and read["billingGroupName"] == "judged" and read["thingTypeName"] == "judged", "CreateThing", "DescribeThing")
    j.refused("ResourceNotFoundException", "DescribeThing", thingName="nobody")
    j.call("UpdateThing", thingName="judged-1", attributePayload={"attributes": {"site": "s9", "n": ""}, "merge": True},
           expectedVersion=1)
    j.refused("VersionConflictException", "UpdateThing", thingName="judged-1", expectedVersion=1)
    j.refused("ResourceNotFoundException", "UpdateThing", thingName="nobody")
    read = j.call("DescribeThing", thingName="judged-1")
    j.shows(read["attributes"] == {"site": "s9"} and read["version"] == 2, "UpdateThing")
    pages = j.clients["iot"].get_paginator("list_things").paginate(
        attributeName="site", attributeValue="s0", PaginationConfig={"PageSize": 2})
    found = [t["thingName"] for page in pages for t in page["things"]]
    j.call("ListThings", attributeName="site", attributeValue="s", usePrefixAttributeValue=True)
    j.shows(found == ["judged-0", "judged-2", "judged-4"], "ListThings")

    arn, nobody = keys["certificateArn"], keys["certificateArn"][:-64] + "0" * 64
    j.call("AttachThingPrincipal", thingName="judged-0", principal=arn, thingPrincipalType="EXCLUSIVE_THING")
    j.refused("InvalidRequestException", "AttachThingPrincipal", thingName="judged-1", principal=arn)
    j.refused("ResourceNotFoundException", "AttachThingPrincipal", thingName="nobody", principal=arn)
    j.refused("ResourceNotFoundException", "AttachThingPrincipal", thingName="judged-0", principal=nobody)
    j.shows(j.call("ListThingPrincipals", thingName="judged-0")["principals"] == [arn], "AttachThingPrincipal",
            "ListThingPrincipals")
    j.refused("ResourceNotFoundException", "ListThingPrincipals", thingName="nobody")
    listed = j.call("ListThingPrincipalsV2", thingName="judged-0")["thingPrincipalObjects"]
    j.shows(listed == [{"principal": arn, "thingPrincipalType": "EXCLUSIVE_THING"}], "ListThingPrincipalsV2")
    j.refused("ResourceNotFoundException", "ListThingPrincipalsV2", thingName="nobody")
    j.shows(j.call("ListPrincipalThings", principal=arn)["things"] == ["judged-0"], "ListPrincipalThings")
    j.refused("ResourceNotFoundException", "ListPrincipalThings", principal=nobody)
    listed = j.call("ListPrincipalThingsV2", principal=arn, thingPrincipalType="EXCLUSIVE_THING")
    j.shows(listed["principalThingObjects"] == [{"thingName": "judged-0", "thingPrincipalType": "EXCLUSIVE_THING"}],
            "ListPrincipalThingsV2")
    j.refused("ResourceNotFoundException", "ListPrincipalThingsV2", principal=nobody)
    j.refused("InvalidRequestException", "DeleteThing", thingName="judged-0")
    j.refused("VersionConflictException", "DeleteThing", thingName="judged-2", expectedVersion=7)


def judge_groups(j):
    j.call("CreateThingGroup", thingGroupName="parent", thingGroupProperties={
        "thingGroupDescription": "d", "attributePayload": {"attributes": {"k": "v"}}})
    j.call("CreateThingGroup", thingGroupName="child", parentGroupName="parent")
    j.refused("ResourceAlreadyExistsException", "CreateThingGroup", thingGroupName="child")
    read = j.call("DescribeThingGroup", thingGroupName="child")
    j.shows(read["thingGroupMetadata"]["parentGroupName"] == "parent" and read["version"] == 1, "CreateThingGroup",
            "DescribeThingGroup")
    j.refused("ResourceNotFoundException", "DescribeThingGroup", thingGroupName="nobody")
    j.shows([g["groupName"] for g in j.call("ListThingGroups", parentGroup="parent")["thingGroups"]] == ["child"],
            "ListThingGroups")
    j.refused("ResourceNotFoundException", "ListThingGroups", parentGroup="nobody")
    j.call("UpdateThingGroup", thingGroupName="parent", thingGroupProperties={"thingGroupDescription": "e"},
           expectedVersion=1)
    j.refused("VersionConflictException", "UpdateThingGroup", thingGroupName="parent", thingGroupProperties={},
              expectedVersion=1)
    j.refused("ResourceNotFoundException", "UpdateThingGroup", thingGroupName="nobody", thingGroupProperties={})
    read = j.call("DescribeThingGroup", thingGroupName="parent")
    j.shows(read["version"] == 2 and read["thingGroupProperties"]["thingGroupDescription"] == "e", "UpdateThingGroup")
    j.call("AddThingToThingGroup", thingGroupName="child", thingName="judged-0")
    j.refused("ResourceNotFoundException", "AddThingToThingGroup", thingGroupName="nobody", thingName="judged-0")
    j.shows(j.call("ListThingsInThingGroup", thingGroupName="parent", recursive=True)["things"] == ["judged-0"],
            "AddThingToThingGroup", "ListThingsInThingGroup")
    j.refused("ResourceNotFoundException", "ListThingsInThingGroup", thingGroupName="nobody")
    j.shows([g["groupName"] for g in j.call("ListThingGroupsForThing", thingName="judged-0")["thingGroups"]] == ["child"],
            "ListThingGroupsForThing")
    j.refused("ResourceNotFoundException", "ListThingGroupsForThing", thingName="nobody")
    j.call("RemoveThingFromThingGroup", thingGroupName="child", thingName="judged-0")
    j.refused("ResourceNotFoundException", "RemoveThingFromThingGroup", thingGroupName="nobody", thingName="judged-0")
    j.shows(not j.call("ListThingGroupsForThing", thingName="judged-0")["thingGroups"], "RemoveThingFromThingGroup")
    j.call("UpdateThingGroupsForThing", thingName="judged-0", thingGroupsToAdd=["parent", "child"])
    j.call("UpdateThingGroupsForThing", thingName="judged-0", thingGroupsToRemove=["child"])
    j.refused("ResourceNotFoundException", "UpdateThingGroupsForThing", thingName="nobody", thingGroupsToAdd=["parent"])
    j.shows([g["groupName"] for g in j.call("ListThingGroupsForThing", thingName="judged-0")["thingGroups"]] == ["parent"],
            "UpdateThingGroupsForThing")
    for number in range(9):
        j.call("CreateThingGroup", thingGroupName=f"g{number}")
        j.call("AddThingToThingGroup", thingGroupName=f"g{number}", thingName="judged-0")
    j.refused("InvalidRequestException", "AddThingToThingGroup", thingGroupName="child", thingName="judged-0")
    j.refused("InvalidRequestException", "DeleteThingGroup", thingGroupName="parent")
    j.refused("VersionConflictException", "DeleteThingGroup", thingGroupName="child", expectedVersion=9)
    for name in ["child", "parent"] + [f"g{number}" for number in range(9)]:
        j.call("DeleteThingGroup", thingGroupName=name)
    j.shows(not [g for g in j.call("ListThingGroups")["thingGroups"] if g["groupName"] in ("child", "parent")]
            and not j.call("ListThingGroupsForThing", thingName="judged-0")["thingGroups"], "DeleteThingGroup")

    j.refused("ResourceAlreadyExistsException", "CreateBillingGroup", billingGroupName="judged")
    read = j.call("DescribeBillingGroup", billingGroupName="judged")
    j.shows(read["billingGroupProperties"] == {"billingGroupDescription": "d"} and read["version"] == 1,
            "CreateBillingGroup", "DescribeBillingGroup")
    j.refused("ResourceNotFoundException", "DescribeBillingGroup", billingGroupName="nobody")
    j.call("UpdateBillingGroup", billingGroupName="judged", billingGroupProperties={"billingGroupDescription": "e"})
    j.refused("VersionConflictException", "UpdateBillingGroup", billingGroupName="judged", billingGroupProperties={},
              expectedVersion=1)
    j.refused("ResourceNotFoundException", "UpdateBillingGroup", billingGroupName="nobody", billingGroupProperties={})
    j.shows(j.call("DescribeBillingGroup", billingGroupName="judged")["version"] == 2, "UpdateBillingGroup")
    j.shows([g["groupName"] for g in j.call("ListBillingGroups", namePrefixFilter="jud")["billingGroups"]] == ["judged"],
            "ListBillingGroups")
    j.call("RemoveThingFromBillingGroup", billingGroupName="judged", thingName="judged-0")
    j.refused("ResourceNotFoundException", "RemoveThingFromBillingGroup", billingGroupName="nobody", thingName="judged-0")
    members = j.call("ListThingsInBillingGroup", billingGroupName="judged")["things"]
    j.shows("judged-0" not in members and "judged-1" in members, "RemoveThingFromBillingGroup", "ListThingsInBillingGroup")
    j.refused("ResourceNotFoundException", "ListThingsInBillingGroup", billingGroupName="nobody")
    j.call("AddThingToBillingGroup", billingGroupName="judged", thingName="judged-0")
    j.refused("ResourceNotFoundException", "AddThingToBillingGroup", billingGroupName="judged", thingName="nobody")
    j.shows("judged-0" in j.call("ListThingsInBillingGroup", billingGroupName="judged")["things"],
            "AddThingToBillingGroup")
    j.refused("VersionConflictException", "DeleteBillingGroup", billingGroupName="judged", expectedVersion=9)
    j.call("DeleteBillingGroup", billingGroupName="judged")
    j.shows(not j.call("ListBillingGroups", namePrefixFilter="jud")["billingGroups"]
            and "billingGroupName" not in j.call("DescribeThing", thingName="judged-0"), "DeleteBillingGroup")


def judge_registration(j, csr):
    answer = j.call("RegisterThing", templateBody=template(extra=csr), parameters={"SerialNumber": "by-template"})
    read = j.call("DescribeThing", thingName="by-template")
    j.shows("BEGIN CERTIFICATE" in answer["certificatePem"] and answer["resourceArns"]["thing"] == read["thingArn"],
            "RegisterThing")
    j.refused("ResourceRegistrationFailureException", "RegisterThing", templateBody=template(policy="nobody", extra=csr),
              parameters={"SerialNumber": "another"})
    j.refused("InvalidRequestException", "RegisterThing", templateBody="{}", parameters={})
    j.refused("ResourceNotFoundException", "DescribeThing", thingName="another")
    arn = answer["resourceArns"]["certificate"]
    clean_up(j, "by-template", arn, "judged")


def clean_up(j, thing, arn, policy):
    j.call("DetachPolicy", policyName=policy, target=arn)
    j.call("DetachThingPrincipal", thingName=thing, principal=arn)
    j.call("UpdateCertificate", certificateId=arn[-64:], newStatus="INACTIVE")
    j.call("DeleteCertificate", certificateId=arn[-64:])
    j.call("DeleteThing", thingName=thing)


def judge_the_end(j, keys, registered):
    arn = keys["certificateArn"]
    j.refused("ResourceNotFoundException", "DetachThingPrincipal", thingName="nobody", principal=arn)
    j.call("UpdateCertificate", certificateId=keys["certificateId"], newStatus="INACTIVE")
    j.refused("DeleteConflictException", "DeleteCertificate", certificateId=keys["certificateId"], forceDelete=True)
    clean_up(j, "judged-0", arn, "judged")
    j.refused("ResourceNotFoundException", "DescribeThing", thingName="judged-0")
    j.shows(True, "DetachThingPrincipal", "DeleteThing", "DeleteCertificate")
    for number in range(1, 5):
        j.call("DeleteThing", thingName=f"judged-{number}")
    j.call("DeletePolicy", policyName="judged")
    j.call("UpdateCertificate", certificateId=registered["certificateId"], newStatus="INACTIVE")
    j.call("DeleteCertificate", certificateId=registered["certificateId"])
    j.refused("InvalidRequestException", "DeleteThingType", thingTypeName="judged")
    j.call("DeprecateThingType", thingTypeName="judged")
    j.refused("ResourceNotFoundException", "DeprecateThingType", thingTypeName="nobody")
    j.shows(j.call("DescribeThingType", thingTypeName="judged")["thingTypeMetadata"]["deprecated"], "DeprecateThingType")
    j.refused("InvalidRequestException", "CreateThing", thingName="late", thingTypeName="judged")
    j.refused("ResourceNotFoundException", "DeleteThingType", thingTypeName="nobody")
    time.sleep(1.1)
    j.call("DeleteThingType", thingTypeName="judged")
    j.refused("ResourceNotFoundException", "DescribeThingType", thingTypeName="judged")
    j.shows(True, "DeleteThingType")


def judge_others(j, emulator):
    endpoint = j.call("DescribeEndpoint", endpointType="iot:Data-ATS")["endpointAddress"]
    j.shows(endpoint == emulator["endpoint"].removeprefix("wss://").removesuffix("/mqtt"), "DescribeEndpoint")
    identity = j.call("GetCallerIdentity", "sts")
    assert identity["Account"] == "123456789012" and identity["Arn"].startswith("arn:aws:iam::")
    quotas = j.call("ListAWSDefaultServiceQuotas", "service-quotas", ServiceCode="iotcore")["Quotas"]
    one = j.call("GetAWSDefaultServiceQuota", "service-quotas", ServiceCode="iotcore", QuotaCode="L-CAFFCA46")["Quota"]
    assert one in quotas and one["Value"] == 10
    j.call("ListServiceQuotas", "service-quotas", ServiceCode="iotcore")
    assert j.call("ListServices", "service-quotas")["Services"][0]["ServiceCode"] == "iotcore"
    wrong = dict(ServiceCode="iotcore", QuotaCode="L-00000000")
    j.refused("NoSuchResourceException", "GetAWSDefaultServiceQuota", "service-quotas", **wrong)
    j.refused("NoSuchResourceException", "GetServiceQuota", "service-quotas", **wrong)
    try:
        j.call("ListAuditTasks", startTime=0, endTime=1)
    except ClientError as raised:
        assert raised.response["Error"]["Code"] == "UnsupportedOperationException", raised
        assert "ListAuditTasks" in str(raised) and raised.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    else:
        raise AssertionError("ListAuditTasks is not offered, and succeeded")


def documented(model, operation):
    return {shape.name for shape in model.operation_model(operation).error_shapes} - COMMON


def verdicts(j):
    """For each operation of AWS IoT that was called: what is missing for it to count."""
    model = j.clients["iot"].meta.service_model
    for operation in model.operation_names:
        if ("iot", operation) not in j.succeeded:
            continue
        missing = [e for e in sorted(documented(model, operation) - j.met["iot", operation])
                   if (operation, e) not in UNREACHABLE]
        if ("iot", operation) not in j.read_back:
            missing.append("not read back")
        yield operation, missing


def write_table(j, path):
    model = j.clients["iot"].meta.service_model
    rows = dict(verdicts(j))
    lines = [
        "# What the emulator's control plane covers", "",
        "Generated by `scripts/control-plane --table` from botocore's service model; do not edit.", "",
        "An operation counts when boto3 has called it, has read back what it made, and has met each error that the model documents for",
        "it, besides those that every operation has. Errors that cannot come from the emulator are given with the reason.", "",
        f"{sum(not missing for missing in rows.values())} of the {len(model.operation_names)} operations of AWS IoT count. The others answer 501",
        "`UnsupportedOperationException` with their name. Besides: `GetCallerIdentity` of STS, and `GetServiceQuota`,",
        "`GetAWSDefaultServiceQuota`, `ListServiceQuotas`, `ListAWSDefaultServiceQuotas` and `ListServices` of Service Quotas.", "",
        "| operation | method and path | errors met | cannot happen here |", "|---|---|---|---|",
    ]
    for operation, missing in rows.items():
        assert not missing, (operation, missing)
        http = model.operation_model(operation).http
        met = ", ".join(f"`{e}`" for e in sorted(j.met["iot", operation])) or "-"
        never = "; ".join(f"`{e}`: {UNREACHABLE[operation, e]}" for e in sorted(documented(model, operation))
                          if (operation, e) in UNREACHABLE) or "-"
        lines.append(f"| {operation} | `{http['method']} {http['requestUri'].split('?')[0]}` | {met} | {never} |")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def main():
    if sys.argv[1] == "--catalogue":
        return catalogue()
    with open(sys.argv[1], encoding="utf-8") as file:
        emulator = json.loads(file.readline())
    j = Judge(emulator)
    judge_templates(j)
    keys, registered, csr = judge_certificates(j)
    judge_policies(j, keys)
    judge_things(j, keys)
    judge_groups(j)
    judge_registration(j, csr)
    judge_the_end(j, keys, registered)
    judge_others(j, emulator)
    wrong = {operation: missing for operation, missing in verdicts(j) if missing}
    assert not wrong, wrong
    if sys.argv[2:3] == ["--table"]:
        write_table(j, sys.argv[3])
    print(json.dumps({"client": f"boto3 {boto3.__version__}", "operations": len(j.succeeded),
                      "errors": sum(len(met) for met in j.met.values())}))


main()
