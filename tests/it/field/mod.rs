//! Cases from the field: what people's files, accounts and networks are like. Each test says whose problem it is.

mod claims;
mod device_keys;
mod exports;
mod lots;
mod operator;
mod pilot;
mod places;
mod proxy;
mod rejected;
mod rework;
mod settings;
mod template_fit;
mod templates;
mod what_was_sent;
