//! Certificates attached to things.

use serde_json::{Value, json};

use super::Answer;
use super::page::{TOKENS, page};
use super::reply::ApiError;
use super::request::Call;
use crate::emulator::account::{Certificate, Detached, Thing};
use crate::template::PrincipalType;

const PRINCIPAL: &str = "x-amzn-principal";

pub(super) fn attach(call: &mut Call<'_>) -> Answer {
    let (name, id) = (call.name(), call.principal(PRINCIPAL)?);
    let kind = asked_kind(call)?.unwrap_or_default();
    let state = call.account.state();
    state.find::<Thing>(&name)?;
    state.find::<Certificate>(&id)?;
    state.check_exclusive(id, &name, kind).map_err(|refused| ApiError::invalid(refused.detail))?;
    call.account.edit::<Thing>(&name)?.attach(id, kind);
    call.account.edit::<Certificate>(&id)?.things.insert(&name);
    call.account.keep_attached(&Detached::Principal(name, id));
    Ok(json!({}))
}

pub(super) fn detach(call: &mut Call<'_>) -> Answer {
    let (name, id) = (call.name(), call.principal(PRINCIPAL)?);
    let state = call.account.state();
    state.find::<Thing>(&name)?;
    state.find::<Certificate>(&id)?;
    call.account.detach(call.now, Detached::Principal(name, id));
    Ok(json!({}))
}

pub(super) fn of_thing(call: &mut Call<'_>) -> Answer {
    list_of_thing(call, "principals", |arn, _| json!(arn))
}

pub(super) fn of_thing_v2(call: &mut Call<'_>) -> Answer {
    list_of_thing(
        call,
        "thingPrincipalObjects",
        |arn, kind| json!({"principal": arn, "thingPrincipalType": kind_name(kind)}),
    )
}

fn list_of_thing(call: &Call<'_>, field: &str, show: fn(String, PrincipalType) -> Value) -> Answer {
    let thing = call.account.state().find::<Thing>(&call.name())?;
    let wanted = asked_kind(call)?;
    let principals =
        thing.principals.iter().filter(|principal| wanted.is_none_or(|kind| kind == principal.kind));
    let named: Vec<_> =
        principals.map(|principal| (principal.certificate_id.to_string(), principal.kind)).collect();
    let items = named.iter().map(|(id, kind)| (id.as_str(), *kind));
    page(call, TOKENS, field, items, |id, kind| show(call.owner.arn("cert", id), kind))
}

pub(super) fn things(call: &mut Call<'_>) -> Answer {
    list_things(call, "things", |name, _| json!(name))
}

pub(super) fn things_v2(call: &mut Call<'_>) -> Answer {
    list_things(
        call,
        "principalThingObjects",
        |name, kind| json!({"thingName": name, "thingPrincipalType": kind_name(kind)}),
    )
}

fn list_things(call: &Call<'_>, field: &str, show: fn(&str, PrincipalType) -> Value) -> Answer {
    let id = call.principal(PRINCIPAL)?;
    let state = call.account.state();
    let kind_of = |name: &str| {
        let principals = state.things.get(name).map(|thing| &thing.principals).into_iter().flatten();
        let mut own = principals.filter(|principal| principal.certificate_id == id);
        own.next().map_or(PrincipalType::default(), |principal| principal.kind)
    };
    let wanted = asked_kind(call)?;
    let names = state.find::<Certificate>(&id)?.things.iter().map(|name| (name, kind_of(name)));
    let names = names.filter(|(_, kind)| wanted.is_none_or(|wanted| wanted == *kind));
    page(call, TOKENS, field, names, show)
}

fn asked_kind(call: &Call<'_>) -> Result<Option<PrincipalType>, ApiError> {
    match call.query.text("thingPrincipalType") {
        None => Ok(None),
        Some("EXCLUSIVE_THING") => Ok(Some(PrincipalType::Exclusive)),
        Some("NON_EXCLUSIVE_THING") => Ok(Some(PrincipalType::NonExclusive)),
        Some(_) => {
            Err(ApiError::invalid("thingPrincipalType must be EXCLUSIVE_THING or NON_EXCLUSIVE_THING."))
        }
    }
}

fn kind_name(kind: PrincipalType) -> &'static str {
    match kind {
        PrincipalType::Exclusive => "EXCLUSIVE_THING",
        PrincipalType::NonExclusive => "NON_EXCLUSIVE_THING",
    }
}
