//! The simulated GPU: device model, device server and the protocol its driver stand-ins speak.
