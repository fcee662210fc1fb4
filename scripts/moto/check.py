"""`fleetmint check` against an account made with boto3. Loopback only."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import boto3

from account import Account, throttle_as_iot, throttle_as_others

FLEETMINT, SCRATCH = sys.argv[1], Path(sys.argv[2])
BODY = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "SerialNumber"},
                "ThingTypeName": "Kettle",
                "ThingGroups": ["kitchen"],
                "BillingGroup": "lot-1",
                "AttributePayload": {"site": {"Ref": "Site"}},
            },
        },
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {}},
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "KettlePolicy"}},
    },
}
TEMPLATE = {
    "templateName": "KETTLE",
    "templateBody": json.dumps(BODY),
    "enabled": True,
    "provisioningRoleArn": "arn:aws:iam::123456789012:role/Minting",
    "type": "FLEET_PROVISIONING",
}
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}


def emulator():
    """What is dialled: moto speaks no MQTT."""
    process = subprocess.Popen([FLEETMINT, "emulate", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    return process, json.loads(process.stdout.readline())


def check(account, ready, *words):
    lot = SCRATCH / "lot.csv"
    command = [FLEETMINT, "check", str(lot), "--endpoint", ready["endpoint"], "--region", "us-east-1"]
    command += ["--template", "KETTLE", "--ca-file", ready["ca_file"], "--json", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FLEETMINT_"))}
    environment |= {
        "AWS_ACCESS_KEY_ID": ready["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": ready["secret_access_key"],
        "AWS_ENDPOINT_URL": account.url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


def expect(findings, **outcomes):
    for name, outcome in outcomes.items():
        name = name.replace("_", " ")
        assert findings[name]["outcome"] == outcome, (name, outcome, findings.get(name))


def main():
    (SCRATCH / "lot.csv").write_text("SerialNumber,Site\nSN1,Berlin\nSN2,Bonn\n")
    account = Account({"KETTLE": TEMPLATE})
    process, ready = emulator()
    try:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        iot = boto3.client("iot", endpoint_url=account.url, **keys)

        # Nothing is there yet.
        code, findings = check(account, ready)
        assert code == 69, findings
        expect(findings, template="ok", parameters="ok", names="ok", things="ok", policy="wrong", group="wrong")
        expect(findings, thing_type="wrong", billing_group="wrong", credentials="ok")
        # moto's account has another endpoint than the emulator that is dialled.
        expect(findings, endpoint="warning")

        # Made by another client, all of it is found.
        iot.create_thing_type(thingTypeName="Kettle")
        iot.create_thing_group(thingGroupName="kitchen")
        iot.create_billing_group(billingGroupName="lot-1")
        iot.create_policy(policyName="KettlePolicy", policyDocument=json.dumps(POLICY))
        code, findings = check(account, ready)
        assert code == 0, findings
        expect(findings, policy="ok", group="ok", thing_type="ok", billing_group="ok", things="ok")

        # A thing that somebody made.
        iot.create_thing(thingName="SN2")
        code, findings = check(account, ready, "--deep")
        assert code == 0 and "1 exist already (all 2 looked for)" in findings["things"]["found"], findings
        expect(findings, things="warning")

        # A thing type that was deprecated.
        iot.deprecate_thing_type(thingTypeName="Kettle")
        code, findings = check(account, ready)
        assert code == 69 and "is deprecated" in findings["thing type"]["found"], findings
        iot.deprecate_thing_type(thingTypeName="Kettle", undoDeprecate=True)

        # Throttles, either way: the check goes on, more slowly.
        for throttle in [throttle_as_iot(), throttle_as_others()]:
            began = time.monotonic()
            account.throttles = [throttle] * 6
            code, findings = check(account, ready)
            assert code == 0 and not account.throttles, findings
            expect(findings, policy="ok", things="warning", template="ok")
            assert time.monotonic() - began < 20
        print(json.dumps({"client": "fleetmint check", "account": "moto", "requests": sum(account.requests.values())}))
    finally:
        process.terminate()
        account.close()


main()
