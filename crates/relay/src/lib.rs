//! The relay of a pod: TLS to the hub for the shim beside it and for the agent's gateway.
//!
//! It passes bytes and decides nothing. A process of its own, because the shim has one thread and
//! links no TLS.
