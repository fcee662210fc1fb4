//! Thing groups and billing groups.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::page::{TOKENS, page, seconds};
use super::reply::ApiError;
use super::request::Call;
use super::things::{AttributePayload, id_of};
use crate::emulator::account::{
    BillingGroup, RegistryError, State, Thing, ThingGroup, check_version, limits,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Properties {
    thing_group_description: Option<String>,
    #[serde(default)]
    attribute_payload: AttributePayload,
}

/// A thing and a thing or billing group, each by name or ARN.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Membership {
    thing_name: Option<String>,
    thing_arn: Option<String>,
    #[serde(alias = "billingGroupName")]
    thing_group_name: Option<String>,
    #[serde(alias = "billingGroupArn")]
    thing_group_arn: Option<String>,
}

impl Membership {
    /// The names of the thing and of the group.
    fn of(call: &Call<'_>) -> Result<(String, String), ApiError> {
        let Self { thing_name, thing_arn, thing_group_name, thing_group_arn } = call.input()?;
        let name = |name: Option<String>, arn: Option<String>, kind: &str| {
            let of_arn = || Some(arn.as_deref()?.rsplit_once('/')?.1.to_owned());
            name.or_else(of_arn)
                .ok_or_else(|| ApiError::invalid(format!("A {kind} name or ARN is required.")))
        };
        Ok((name(thing_name, thing_arn, "thing")?, name(thing_group_name, thing_group_arn, "group")?))
    }
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        parent_group_name: Option<String>,
        #[serde(default)]
        thing_group_properties: Properties,
    }
    let (name, input) = (call.name(), call.input::<Input>()?);
    limits::check_name("Thing group name", &name)?;
    if let Some(parent) = &input.parent_group_name {
        call.account.state().find::<ThingGroup>(parent)?;
    }
    if call.account.state().thing_groups.contains_key(&name) {
        return Err(RegistryError::AlreadyExists("Thing group", name).into());
    }
    let properties = input.thing_group_properties;
    let mut group = ThingGroup::new(call.now);
    group.attributes = properties.attribute_payload.lay_over(&group.attributes)?;
    group.description = properties.thing_group_description;
    group.parent = input.parent_group_name;
    call.account.put(name.clone(), group);
    Ok(json!({
        "thingGroupName": name,
        "thingGroupArn": call.owner.arn("thinggroup", &name),
        "thingGroupId": id_of("thing group", &name),
    }))
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let state = call.account.state();
    let group = state.find::<ThingGroup>(&name)?;
    let mut properties = json!({"attributePayload": {"attributes": group.attributes}});
    if let Some(description) = &group.description {
        properties["thingGroupDescription"] = json!(description);
    }
    let mut metadata = json!({"creationDate": seconds(group.created)});
    if let Some(parent) = &group.parent {
        metadata["parentGroupName"] = json!(parent);
        let ancestors: Vec<_> = ancestors(state, &name).map(|name| shown(call, name)).collect();
        metadata["rootToParentThingGroups"] = ancestors.into_iter().rev().collect();
    }
    Ok(json!({
        "thingGroupName": name,
        "thingGroupArn": call.owner.arn("thinggroup", &name),
        "thingGroupId": id_of("thing group", &name),
        "version": group.version,
        "thingGroupProperties": properties,
        "thingGroupMetadata": metadata,
    }))
}

/// The groups above a group, from its parent up. This ends because a group's parent never changes.
fn ancestors<'s>(state: &'s State, name: &str) -> impl Iterator<Item = &'s str> {
    let parent = |name: &str| state.thing_groups.get(name)?.parent.as_deref();
    std::iter::successors(parent(name), move |name| parent(name))
}

fn shown(call: &Call<'_>, name: &str) -> Value {
    json!({"groupName": name, "groupArn": call.owner.arn("thinggroup", name)})
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let state = call.account.state();
    let prefix = call.query.text("namePrefixFilter").unwrap_or_default();
    let parent = call.query.text("parentGroup").map(str::to_owned);
    if let Some(parent) = &parent {
        state.find::<ThingGroup>(parent)?;
    }
    // Without a parent, all groups are listed, or only the top-level ones with `recursive=false`.
    let is_recursive = call.query.text("recursive") != Some("false") && parent.is_none();
    let is_recursive = is_recursive || call.query.flag("recursive")?;
    let selected = |name: &String, group: &ThingGroup| match &parent {
        Some(parent) if is_recursive => ancestors(state, name).any(|above| above == parent),
        Some(parent) => group.parent.as_ref() == Some(parent),
        None => is_recursive || group.parent.is_none(),
    };
    let groups = state.thing_groups.iter().filter(|(name, group)| selected(name, group));
    let names = groups.map(|(name, _)| (name.as_str(), ())).filter(|(name, ())| name.starts_with(prefix));
    page(call, TOKENS, "thingGroups", names, |name, ()| shown(call, name))
}

