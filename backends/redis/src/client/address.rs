//! Where the servers are, as a URL says it. Read here once, so that every driver understands the same.

use std::{borrow::Cow, fmt, path::PathBuf};

use highwater::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;
use url::Url;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What a URL says.
pub(crate) struct Address {
    pub(crate) place: Place,
    /// For the servers.
    pub(crate) login: Login,
    /// For the sentinels, which have users and passwords of their own.
    pub(crate) sentinel_login: Login,
}

/// Where to look for a server.
pub(crate) enum Place {
    /// This is it.
    Server(Node),
    /// These know which one it is.
    Sentinel {
        /// Any of them may be asked.
        sentinels: Vec<Node>,
        /// What the server is called there.
        master: String,
    },
    /// These know who owns which slot.
    Cluster(Vec<Node>),
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Host and port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// How to begin a connection.
#[derive(Clone, Default)]
pub struct Login {
    /// `None`: the default user.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: i64,
    /// Whether to speak the third version of the protocol.
    pub(crate) resp3: bool,
    pub(crate) tls: bool,
}

impl Address {
    /// Takes a URL apart. No error of it quotes the URL, which holds the password in one of several places.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(unreadable)?;
        if matches!(scheme, "unix" | "redis+unix" | "valkey+unix") {
            return Self::of_socket(url);
        }
        let (kind, tls) = match scheme {
            "redis" | "valkey" => (Kind::Server, false),
            "rediss" | "valkeys" => (Kind::Server, true),
            "redis-sentinel" => (Kind::Sentinel, false),
            "rediss-sentinel" => (Kind::Sentinel, true),
            "redis-cluster" => (Kind::Cluster, false),
            "rediss-cluster" => (Kind::Cluster, true),
            _ => return Err(unreadable()),
        };
        if tls && cfg!(not(feature = "tls")) {
            return Err(Error::new(ErrorKind::Unsupported, "`rediss://` needs the feature `tls`"));
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (first, others) =
            hosts.split_once(',').map_or((hosts, None), |(first, rest)| (first, Some(rest)));
        let url = Url::parse(&format!("redis://{user}@{first}{tail}")).map_err(|_| unreadable())?;
        let port = if kind == Kind::Sentinel { SENTINEL_PORT } else { PORT };
        let mut nodes = vec![node(&url, port)?];
        for host in others.into_iter().flat_map(|others| others.split(',')) {
            let url = Url::parse(&format!("redis://{host}")).map_err(|_| unreadable())?;
            nodes.push(node(&url, port)?);
        }
        let mut options = Options::read(&url, kind)?;
        let db = match url.path().trim_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_| unreadable())?,
        };
        let login = Login {
            user: decoded(url.username())?.filter(|user| !user.is_empty()),
            password: url.password().map_or(Ok(None), decoded)?,
            db,
            resp3: options.resp3,
            tls,
        };
        let sentinel_login = Login {
            user: options.sentinel_user.take(),
            password: options.sentinel_password.take(),
            db: 0,
            ..login.clone()
        };
        let place = match (kind, options.master) {
            (Kind::Server, None) if nodes.len() == 1 => Place::Server(nodes.remove(0)),
            (Kind::Sentinel, Some(master)) => Place::Sentinel { sentinels: nodes, master },
            (Kind::Cluster, None) if db == 0 => Place::Cluster(nodes),
            _ => return Err(unreadable()),
        };
        Ok(Self { place, login, sentinel_login })
    }

    fn of_socket(url: &str) -> Result<Self> {
        let url = Url::parse(url).map_err(|_| unreadable())?;
        let path = url.to_file_path().map_err(|()| unreadable())?;
        let options = Options::read(&url, Kind::Socket)?;
        let login = Login {
            user: options.user,
            password: options.password,
            db: options.db,
            resp3: options.resp3,
            tls: false,
        };
        Ok(Self { place: Place::Server(Node::Unix(path)), sentinel_login: Login::default(), login })
    }
}

/// The addresses alone: what lies beside them holds the password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Server(node) => write!(f, "{node}"),
            Place::Sentinel { sentinels, master } => write!(f, "{master} of {}", Listed(sentinels)),
            Place::Cluster(seeds) => write!(f, "cluster of {}", Listed(seeds)),
        }
    }
}

