//! Typed payloads: one value in one field of an entry.
//!
//! By convention the encoded value is in the field [`PAYLOAD_FIELD`]; other fields stay free for whoever wants to route or
//! trace by them. [`Raw`] is there always and takes bytes as they are, [`Json`] with the feature `json`, and
//! [`MessagePack`] with the feature `msgpack`; both of the latter work through serde. A format of one's own is a type that
//! implements [`Codec`] with [`Encode`] and [`Decode`].
//!
//! ```
//! use bytes::Bytes;
//! use highwater::codec::{self, PAYLOAD_FIELD, Raw};
//!
//! let fields = codec::encode::<[u8], Raw>(b"hello")?;
//! assert_eq!(fields.get(PAYLOAD_FIELD).unwrap(), "hello");
//! assert_eq!(codec::decode::<Bytes, Raw>(&fields)?, "hello");
//! # Ok::<(), highwater::Error>(())
//! ```

use std::{any::type_name, error::Error as StdError, fmt};

use bytes::Bytes;

use crate::{Error, ErrorKind, Fields, Result};

/// The field that holds the encoded value.
pub const PAYLOAD_FIELD: &str = "payload";

/// The error underneath a format's own failure.
pub type CodecError = Box<dyn StdError + Send + Sync>;

/// A format of payloads. What it can do is in [`Encode`] and [`Decode`].
///
/// ```
/// use bytes::Bytes;
/// use highwater::codec::{self, Codec, CodecError, Decode, Encode};
///
/// /// A number in decimal.
/// #[derive(Debug)]
/// struct Decimal;
///
/// impl Codec for Decimal {
///     const NAME: &'static str = "decimal";
/// }
///
/// impl Encode<u64> for Decimal {
///     fn to_bytes(value: &u64) -> Result<Bytes, CodecError> {
///         Ok(value.to_string().into())
///     }
/// }
///
/// impl Decode<u64> for Decimal {
///     fn from_bytes(bytes: &Bytes) -> Result<u64, CodecError> {
///         Ok(std::str::from_utf8(bytes)?.parse()?)
///     }
/// }
///
/// let fields = codec::encode::<_, Decimal>(&7)?;
/// assert_eq!(codec::decode::<u64, Decimal>(&fields)?, 7);
/// # Ok::<(), highwater::Error>(())
/// ```
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// Its short name, for errors: `json`.
    const NAME: &'static str;
}

/// A format that can write a `T`.
pub trait Encode<T: ?Sized>: Codec {
    /// The value as bytes.
    ///
    /// # Errors
    ///
    /// The format's own error if it has no form for the value.
    fn to_bytes(value: &T) -> Result<Bytes, CodecError>;
}

/// A format that can read a `T`.
pub trait Decode<T>: Codec {
    /// The value that the bytes, all of them, stand for.
    ///
    /// # Errors
    ///
    /// The format's own error if they stand for none.
    fn from_bytes(bytes: &Bytes) -> Result<T, CodecError>;
}

/// Encodes a value as the fields of an entry: one field, [`PAYLOAD_FIELD`].
///
/// # Errors
///
/// [`ErrorKind::Invalid`] if the format has no form for the value, such as a map in JSON whose keys are not text.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use highwater::codec::{self, Json, PAYLOAD_FIELD};
///
/// let fields = codec::encode::<_, Json>(&("order", 7))?;
/// assert_eq!(fields.get(PAYLOAD_FIELD).unwrap(), r#"["order",7]"#);
/// # }
/// # Ok::<(), highwater::Error>(())
/// ```
pub fn encode<T: ?Sized, C: Encode<T>>(value: &T) -> Result<Fields> {
    let payload = C::to_bytes(value).map_err(|source| {
        Error::invalid("the value cannot be encoded: change its type, or use another codec")
            .with("codec", C::NAME)
            .with("type", type_name::<T>())
            .with_source(source)
    })?;
    Ok(Fields::from(vec![(Bytes::from_static(PAYLOAD_FIELD.as_bytes()), payload)]))
}