pub(super) fn update(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        thing_group_properties: Properties,
        expected_version: Option<u64>,
    }
    let (name, input) = (call.name(), call.input::<Input>()?);
    let group = call.account.edit::<ThingGroup>(&name)?;
    check_version(&name, group.version, input.expected_version)?;
    let properties = input.thing_group_properties;
    group.attributes = properties.attribute_payload.lay_over(&group.attributes)?;
    if properties.thing_group_description.is_some() {
        group.description = properties.thing_group_description;
    }
    group.version += 1;
    Ok(json!({ "version": group.version }))
}

/// Deleting a group that does not exist succeeds. The group's things remain, outside it.
pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let (name, expected) = (call.name(), call.query.number("expectedVersion")?);
    let state = call.account.state();
    let Some(group) = state.thing_groups.get(&name) else { return Ok(json!({})) };
    check_version(&name, group.version, expected)?;
    if state.thing_groups.values().any(|other| other.parent.as_ref() == Some(&name)) {
        return Err(ApiError::invalid(format!("Cannot delete thing group {name}: there are groups in it.")));
    }
    let things = state.things.iter().filter(|(_, thing)| thing.groups.contains(&name));
    let things: Vec<_> = things.map(|(thing, _)| thing.clone()).collect();
    for thing in things {
        call.account.edit::<Thing>(&thing)?.groups.remove(&name);
    }
    call.account.remove::<ThingGroup>(&name);
    Ok(json!({}))
}

pub(super) fn things(call: &mut Call<'_>) -> Answer {
    let (name, is_recursive) = (call.name(), call.query.flag("recursive")?);
    let state = call.account.state();
    state.find::<ThingGroup>(&name)?;
    let below = state.thing_groups.keys().filter(|group| ancestors(state, group).any(|above| above == name));
    let below = below.filter(|_| is_recursive).map(String::as_str);
    let groups: BTreeSet<&str> = below.chain([name.as_str()]).collect();
    let is_in = |thing: &Thing| thing.groups.iter().any(|group| groups.contains(group));
    let things = state.things.iter().filter(|(_, thing)| is_in(thing)).map(|(name, _)| (name.as_str(), ()));
    page(call, TOKENS, "things", things, |name, ()| json!(name))
}

pub(super) fn of_thing(call: &mut Call<'_>) -> Answer {
    let thing = call.account.state().find::<Thing>(&call.name())?;
    let groups = thing.groups.iter().map(|name| (name, ()));
    page(call, TOKENS, "thingGroups", groups, |name, ()| shown(call, name))
}

pub(super) fn add(call: &mut Call<'_>) -> Answer {
    let (thing, group) = Membership::of(call)?;
    add_to(call, &thing, &group)
}

fn add_to(call: &mut Call<'_>, thing: &String, group: &String) -> Answer {
    call.account.state().find::<ThingGroup>(group)?;
    let mut groups = call.account.state().find::<Thing>(thing)?.groups.clone();
    groups.insert(group);
    limits::check_groups(&groups)?;
    call.account.edit::<Thing>(thing)?.groups = groups;
    Ok(json!({}))
}

pub(super) fn remove(call: &mut Call<'_>) -> Answer {
    let (thing, group) = Membership::of(call)?;
    remove_from(call, &thing, &group)
}

fn remove_from(call: &mut Call<'_>, thing: &String, group: &String) -> Answer {
    call.account.state().find::<ThingGroup>(group)?;
    call.account.edit::<Thing>(thing)?.groups.remove(group);
    Ok(json!({}))
}

