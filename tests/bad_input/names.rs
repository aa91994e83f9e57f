//! Names and ids.

use highwater::{ConsumerName, EntryId, Error, ErrorKind, GroupName, Incarnation, StreamName, Subscription};

use super::place::assert_told;

#[test]
fn g18_bad_names_are_refused_and_say_what_a_name_is() {
    let long = "x".repeat(513);
    let wide = "ä".repeat(257);
    let bad = [
        ("", "is empty"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\u{7f}", "control character"),
        ("\u{85}", "control character"),
        (&long, "longer than 512 bytes"),
        (&wide, "longer than 512 bytes"),
    ];
    type Take = fn(&str) -> Option<Error>;
    let names: [(&str, Take); 5] = [
        ("stream", |name| StreamName::new(name).err()),
        ("group", |name| GroupName::new(name).err()),
        ("consumer", |name| ConsumerName::new(name).err()),
        ("stream", |name| Subscription::new(name, "g").err()),
        ("group", |name| Subscription::new("s", name).err()),
    ];
    for (name, problem) in bad {
        for (what, take) in names {
            let error = take(name).unwrap_or_else(|| panic!("a {what} may be called {name:?}"));
            let words = [what, problem, "use 1 to 512 bytes without control characters"];
            assert_told(name.escape_debug(), &error, ErrorKind::Invalid, &words);
            // A name of any length or content must not spoil a log.
            assert!(error.to_string().len() < 400 && !error.to_string().contains('\0'), "{error}");
        }
    }
}

#[test]
fn g18_bad_ids_are_refused_and_say_what_an_id_is() {
    for bad in [
        "",
        "-",
        "1-",
        "-1",
        "1-2-3",
        "1 -2",
        " 1-2",
        "+1-0",
        "1-+0",
        "0x1-0",
        "1.5-0",
        "$",
        "*",
        ">",
        "１-0",
        "18446744073709551616-0",
        "0-18446744073709551616",
        "000000000000000000000-0",
    ] {
        let error = bad.parse::<EntryId>().expect_err(bad);
        assert_told(bad, &error, ErrorKind::Invalid, &["`ms-seq`", "unsigned 64-bit"]);
        assert_eq!(error.context("id"), Some(bad));
    }
    for bad in ["", "two words", "ä", "a\tb", &"x".repeat(65)] {
        let error = Incarnation::new(bad).expect_err(bad);
        assert_told(bad, &error, ErrorKind::Invalid, &["1 to 64 bytes of visible ASCII"]);
    }
}