/// Decodes the value in the field [`PAYLOAD_FIELD`] of an entry.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`], with [`Undecodable`] as its source, if the field is missing or is not the encoded form of a `T`;
/// [`is_undecodable`] recognises it. It is final: the same bytes never decode later. Neither the message nor `Debug` of the
/// error shows anything of the payload.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use highwater::{Fields, codec::{self, Json}};
///
/// let fields: Fields = [("payload", r#"["order",7]"#)].into_iter().collect();
/// assert_eq!(codec::decode::<(String, u32), Json>(&fields)?, ("order".to_owned(), 7));
///
/// let error = codec::decode::<u32, Json>(&fields).unwrap_err();
/// assert!(codec::is_undecodable(&error));
/// # }
/// # Ok::<(), highwater::Error>(())
/// ```
pub fn decode<T, C: Decode<T>>(fields: &Fields) -> Result<T> {
    let Some(payload) = fields.get(PAYLOAD_FIELD) else {
        return Err(undecodable::<T, C>(
            "the entry has no field `payload`: it was not written by a codec",
            None,
        ));
    };
    C::from_bytes(payload).map_err(|source| {
        let message = "the payload cannot be decoded: dead-letter the entry, or use the codec that wrote it";
        undecodable::<T, C>(message, Some(source)).with("bytes", payload.len())
    })
}

/// Whether an error says that the payload of an entry cannot be decoded, as [`decode`] reports it.
///
/// Such an entry is undecodable for good: to deliver it again is of no use.
///
/// ```
/// use bytes::Bytes;
/// use highwater::{Error, Fields, codec::{self, Raw}};
///
/// let error = codec::decode::<Bytes, Raw>(&Fields::default()).unwrap_err();
/// assert!(codec::is_undecodable(&error));
/// assert!(!codec::is_undecodable(&Error::invalid("something else")));
/// ```
#[must_use]
pub fn is_undecodable(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<Undecodable>())
}

fn undecodable<T, C: Codec>(message: &'static str, source: Option<CodecError>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
        .with("codec", C::NAME)
        .with("type", type_name::<T>())
        .with_source(Undecodable { source })
}

/// The source of the error of [`decode`]; its own source is the error of the format, if there is one.
///
/// The errors of a format quote what they stumbled over. This level stands between so that `Debug` of the whole, which ends
/// in logs, shows nothing of the payload; who wants to see it follows [`source`](StdError::source).
pub struct Undecodable {
    source: Option<CodecError>,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.source.is_some() { "the payload is malformed" } else { "the payload is missing" })
    }
}

impl fmt::Debug for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undecodable").finish_non_exhaustive()
    }
}

impl StdError for Undecodable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    const NAME: &'static str = "raw";
}

impl Encode<[u8]> for Raw {
    fn to_bytes(value: &[u8]) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value))
    }
}

impl Encode<Vec<u8>> for Raw {
    fn to_bytes(value: &Vec<u8>) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value))
    }
}

impl Encode<Bytes> for Raw {
    fn to_bytes(value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }
}

impl Decode<Bytes> for Raw {
    fn from_bytes(bytes: &Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes.clone())
    }
}

impl Decode<Vec<u8>> for Raw {
    fn from_bytes(bytes: &Bytes) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

/// JSON, through serde. A value nested deeper than 128 does not decode.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy)]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    const NAME: &'static str = "json";
}

#[cfg(feature = "json")]
impl<T: serde::Serialize + ?Sized> Encode<T> for Json {
    fn to_bytes(value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }
}

#[cfg(feature = "json")]
impl<T: serde::de::DeserializeOwned> Decode<T> for Json {
    fn from_bytes(bytes: &Bytes) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// How deep a value may be nested.
#[cfg(feature = "msgpack")]
const DEPTH_MAX: usize = 128;

/// `MessagePack`, through serde. Structs are maps with named fields, so that a field may be added later.
/// A value nested deeper than 128 does not decode.
#[cfg(feature = "msgpack")]
#[derive(Debug, Clone, Copy)]
pub struct MessagePack;

#[cfg(feature = "msgpack")]
impl Codec for MessagePack {
    const NAME: &'static str = "msgpack";
}

#[cfg(feature = "msgpack")]
impl<T: serde::Serialize + ?Sized> Encode<T> for MessagePack {
    fn to_bytes(value: &T) -> Result<Bytes, CodecError> {
        Ok(rmp_serde::to_vec_named(value)?.into())
    }
}

#[cfg(feature = "msgpack")]
impl<T: serde::de::DeserializeOwned> Decode<T> for MessagePack {
    fn from_bytes(bytes: &Bytes) -> Result<T, CodecError> {
        let mut decoder = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
        // As in JSON. The decoder's own limit is deeper than the stack of a thread: one bad entry would end the process.
        decoder.set_max_depth(DEPTH_MAX);
        let value = T::deserialize(&mut decoder)?;
        // The decoder stops after the first value. Text, read as MessagePack, starts with a small number: without this
        // check much of all garbage would decode.
        if decoder.position() < bytes.len() as u64 {
            return Err("bytes follow the value".into());
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
