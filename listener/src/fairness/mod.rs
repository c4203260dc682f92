//! Who has how much: counters for address prefixes in fixed memory, so that there is nothing to fill.
//!
//! Addresses are counted by two prefixes: a narrow one, which one client can have to itself (IPv4 /32, IPv6 /64), and a
//! wide one, which one network can (IPv4 /24, IPv6 /48). Each prefix has a cell in a table of 65,536, chosen by a hash
//! under a random key of this process: nobody can aim at the cell of somebody else.

mod buckets;
mod prefix;
mod shares;

pub use buckets::{Buckets, Rate};
pub use prefix::{Cells, Prefix, Prefixes};
pub use shares::Shares;

/// How much more a wide prefix may have than a narrow one, where a limit is a number.
pub const WIDE_FACTOR: u32 = 4;
