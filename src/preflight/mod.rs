//! What can be predicted about a run before anything is sent. Pure: takes findings, returns their meaning.

mod account;
mod rows;

pub use account::{EndpointMatch, SKEW_LIMIT, compare_endpoints, needed_room, role_account, time_left};
pub use rows::{Clash, Expected, Names, Refused, Rows, Standing};