pub(super) fn update_for_thing(call: &mut Call<'_>) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        thing_name: String,
        #[serde(default)]
        thing_groups_to_add: Vec<String>,
        #[serde(default)]
        thing_groups_to_remove: Vec<String>,
    }
    let Input { thing_name, thing_groups_to_add, thing_groups_to_remove } = call.input()?;
    thing_groups_to_remove.iter().try_for_each(|group| remove_from(call, &thing_name, group).map(drop))?;
    thing_groups_to_add.iter().try_for_each(|group| add_to(call, &thing_name, group).map(drop))?;
    Ok(json!({}))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct BillingProperties {
    billing_group_description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BillingInput {
    #[serde(default)]
    billing_group_properties: BillingProperties,
    expected_version: Option<u64>,
}

pub(super) fn create_billing(call: &mut Call<'_>) -> Answer {
    let (name, input) = (call.name(), call.input::<BillingInput>()?);
    limits::check_name("Billing group name", &name)?;
    if call.account.state().billing_groups.contains_key(&name) {
        return Err(RegistryError::AlreadyExists("Billing group", name).into());
    }
    let description = input.billing_group_properties.billing_group_description;
    let group = BillingGroup { description, ..BillingGroup::new(call.now) };
    call.account.put(name.clone(), group);
    Ok(named_billing(call, &name))
}

fn named_billing(call: &Call<'_>, name: &str) -> Value {
    json!({
        "billingGroupName": name,
        "billingGroupArn": call.owner.arn("billinggroup", name),
        "billingGroupId": id_of("billing group", name),
    })
}

pub(super) fn describe_billing(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let group = call.account.state().find::<BillingGroup>(&name)?;
    let mut reply = named_billing(call, &name);
    reply["version"] = json!(group.version);
    reply["billingGroupMetadata"] = json!({"creationDate": seconds(group.created)});
    reply["billingGroupProperties"] = match &group.description {
        Some(description) => json!({ "billingGroupDescription": description }),
        None => json!({}),
    };
    Ok(reply)
}

pub(super) fn list_billing(call: &mut Call<'_>) -> Answer {
    let prefix = call.query.text("namePrefixFilter").unwrap_or_default();
    let names = call.account.state().billing_groups.keys().map(|name| (name.as_str(), ()));
    let names = names.filter(|(name, ())| name.starts_with(prefix));
    page(
        call,
        TOKENS,
        "billingGroups",
        names,
        |name, ()| json!({"groupName": name, "groupArn": call.owner.arn("billinggroup", name)}),
    )
}

pub(super) fn update_billing(call: &mut Call<'_>) -> Answer {
    let (name, input) = (call.name(), call.input::<BillingInput>()?);
    let group = call.account.edit::<BillingGroup>(&name)?;
    check_version(&name, group.version, input.expected_version)?;
    group.description = input.billing_group_properties.billing_group_description;
    group.version += 1;
    Ok(json!({ "version": group.version }))
}

/// Deleting a billing group that does not exist succeeds. Its things remain, outside it.
pub(super) fn delete_billing(call: &mut Call<'_>) -> Answer {
    let (name, expected) = (call.name(), call.query.number("expectedVersion")?);
    let state = call.account.state();
    let Some(group) = state.billing_groups.get(&name) else { return Ok(json!({})) };
    check_version(&name, group.version, expected)?;
    for thing in things_billed(state, &name).map(str::to_owned).collect::<Vec<_>>() {
        call.account.edit::<Thing>(&thing)?.billing_group = None;
    }
    call.account.remove::<BillingGroup>(&name);
    Ok(json!({}))
}

fn things_billed<'s>(state: &'s State, group: &str) -> impl Iterator<Item = &'s str> {
    let billed = state.things.iter().filter(move |(_, thing)| thing.billing_group.as_deref() == Some(group));
    billed.map(|(name, _)| name.as_str())
}

pub(super) fn things_billing(call: &mut Call<'_>) -> Answer {
    let name = call.name();
    let state = call.account.state();
    state.find::<BillingGroup>(&name)?;
    let things = things_billed(state, &name).map(|thing| (thing, ()));
    page(call, TOKENS, "things", things, |name, ()| json!(name))
}

pub(super) fn add_billing(call: &mut Call<'_>) -> Answer {
    let (thing, group) = Membership::of(call)?;
    call.account.state().find::<BillingGroup>(&group)?;
    call.account.edit::<Thing>(&thing)?.billing_group = Some(group.into());
    Ok(json!({}))
}

pub(super) fn remove_billing(call: &mut Call<'_>) -> Answer {
    let (thing, group) = Membership::of(call)?;
    call.account.state().find::<BillingGroup>(&group)?;
    let thing = call.account.edit::<Thing>(&thing)?;
    thing.billing_group = thing.billing_group.take().filter(|known| **known != *group);
    Ok(json!({}))
}
