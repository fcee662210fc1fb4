"""Asks the control plane and Service Quotas with boto3, AWS's own client: what a run left behind, and how it is cleaned up.

Usage: python-boto3-control.py EMULATOR_JSON THING, a file with the line that `fleetmint emulate` prints, and a thing that was
provisioned there. The thing is deleted.
"""

import json
import sys
from datetime import timezone
from urllib.parse import urlsplit

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ClientError


def connect(emulator, service="iot", **changes):
    url = urlsplit(emulator["endpoint"])
    keys = {
        "aws_access_key_id": emulator["access_key_id"],
        "aws_secret_access_key": emulator["secret_access_key"],
        "aws_session_token": emulator.get("session_token"),
    }
    return boto3.client(
        service,
        region_name=emulator["region"],
        endpoint_url=f"https://{url.hostname}:{url.port}",
        verify=emulator["ca_file"],
        config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20),
        **{**keys, **changes},
    )


def error_of(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"
    raise SystemExit(f"{call} was expected to fail")


def expect(found, wanted):
    if found != wanted:
        raise SystemExit(f"wanted {wanted}, got {found}")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        emulator = json.loads(file.readline())
    thing = sys.argv[2]
    iot = connect(emulator)

    url = urlsplit(emulator["endpoint"])
    expect(iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"], f"{url.hostname}:{url.port}")
    quotas = connect(emulator, "service-quotas")
    create = {"ServiceCode": "iotcore", "QuotaCode": "L-CAFFCA46"}
    default = quotas.get_aws_default_service_quota(**create)["Quota"]["Value"]
    expect(default, 10.0)
    described = iot.describe_thing(thingName=thing)
    expect(described["thingName"], thing)
    template = iot.describe_provisioning_template(templateName=emulator["template"])
    expect("Resources" in json.loads(template["templateBody"]), True)
    [arn] = iot.list_thing_principals(thingName=thing)["principals"]
    expect(iot.list_principal_things(principal=arn)["things"], [thing])
    certificate_id = arn.rsplit("/", 1)[1]
    certificate = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    expect((certificate["certificateArn"], certificate["status"]), (arn, "ACTIVE"))
    policies = iot.list_attached_policies(target=arn)["policies"]

    refused = {
        "wrong secret": error_of(connect(emulator, aws_secret_access_key="wrong").describe_thing, thingName=thing),
        "wrong key": error_of(connect(emulator, aws_access_key_id="AKIAWRONG").describe_thing, thingName=thing),
        "no such thing": error_of(iot.describe_thing, thingName="no-such-thing"),
        "no such quota": error_of(quotas.get_service_quota, ServiceCode="iotcore", QuotaCode="L-00000000"),
        "thing in use": error_of(iot.delete_thing, thingName=thing),
        "certificate in use": error_of(iot.delete_certificate, certificateId=certificate_id),
    }

    for policy in policies:
        iot.detach_policy(policyName=policy["policyName"], target=arn)
    iot.detach_thing_principal(thingName=thing, principal=arn)
    iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
    iot.delete_certificate(certificateId=certificate_id)
    iot.delete_thing(thingName=thing)
    expect(error_of(iot.describe_certificate, certificateId=certificate_id), "404 ResourceNotFoundException")

    print(json.dumps({
        "client": f"boto3 {boto3.__version__}, botocore {botocore.__version__}",
        "thingName": thing,
        "thingTypeName": described.get("thingTypeName"),
        "created": certificate["creationDate"].isoformat(timespec="seconds"),
        "notAfter": certificate["validity"]["notAfter"].astimezone(timezone.utc).isoformat(timespec="seconds"),
        "createQuota": default,
        "policies": [policy["policyName"] for policy in policies],
        "refused": refused,
    }))


if __name__ == "__main__":
    main()
