//! Default quotas of AWS IoT's control plane operations.

/// How often per second an account may call `operation` by default.
///
/// Source: Service Quotas, service `iotcore`, February 2024. Operations that are not listed there are assumed to
/// allow 10 calls per second, as most do.
pub(super) fn per_second(operation: &str) -> f64 {
    match operation {
        "DescribeThing" => 350.0,
        "AttachThingPrincipal"
        | "CreateThing"
        | "DeleteThing"
        | "DescribeThingType"
        | "DetachThingPrincipal"
        | "UpdateThing" => 100.0,
        "ListThingPrincipals" => 20.0,
        "AttachPolicy" | "DetachPolicy" | "ListAttachedPolicies" | "ListPrincipalPolicies" => 15.0,
        _ => 10.0,
    }
}
