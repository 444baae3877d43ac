//! The rows of THE table, one file for each area. Each file's macro adds its rows and hands on to the next.

mod process;
mod memory;
mod copy;
mod launch;
mod graph;
mod texture;
