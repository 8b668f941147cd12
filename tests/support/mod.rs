//! What several test suites share.
#![allow(dead_code)]

pub mod lifecycle;
pub mod shuffle;
