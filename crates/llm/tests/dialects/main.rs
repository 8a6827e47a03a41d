//! The dialects against each other: every agent's dialect over every provider's, from recorded-like fixtures written
//! by hand after the providers' references, so that readers and writers are not only checked against each other.

mod errors;
mod fixtures;
mod properties;
mod relaying;
mod rendered;
mod requests;
