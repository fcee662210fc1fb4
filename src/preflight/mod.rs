//! What can be predicted about a run before anything is sent. Pure: takes findings, returns their meaning.

mod account;
mod rows;

pub use account::{SKEW_LIMIT, is_same_endpoint, needed_room, role_account, time_left};
pub use rows::{Clash, Expected, Refused, Rows, Standing};
