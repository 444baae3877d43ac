//! PTX parser and interpreter of the simulated GPU.