struct Listed<'a>(&'a [Node]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.0.iter().enumerate() {
            write!(f, "{}{node}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("db", &self.db).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Sentinel,
    Cluster,
    Socket,
}

/// What stands behind the `?`.
#[derive(Default)]
struct Options {
    resp3: bool,
    master: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    db: i64,
    user: Option<String>,
    password: Option<String>,
}

impl Options {
    fn read(url: &Url, kind: Kind) -> Result<Self> {
        let mut options = Self::default();
        if url.fragment().is_some() {
            return Err(unreadable());
        }
        for (name, value) in url.query_pairs() {
            let owned = |value: Cow<'_, str>| Some(value.into_owned());
            match (&*name, kind) {
                ("protocol", _) => {
                    options.resp3 = match &*value {
                        "2" | "resp2" => false,
                        "3" | "resp3" => true,
                        _ => return Err(unreadable()),
                    }
                }
                ("master", Kind::Sentinel) if !value.is_empty() => options.master = owned(value),
                ("sentinel_user", Kind::Sentinel) => options.sentinel_user = owned(value),
                ("sentinel_pass", Kind::Sentinel) => options.sentinel_password = owned(value),
                ("db", Kind::Socket) => options.db = value.parse().map_err(|_| unreadable())?,
                ("user", Kind::Socket) => options.user = owned(value),
                ("pass", Kind::Socket) => options.password = owned(value),
                // A name that nobody knows would be a setting that silently does nothing.
                _ => return Err(unreadable()),
            }
        }
        Ok(options)
    }
}

fn node(url: &Url, port: u16) -> Result<Node> {
    let host = match url.host().ok_or_else(unreadable)? {
        // Without the brackets, which only a URL needs.
        url::Host::Ipv6(ip) => ip.to_string(),
        host => host.to_string(),
    };
    if host.is_empty() {
        return Err(unreadable());
    }
    Ok(Node::Tcp(host, url.port().unwrap_or(port)))
}

fn decoded(text: &str) -> Result<Option<String>> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| unreadable())?;
    Ok(Some(text.into_owned()))
}

fn unreadable() -> Error {
    Error::invalid(
        "the URL of the server cannot be read: write `redis://[user:password@]host[:port][/db]`, `rediss://…` (feature \
         `tls`), `redis+unix:///path`, `redis-sentinel://host:port,host:port/db?master=name` or \
         `redis-cluster://host:port,host:port`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        let address = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let Login { user, password, db, resp3, tls } = &address.login;
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
        format!("{address:?} {} {} {db} {resp3} {tls}", word(user), word(password))
    }

    #[test]
    fn every_form_is_read() {
        for (url, expected) in [
            ("redis://localhost", "localhost:6379 - - 0 false false"),
            ("valkey://h:1/2?protocol=resp3", "h:1 - - 2 true false"),
            ("redis://u:p%40%2F@[::1]:7", "[::1]:7 u p@/ 0 false false"),
            ("redis://:p@h/?protocol=2", "h:6379 - p 0 false false"),
            ("redis+unix:///run/s?db=3&user=u&pass=p", "/run/s u p 3 false false"),
            ("redis-sentinel://u:p@a,b:9/4?master=m", "m of a:26379,b:9 u p 4 false false"),
            ("redis-cluster://:p@a:1,[::2]:2,c", "cluster of a:1,[::2]:2,c:6379 - p 0 false false"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
        let sentinel =
            Address::parse("redis-sentinel://u:p@a/1?master=m&sentinel_user=s&sentinel_pass=t").unwrap();
        let Login { user, password, db, .. } = &sentinel.sentinel_login;
        assert_eq!((user.as_deref(), password.as_deref(), *db), (Some("s"), Some("t"), 0));
    }

    #[test]
    fn g18_a_url_that_cannot_be_read_is_refused_without_its_password() {
        for url in [
            "",
            "hunter2",
            "http://:hunter2@localhost",
            "redis://:hunter2@localhost/db",
            "redis://:hunter2@a,b",
            "redis://:hunter2@a?master=m",
            "redis://:hunter2@a?protcol=3",
            "redis://:hunter2@a#insecure",
            "redis://:hunter2@",
            "redis-sentinel://:hunter2@a",
            "redis-sentinel://:hunter2@a?master=",
            "redis-sentinel://:hunter2@a,?master=m",
            "redis-cluster://:hunter2@a/1",
            "redis-cluster://:hunter2@a?master=m",
            "redis+unix:///s?password=hunter2",
        ] {
            let error = Address::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{url}: {error:?}");
        }
        let tls = Address::parse("rediss://:hunter2@h").err().map(|error| error.kind());
        assert_eq!(tls, (!cfg!(feature = "tls")).then_some(ErrorKind::Unsupported));
    }

    #[test]
    fn g18_the_debug_forms_show_no_password() {
        let address = Address::parse("redis://hunter2:hunter2@h").unwrap();
        assert!(!format!("{address:?} {:?}", address.login).contains("hunter2"));
    }
}
