//! Thing types.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::page::{TOKENS, page, seconds};
use super::reply::ApiError;
use super::request::Call;
use super::things::id_of;
use crate::emulator::account::{RegistryError, ThingType, limits};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Properties {
    thing_type_description: Option<String>,
    #[serde(default)]
    searchable_attributes: Vec<String>,
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        #[serde(default)]
        thing_type_properties: Properties,
    }
    let name = call.name();
    limits::check_name("Thing type name", &name)?;
    let Properties { thing_type_description, searchable_attributes } =
        call.input::<Input>()?.thing_type_properties;
    if call.account.state().thing_types.contains_key(&name) {
        return Err(RegistryError::AlreadyExists("Thing type", name).into());
    }
    let thing_type = ThingType {
        description: thing_type_description,
        searchable: searchable_attributes,
        ..ThingType::new(call.now)
    };
    call.account.put(name.clone(), thing_type);
    let mut reply = named(call, &name);
    reply["thingTypeId"] = json!(id_of("thing type", &name));
    Ok(reply)
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let thing_type = call.account.state().find::<ThingType>(&name)?;
    let mut reply = shown(call, &name, thing_type);
    reply["thingTypeId"] = json!(id_of("thing type", &name));
    Ok(reply)
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let only = call.query.text("thingTypeName");
    let types = call.account.state().thing_types.iter().map(|(name, found)| (name.as_str(), found));
    let types = types.filter(|(name, _)| only.is_none_or(|only| only == *name));
    page(call, TOKENS, "thingTypes", types, |name, found| shown(call, name, found))
}

fn shown(call: &Call<'_>, name: &str, thing_type: &ThingType) -> Value {
    let mut metadata =
        json!({"deprecated": thing_type.deprecated.is_some(), "creationDate": seconds(thing_type.created)});
    if let Some(since) = thing_type.deprecated {
        metadata["deprecationDate"] = json!(seconds(since));
    }
    let mut properties = json!({ "searchableAttributes": thing_type.searchable });
    if let Some(description) = &thing_type.description {
        properties["thingTypeDescription"] = json!(description);
    }
    let mut reply = named(call, name);
    reply["thingTypeProperties"] = properties;
    reply["thingTypeMetadata"] = metadata;
    reply
}

fn named(call: &Call<'_>, name: &str) -> Value {
    json!({"thingTypeName": name, "thingTypeArn": call.owner.arn("thingtype", name)})
}

pub(super) fn deprecate(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        #[serde(default)]
        undo_deprecate: bool,
    }
    let (now, undo) = (call.now, call.input::<Input>()?.undo_deprecate);
    let thing_type = call.account.edit::<ThingType>(&call.names[0])?;
    thing_type.deprecated = if undo { None } else { Some(thing_type.deprecated.unwrap_or(now)) };
    Ok(json!({}))
}

/// A type can be deleted when no thing has it and it has been deprecated for as long as the scenario says (Developer
/// Guide, "Thing types": five minutes).
pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let state = call.account.state();
    let deprecated = state.find::<ThingType>(&name)?.deprecated;
    let wait = call.owner.scenario.thing_type_deletion_wait;
    let age = deprecated.map(|since| call.now.duration_since(since).unwrap_or(Duration::ZERO));
    if age.is_none_or(|age| age < wait) {
        return Err(ApiError::invalid(format!(
            "Cannot delete thing type {name}: it must have been deprecated for {} seconds.",
            wait.as_secs()
        )));
    }
    if state.things.values().any(|thing| thing.type_name.as_deref() == Some(&name)) {
        return Err(ApiError::invalid(format!("Cannot delete thing type {name}: there are things of it.")));
    }
    call.account.remove::<ThingType>(&name);
    Ok(json!({}))
}
