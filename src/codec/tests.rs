//! Values that come back, and bytes that must not.

use super::*;

#[test]
fn raw_bytes_are_shared_and_the_first_field_counts() {
    let bytes = Bytes::from(vec![0, 159, 146, 150]);
    let fields = encode::<_, Raw>(&bytes).unwrap();
    let back: Bytes = decode::<_, Raw>(&fields).unwrap();
    assert_eq!((back.as_ptr(), &back), (bytes.as_ptr(), &bytes));
    assert_eq!(decode::<Vec<u8>, Raw>(&encode::<[u8], Raw>(b"").unwrap()).unwrap(), b"");

    let twice: Fields = [("other", "x"), ("payload", "1"), ("payload", "2")].into_iter().collect();
    assert_eq!(decode::<Bytes, Raw>(&twice).unwrap(), "1");
}

#[test]
fn a_missing_payload_is_undecodable() {
    let other: Fields = [("Payload", "1")].into_iter().collect();
    for fields in [Fields::default(), other] {
        let error = decode::<Bytes, Raw>(&fields).unwrap_err();
        assert!(is_undecodable(&error), "{error:?}");
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Corrupt, crate::Retry::Never));
        assert!(error.source().unwrap().source().is_none());
    }
}

#[cfg(all(feature = "json", feature = "msgpack"))]
mod serde_formats {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    fn payload(bytes: impl Into<Bytes>) -> Fields {
        [(PAYLOAD_FIELD, bytes.into())].into_iter().collect()
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        change: i64,
        note: String,
        tags: Vec<Option<String>>,
        kind: Kind,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Open,
        Paid { cents: u32 },
        Split(Vec<u8>),
    }

    fn order() -> impl Strategy<Value = Order> {
        let kind = prop_oneof![
            Just(Kind::Open),
            any::<u32>().prop_map(|cents| Kind::Paid { cents }),
            any::<Vec<u8>>().prop_map(Kind::Split),
        ];
        let tags = prop::collection::vec(prop::option::of(".*"), 0..4);
        (any::<u64>(), any::<i64>(), ".*", tags, kind).prop_map(|(id, change, note, tags, kind)| Order {
            id,
            change,
            note,
            tags,
            kind,
        })
    }

    proptest! {
        #[test]
        fn a_value_comes_back(order in order()) {
            let json = encode::<_, Json>(&order).unwrap();
            prop_assert_eq!(decode::<Order, Json>(&json).unwrap(), order.clone());
            let packed = encode::<_, MessagePack>(&order).unwrap();
            prop_assert_eq!(decode::<Order, MessagePack>(&packed).unwrap(), order);
        }

        #[test]
        fn bytes_come_back(bytes in any::<Vec<u8>>()) {
            let fields = encode::<_, Raw>(&bytes).unwrap();
            prop_assert_eq!(decode::<Vec<u8>, Raw>(&fields).unwrap(), bytes);
        }

        #[test]
        fn garbage_is_an_error_and_nothing_worse(bytes in any::<Vec<u8>>()) {
            let fields = payload(bytes);
            for error in [decode::<Order, Json>(&fields).err(), decode::<Order, MessagePack>(&fields).err()] {
                prop_assert!(is_undecodable(&error.unwrap()));
            }
        }

        #[test]
        fn a_cut_or_lengthened_value_is_undecodable(order in order(), cut in any::<prop::sample::Index>()) {
            for whole in [encode::<_, Json>(&order).unwrap(), encode::<_, MessagePack>(&order).unwrap()] {
                let bytes = whole.get(PAYLOAD_FIELD).unwrap();
                let short = payload(bytes.slice(..cut.index(bytes.len())));
                let long = payload([bytes.as_ref(), b"!"].concat());
                for fields in [short, long] {
                    prop_assert!(decode::<Order, Json>(&fields).is_err());
                    prop_assert!(decode::<Order, MessagePack>(&fields).is_err());
                }
            }
        }
    }

    #[test]
    fn a_field_may_be_added_later() {
        #[derive(Serialize)]
        struct Later {
            id: u8,
            added: u8,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Before {
            id: u8,
        }
        let later = Later { id: 7, added: 1 };
        assert_eq!(decode::<Before, Json>(&encode::<_, Json>(&later).unwrap()).unwrap(), Before { id: 7 });
        let packed = encode::<_, MessagePack>(&later).unwrap();
        assert_eq!(decode::<Before, MessagePack>(&packed).unwrap(), Before { id: 7 });
    }

    #[test]
    fn the_error_says_nothing_of_the_payload() {
        let fields = payload(r#"{"id":"hunter2"}"#);
        let error = decode::<Order, Json>(&fields).unwrap_err();
        assert!(!format!("{error} {error:?} {:?}", error.source().unwrap()).contains("hunter2"));
        // The error of serde is still there for whoever asks for it.
        let serde = error.source().unwrap().source().unwrap();
        assert!(serde.is::<serde_json::Error>(), "{serde:?}");
        assert_eq!((error.context("codec"), error.context("bytes")), (Some("json"), Some("16")));
    }

    #[test]
    fn a_value_without_a_form_is_invalid() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = encode::<_, Json>(&map).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(!is_undecodable(&error) && error.source().is_some());
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let json = payload("[".repeat(100_000));
        assert!(is_undecodable(&decode::<serde_json::Value, Json>(&json).unwrap_err()));
        let packed = payload(vec![0x91; 100_000]);
        assert!(is_undecodable(&decode::<serde_json::Value, MessagePack>(&packed).unwrap_err()));
    }
}
