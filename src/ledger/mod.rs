//! The ledger: what a run must not forget, in SQLite.
