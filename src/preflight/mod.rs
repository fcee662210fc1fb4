//! What can be said of a run before anything is sent. Pure: what was found is given, what it means comes out.

mod account;
mod rows;

pub use account::{SKEW_LIMIT, is_same_endpoint, needed_room, role_account, time_left};
pub use rows::{Clash, Expected, Refused, Rows, Standing};
