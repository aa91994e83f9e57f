//! A raw connection to a Redis server, for tests that must see what a client library would hide. Also compiled into
//! `xtask`.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A reply of the server, in RESP2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A simple or a bulk string.
    Text(Vec<u8>),
    /// A number.
    Int(i64),
    /// An error, with its code first.
    Error(String),
    /// Several replies.
    List(Vec<Reply>),
}

impl Reply {
    /// The text or the number as text; empty for anything else.
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Int(n) => n.to_string(),
            Self::Error(text) => text.clone(),
            Self::Nil | Self::List(_) => String::new(),
        }
    }

    /// The number, also where the server sends it as text.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Text(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The members of a list; empty for anything else.
    pub fn list(&self) -> &[Reply] {
        if let Self::List(replies) = self { replies } else { &[] }
    }

    /// Whether the server refused the command.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// As `redis-cli` prints it, roughly: for messages of tests.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("(nil)"),
            Self::Text(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Int(n) => write!(f, "{n}"),
            Self::Error(text) => write!(f, "(error) {text}"),
            Self::List(replies) => {
                f.write_str("[")?;
                for (i, reply) in replies.iter().enumerate() {
                    write!(f, "{}{reply}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A blocking connection.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects, and gives up on a read or a write after `timeout`.
    pub fn open(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Runs one command. A refusal is a [`Reply::Error`].
    pub fn run(&mut self, command: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            let word = word.as_ref();
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request)?;
        read_reply(&mut self.0)
    }
}

fn read_reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end_matches(['\r', '\n']);
    let garbage = || io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {line:?}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(garbage)?;
    let number = || rest.parse::<i64>().map_err(|_| garbage());
    match kind {
        "+" => Ok(Reply::Text(rest.into())),
        "-" => Ok(Reply::Error(rest.into())),
        ":" => number().map(Reply::Int),
        "$" => match usize::try_from(number()?) {
            Err(_) => Ok(Reply::Nil),
            Ok(len) => {
                let mut text = vec![0; len + 2];
                reader.read_exact(&mut text)?;
                text.truncate(len);
                Ok(Reply::Text(text))
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Ok(Reply::Nil),
            Ok(len) => (0..len).map(|_| read_reply(reader)).collect::<io::Result<_>>().map(Reply::List),
        },
        _ => Err(garbage()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_every_type() {
        let mut input: &[u8] = b"*5\r\n+OK\r\n:-7\r\n$-1\r\n$3\r\na\r\n\r\n*1\r\n-ERR no\r\n";
        let reply = read_reply(&mut input).unwrap();
        assert_eq!(reply.list()[0].text(), "OK");
        assert_eq!(reply.list()[1].int(), Some(-7));
        assert_eq!(reply.list()[2], Reply::Nil);
        assert_eq!(reply.list()[3], Reply::Text(b"a\r\n".into()));
        assert!(reply.list()[4].list()[0].is_error());
        assert_eq!(reply.to_string(), r#"["OK", -7, (nil), "a\r\n", [(error) ERR no]]"#);
        assert!(read_reply(&mut input).is_err(), "the end of the connection is not a reply");
    }
}
