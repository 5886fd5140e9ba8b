//! Whole stories, told by clusters of every mixture of programs and compared with the C program's after each step.

mod groups;
mod long_paths;
mod refusals;
mod state;
mod topologies;
mod trees;
