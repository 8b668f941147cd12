//! What several test suites share.
#![allow(dead_code)]

pub mod lifecycle;
pub mod shapes;
pub mod shuffle;
pub mod vandal;
