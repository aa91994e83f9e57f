//! Which client to use, as a setting.

use std::{fmt, str::FromStr, sync::Arc};

use highwater::{
    Error, Result,
    backend::{AtomicSettle, TransactionalCheckpoint},
};

use crate::{backend::Redis, effects::Effects, settings::Settings};

/// A client, chosen at run time.
///
/// From text it is read by the name of its crate, which is also the name of its feature: `redis-rs` or `fred`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Client {
    /// The client of the `redis` crate: feature `redis-rs`.
    RedisRs,
    /// The client of the `fred` crate: feature `fred`.
    Fred,
}

impl Client {
    /// All of them, also those whose feature is off.
    pub const ALL: [Self; 2] = [Self::RedisRs, Self::Fred];

    /// The name in configuration files, which is the name of the feature too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisRs => "redis-rs",
            Self::Fred => "fred",
        }
    }
}

/// Everything that a [`Redis`] is, whatever its client: a stream store, a checkpoint store, both in one atomic step, and a
/// store of effects.
pub trait RedisStore: AtomicSettle + TransactionalCheckpoint<Tx = Effects> {}

impl<T: AtomicSettle + TransactionalCheckpoint<Tx = Effects>> RedisStore for T {}

/// Connects to a server with a client that is chosen at run time, and the default settings.
///
/// What comes back is both stores in one; as an `Arc<dyn StreamBackend>` or an `Arc<dyn CheckpointBackend>` it is one of them
/// alone. [`Redis`] is the same without the indirection.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use highwater::{Consumer, Subscription, backend::StreamBackend};
/// use highwater_redis::Client;
///
/// # async fn example(setting: &str) -> highwater::Result<()> {
/// let client: Client = setting.parse()?;
/// let redis = highwater_redis::connect("redis://127.0.0.1:6379", client).await?;
/// let streams: Arc<dyn StreamBackend> = redis.clone();
/// let consumer = Consumer::fused(Subscription::new("orders", "billing")?, redis).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Redis::connect`], and [`Unsupported`](highwater::ErrorKind::Unsupported) if the client's feature is off.
///
/// # Cancel safety
///
/// Safe: dropping it closes the connection.
pub async fn connect(url: impl Into<String>, client: Client) -> Result<Arc<dyn RedisStore>> {
    connect_with(Settings::new(url), client).await
}

/// Connects to a server with a client that is chosen at run time, and these settings.
///
/// # Errors
///
/// Those of [`connect`], and [`Invalid`](highwater::ErrorKind::Invalid) for a timeout of zero.
///
/// # Cancel safety
///
/// Safe: dropping it closes the connection.
pub async fn connect_with(settings: Settings, client: Client) -> Result<Arc<dyn RedisStore>> {
    match client {
        #[cfg(feature = "redis-rs")]
        Client::RedisRs => Ok(Arc::new(Redis::<crate::RedisRs>::open(settings).await?)),
        #[cfg(feature = "fred")]
        Client::Fred => Ok(Arc::new(Redis::<crate::Fred>::open(settings).await?)),
        #[cfg(not(all(feature = "redis-rs", feature = "fred")))]
        missing => Err(Error::new(
            highwater::ErrorKind::Unsupported,
            "this client is not built in: enable its feature in `highwater-redis`, or choose another",
        )
        .with("feature", missing)),
    }
}

impl FromStr for Client {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|client| client.name() == name);
        known.ok_or_else(|| {
            Error::invalid("there is no such client: write `redis-rs` or `fred`").with("client", name)
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use highwater::ErrorKind;

    use super::*;

    #[test]
    fn a_client_is_read_by_its_name() {
        for client in Client::ALL {
            assert_eq!(client.to_string().parse::<Client>().unwrap(), client);
        }
        for name in ["", "Fred", "redis", "redis-rs "] {
            assert_eq!(name.parse::<Client>().unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
    }

    #[tokio::test]
    async fn g18_a_client_that_is_not_built_in_names_its_feature() {
        for (client, built_in) in
            [(Client::RedisRs, cfg!(feature = "redis-rs")), (Client::Fred, cfg!(feature = "fred"))]
        {
            let error = connect("not a url", client).await.unwrap_err();
            let kind = if built_in { ErrorKind::Invalid } else { ErrorKind::Unsupported };
            assert_eq!(error.kind(), kind, "{error:?}");
            assert_eq!(error.context("feature"), (!built_in).then_some(client.name()));
        }
    }
}
