// Uses the control plane with the AWS SDK for JavaScript v3, as a provisioning back end does: a template, a claim, a thing with a
// certificate and a policy, lists with a paginator, errors by their class, and the way back.
//
// Endpoint, region, keys and CA come from the environment: see scripts/control-plane.

import assert from "node:assert/strict";

import * as iot from "@aws-sdk/client-iot";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import { GetAWSDefaultServiceQuotaCommand, ListAWSDefaultServiceQuotasCommand, ServiceQuotasClient } from "@aws-sdk/client-service-quotas";

const settings = { region: process.env.AWS_DEFAULT_REGION, endpoint: process.env.AWS_ENDPOINT_URL };
const client = new iot.IoTClient(settings);
let operations = 0;

function send(Command, input = {}) {
  operations += 1;
  return client.send(new Command(input));
}

async function refused(Exception, Command, input) {
  await assert.rejects(send(Command, input), (error) => {
    assert(error instanceof Exception, `${error.name}: ${error.message}`);
    assert(error.$metadata.requestId);
    return true;
  });
}

const document = JSON.stringify({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: "iot:*", Resource: "*" }] });
const body = JSON.stringify({
  Parameters: { SerialNumber: { Type: "String" } },
  Resources: {
    thing: { Type: "AWS::IoT::Thing", Properties: { ThingName: { Ref: "SerialNumber" } } },
    certificate: { Type: "AWS::IoT::Certificate", Properties: { CertificateId: { Ref: "AWS::IoT::Certificate::Id" } } },
    policy: { Type: "AWS::IoT::Policy", Properties: { PolicyName: "js" } },
  },
});

await send(iot.CreatePolicyCommand, { policyName: "js", policyDocument: document });
await refused(iot.MalformedPolicyException, iot.CreatePolicyCommand, { policyName: "js2", policyDocument: "{}" });
await send(iot.CreateProvisioningTemplateCommand, {
  templateName: "js",
  templateBody: body,
  provisioningRoleArn: "arn:aws:iam::123456789012:role/r",
  enabled: true,
});
assert.equal((await send(iot.DescribeProvisioningTemplateCommand, { templateName: "js" })).templateBody, body);
const claim = await send(iot.CreateProvisioningClaimCommand, { templateName: "js" });
assert.match(claim.keyPair.PrivateKey, /PRIVATE KEY/);
const keys = await send(iot.CreateKeysAndCertificateCommand, { setAsActive: true });
for (const number of [1, 2, 3]) {
  await send(iot.CreateThingCommand, { thingName: `js:${number}`, attributePayload: { attributes: { site: "J" } } });
}
await send(iot.AttachThingPrincipalCommand, { thingName: "js:1", principal: keys.certificateArn });
await send(iot.AttachPolicyCommand, { policyName: "js", target: keys.certificateArn });
const names = [];
for await (const page of iot.paginateListThings({ client, pageSize: 2 }, { attributeName: "site", attributeValue: "J" })) {
  names.push(...page.things.map((thing) => thing.thingName));
}
assert.deepEqual(names, ["js:1", "js:2", "js:3"]);
assert.deepEqual((await send(iot.ListAttachedPoliciesCommand, { target: keys.certificateArn })).policies.map((p) => p.policyName), ["js"]);
await refused(iot.InvalidRequestException, iot.DeleteThingCommand, { thingName: "js:1" });
await refused(iot.CertificateStateException, iot.DeleteCertificateCommand, { certificateId: keys.certificateId });
await refused(iot.ResourceNotFoundException, iot.DescribeThingCommand, { thingName: "nobody" });
await refused(iot.ResourceAlreadyExistsException, iot.CreatePolicyCommand, { policyName: "js", policyDocument: document });

await send(iot.DetachPolicyCommand, { policyName: "js", target: keys.certificateArn });
await send(iot.DetachThingPrincipalCommand, { thingName: "js:1", principal: keys.certificateArn });
await send(iot.UpdateCertificateCommand, { certificateId: keys.certificateId, newStatus: "INACTIVE" });
await send(iot.DeleteCertificateCommand, { certificateId: keys.certificateId });
for (const name of names) await send(iot.DeleteThingCommand, { thingName: name });
await send(iot.DeletePolicyCommand, { policyName: "js" });
await send(iot.DeleteProvisioningTemplateCommand, { templateName: "js" });

const identity = await new STSClient(settings).send(new GetCallerIdentityCommand({}));
assert.equal(identity.Account, "123456789012");
const quotas = new ServiceQuotasClient(settings);
const quota = { ServiceCode: "iotcore", QuotaCode: "L-CAFFCA46" };
assert.equal((await quotas.send(new GetAWSDefaultServiceQuotaCommand(quota))).Quota.Value, 10);
assert((await quotas.send(new ListAWSDefaultServiceQuotasCommand({ ServiceCode: "iotcore" }))).Quotas.length > 3);
console.log(JSON.stringify({ client: "AWS SDK for JavaScript v3", operations: operations + 3 }));
