//! Scenarios in which others have lost, doubled or held up entries, each by its number in `docs/SCENARIOS.md`: `t` for the
//! traps, `s` for the hard scenarios.

mod claims;
mod index;
mod letters;
mod outages;
mod parking;
mod progress;
mod resets;
mod rows;
mod stage;
mod zombies;
