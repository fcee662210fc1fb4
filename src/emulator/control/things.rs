//! Things.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::page::{TOKENS, page};
use super::reply::ApiError;
use super::request::Call;
use crate::emulator::account::{
    Attributes, BillingGroup, Refused, RegistryError, Thing, ThingType, check_version, limits,
};
use crate::emulator::uuid::uuid;

/// Attributes as the API takes them.
#[derive(Deserialize, Default)]
pub(super) struct AttributePayload {
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    merge: bool,
}

impl AttributePayload {
    /// `known` with these attributes replacing it or merged into it. An empty value removes an attribute.
    pub(super) fn lay_over(&self, known: &Attributes) -> Result<Attributes, Refused> {
        for (name, value) in &self.attributes {
            limits::check_attribute(name, value)?;
        }
        let kept = known.iter().filter(|_| self.merge);
        let new = self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Attributes = kept.chain(new).collect();
        Ok(all.iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        thing_type_name: Option<String>,
        #[serde(default)]
        attribute_payload: AttributePayload,
        billing_group_name: Option<String>,
    }
    let (name, input) = (call.name(), call.input::<Input>()?);
    limits::check_name("Thing name", &name)?;
    let attributes = input.attribute_payload.lay_over(&Attributes::default())?;
    limits::check_attributes(attributes.len(), input.thing_type_name.as_deref())?;
    if let Some(type_name) = &input.thing_type_name {
        check_type(call, type_name)?;
    }
    if let Some(group) = &input.billing_group_name {
        call.account.state().find::<BillingGroup>(group)?;
    }
    let thing = Thing {
        type_name: input.thing_type_name.as_deref().map(Box::from),
        attributes,
        billing_group: input.billing_group_name.as_deref().map(Box::from),
        version: 1,
        ..Thing::default()
    };
    match call.account.state().things.get(&name) {
        Some(known) if is_same(known, &thing) => {}
        Some(_) => return Err(RegistryError::AlreadyExists("Thing", name).into()),
        None => call.account.put(name.clone(), thing),
    }
    Ok(json!({
        "thingName": name,
        "thingArn": call.owner.arn("thing", &name),
        "thingId": id_of("thing", &name),
    }))
}

fn is_same(known: &Thing, asked: &Thing) -> bool {
    known.type_name == asked.type_name
        && known.attributes == asked.attributes
        && known.billing_group == asked.billing_group
}

/// Checks that a thing may be given this type.
fn check_type(call: &Call<'_>, name: &String) -> Result<(), ApiError> {
    if call.account.state().find::<ThingType>(name)?.deprecated.is_some() {
        return Err(ApiError::invalid(format!(
            "Can not create new thing with deprecated thing type: {name}."
        )));
    }
    Ok(())
}

pub(super) fn update(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        thing_type_name: Option<String>,
        attribute_payload: Option<AttributePayload>,
        expected_version: Option<u64>,
        #[serde(default)]
        remove_thing_type: bool,
    }
    let (name, input) = (call.name(), call.input::<Input>()?);
    let known = call.account.state().find::<Thing>(&name)?;
    check_version(&name, known.version, input.expected_version)?;
    let mut thing = known.clone();
    match (input.thing_type_name, input.remove_thing_type) {
        (Some(_), true) => {
            return Err(ApiError::invalid("A thing type cannot be given and removed at the same time."));
        }
        (Some(type_name), false) => {
            check_type(call, &type_name)?;
            thing.type_name = Some(type_name.into());
        }
        (None, true) => thing.type_name = None,
        (None, false) => {}
    }
    if let Some(payload) = input.attribute_payload {
        thing.attributes = payload.lay_over(&thing.attributes)?;
    }
    limits::check_attributes(thing.attributes.len(), thing.type_name.as_deref())?;
    thing.version += 1;
    call.account.put(name, thing);
    Ok(json!({}))
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let thing = call.account.state().find::<Thing>(&name)?;
    let mut reply = shown(call, &name, thing);
    reply["defaultClientId"] = json!(name);
    reply["thingId"] = json!(id_of("thing", &name));
    if let Some(group) = &thing.billing_group {
        reply["billingGroupName"] = json!(group);
    }
    Ok(reply)
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let expected = call.query.number("expectedVersion")?;
    call.account.delete_thing(&call.name(), expected)?;
    Ok(json!({}))
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let query = &call.query;
    let (type_name, attribute) = (query.text("thingTypeName"), query.text("attributeName"));
    let (value, is_prefix) = (query.text("attributeValue"), query.flag("usePrefixAttributeValue")?);
    if value.is_some() && attribute.is_none() {
        return Err(ApiError::invalid("An attributeValue needs an attributeName."));
    }
    let has_value = |found: &str| match value {
        Some(value) if is_prefix => found.starts_with(value),
        Some(value) => found == value,
        None => true,
    };
    let selected = |thing: &Thing| {
        type_name.is_none_or(|name| thing.type_name.as_deref() == Some(name))
            && attribute.is_none_or(|name| thing.attributes.get(name).is_some_and(has_value))
    };
    let things = call.account.state().things.iter().filter(|(_, thing)| selected(thing));
    let things = things.map(|(name, thing)| (name.as_str(), thing));
    page(call, TOKENS, "things", things, |name, thing| shown(call, name, thing))
}

fn shown(call: &Call<'_>, name: &str, thing: &Thing) -> Value {
    let mut reply = json!({
        "thingName": name,
        "thingArn": call.owner.arn("thing", name),
        "attributes": thing.attributes,
        "version": thing.version,
    });
    if let Some(type_name) = &thing.type_name {
        reply["thingTypeName"] = json!(type_name);
    }
    reply
}

/// A UUID derived from the kind and the name. The service's is random; this one need not be stored.
pub(super) fn id_of(kind: &str, name: &str) -> String {
    let digest = crate::emulator::account::Fingerprint::of(format!("{kind}/{name}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.bytes()[..16]);
    uuid(u128::from_be_bytes(bytes))
}
