//! The loan protocol under simulation: many daemons, true time that nobody sees, and everything that can go wrong.
//!
//! The code that runs here is the code that daemons run: [`Lender`](crate::loan::Lender),
//! [`Borrower`](crate::loan::Borrower), the two enforcement points. Simulated are the network, the store, clocks,
//! tenants, and death. One seed is one run, the same every time:
//!
//! ```text
//! SEED=7 cargo test -p headgate-quota --test simulation -- --nocapture
//! ```
//!
//! An [`oracle`] looks on. It knows what the device has and what the enforcement points apply, and trusts
//! nothing that a daemon believes.
//!
//! Read in this order: [`rng`], [`plan`], [`store`], [`world`], [`oracle`].

pub mod rng;
pub mod plan;
pub mod store;
pub mod world;
pub mod oracle;

mod clock;
mod faults;
mod process;
mod tenants;

pub use oracle::{Rule, Violation};
pub use plan::{Faults, Plan};
pub use world::{Manner, Outcome, Stats, World, run};
