//! What the parts of Agent Assembly say to each other, and how it is stored on the way.
#![forbid(unsafe_code)]

pub mod batch;
pub mod identifier;
pub mod shapes;
pub mod spool;
pub mod terms;

/// The messages of `proto/spool.proto`.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/aasm.v1.rs"));
}
