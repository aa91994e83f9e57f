//! G18: bad input, wherever it comes from, is a typed error that says what to do, changes nothing and loses nothing.

mod address;
mod beyond;
mod keys;
mod names;
mod place;
mod records;
mod requests;
mod rights;
mod room;
mod settings;
