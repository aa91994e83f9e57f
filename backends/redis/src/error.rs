//! What a fault means to the caller.

use highwater::{Error, ErrorKind, Outcome, Retry};

use crate::client::{Fault, Source};

/// What a fault means for a call that changes nothing.
pub(crate) fn reading(operation: &'static str) -> impl Fn(Fault) -> Error {
    move |fault| of(fault, Outcome::NotApplied).with("operation", operation)
}

/// What a fault means for a call that may have taken effect before it.
pub(crate) fn writing(operation: &'static str) -> impl Fn(Fault) -> Error {
    move |fault| of(fault, Outcome::Unknown).with("operation", operation)
}

/// `unanswered`: what is known about a call that was sent and not answered.
fn of(fault: Fault, unanswered: Outcome) -> Error {
    let unavailable = |message| Error::new(ErrorKind::Unavailable, message);
    match fault {
        // A script is refused a command when it comes to it, and what it has done before stays done.
        Fault::Server(text) if text.contains("in script") || text.contains("executing the script") => {
            of_reply(&text).with_outcome(unanswered)
        }
        Fault::Server(text) => of_reply(&text),
        Fault::Moved(text) => {
            unavailable("the cluster moves the stream to another node, or its nodes do not agree where it is")
                .with_source(text)
        }
        Fault::NoMaster => Error::invalid("the sentinels know no such master: correct `master` in the URL"),
        Fault::NotConnected(source) => with(
            unavailable("the server cannot be reached: is it running, and is the address right?"),
            source,
        ),
        Fault::Lost(source) => with(unavailable("the connection broke before the server answered"), source)
            .with_outcome(unanswered),
        Fault::TimedOut => unavailable("the server did not answer in time").with_outcome(unanswered),
        Fault::Refused(source) => with(
            Error::new(ErrorKind::Denied, "the server refused the user or the password: correct the URL"),
            Some(source),
        ),
        Fault::Closed { sent } => {
            let outcome = if sent { unanswered } else { Outcome::NotApplied };
            Error::new(ErrorKind::Closed, "the backend was closed: open a new one").with_outcome(outcome)
        }
        Fault::Unreadable(what) => {
            Error::new(ErrorKind::Internal, "a reply of the server has an unknown form: please report it")
                .with("expected", what)
                .with_outcome(unanswered)
        }
    }
}

fn with(error: Error, source: Option<Source>) -> Error {
    match source {
        Some(source) => error.with_source(Box::new(source)),
        None => error,
    }
}

/// What an error reply means. The code in front is what can be relied on; only behind the general `ERR` the text decides.
fn of_reply(text: &str) -> Error {
    let text = without_script(text);
    let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
    let (kind, message) = match code {
        "NOGROUP" => (ErrorKind::Missing, "the group or its stream is not there: create the group"),
        "WRONGTYPE" if detail.contains(":heartbeats:") => (
            ErrorKind::Invalid,
            "the key of the heartbeats holds something else: look at it, then delete it, or use another name",
        ),
        "WRONGTYPE" if detail.contains(" in highwater:{") => (
            ErrorKind::Invalid,
            "a key beside the stream holds something else: look at it, then delete it, or use another name",
        ),
        "WRONGTYPE" => (ErrorKind::Invalid, "the key holds something that is no stream: use another name"),
        "OOM" => (ErrorKind::Unavailable, "the server is out of memory: trim streams, or raise `maxmemory`"),
        "READONLY" => (
            ErrorKind::Unavailable,
            "the server is a replica: wait for the failover, or connect to the master",
        ),
        "LOADING" => (ErrorKind::Unavailable, "the server is still loading its data"),
        "BUSY" => (ErrorKind::Unavailable, "the server is busy with a slow script"),
        "MISCONF" => {
            (ErrorKind::Unavailable, "the server cannot save its data and refuses writes: look at its log")
        }
        "NOREPLICAS" => (ErrorKind::Unavailable, "the server has too few replicas and refuses writes"),
        "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" => {
            (ErrorKind::Unavailable, "the cluster or the replica cannot answer now")
        }
        "UNBLOCKED" if detail.contains("no longer exists") => {
            (ErrorKind::Missing, "the stream went while it was read: create the group")
        }
        "UNBLOCKED" => (ErrorKind::Unavailable, "the server ended a blocked read"),
        "NOAUTH" | "WRONGPASS" => {
            (ErrorKind::Denied, "the server refused the user or the password: correct the URL")
        }
        "NOPERM" => (ErrorKind::Denied, NO_RIGHT),
        "DENIED" => (ErrorKind::Denied, "the server runs in protected mode: set a password"),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            (ErrorKind::Unsupported, "the server is a node of a cluster: write `redis-cluster://` in the URL")
        }
        "NOPROTO" => (ErrorKind::Unsupported, "the server does not speak this version of the protocol"),
        _ => of_general(detail),
    };
    // What a server wakes up a blocked read for is over by then.
    let retry = if code == "UNBLOCKED" && kind == ErrorKind::Unavailable { Some(Retry::Now) } else { None };
    let mut error = Error::new(kind, message).with_source(text);
    if let Some((name, value)) = subject(code, detail) {
        error = error.with(name, value);
    }
    match retry {
        Some(retry) => error.with_retry(retry),
        None => error,
    }
}

pub(crate) const NO_RIGHT: &str =
    "the user may not do this, or not with this key: give it the right by `ACL SETUSER`";

/// What an error reply is about, where it names it.
fn subject<'a>(code: &str, detail: &'a str) -> Option<(&'static str, &'a str)> {
    match code {
        "NOPERM" | "ERR" if detail.contains("permissions to ") => {
            let name = if detail.contains("to access ") { "key" } else { "command" };
            Some((name, detail.rsplit('\'').nth(1)?))
        }
        "WRONGTYPE" => Some(("key", detail.split_once(" in ")?.1)),
        _ => None,
    }
}

fn of_general(detail: &str) -> (ErrorKind, &'static str) {
    let says = |part: &str| detail.to_ascii_lowercase().contains(part);
    if says("no such key") || says("requires the key to exist") || says("no such consumer group") {
        (ErrorKind::Missing, "the group or its stream is not there: create the group")
    } else if says("specified in xadd") {
        (ErrorKind::Invalid, "the id is not above the last one of the stream: leave it to the server")
    } else if says("exhausted the last possible id") {
        (ErrorKind::Invalid, "the stream has used its last id: go on with a new stream")
    } else if says("user executing the script") || says("acl failure in script") {
        (ErrorKind::Denied, NO_RIGHT)
    } else if says("db index") || says("invalid db") {
        (
            ErrorKind::Invalid,
            "the server has no database of this number: correct the URL, or raise `databases`",
        )
    } else if says("invalid stream id") || says("out of range") {
        (ErrorKind::Invalid, "an id or a number is out of range")
    } else if says("max number of clients") {
        (ErrorKind::Unavailable, "the server has too many connections: raise its `maxclients`")
    } else if says("unknown command")
        || says("unknown subcommand")
        || says("syntax error")
        || says("wrong number of arg")
    {
        (ErrorKind::Unsupported, "the server does not know this command: use Redis 6.2 or later")
    } else if says("cluster support disabled") {
        (ErrorKind::Invalid, "the server is no node of a cluster: write `redis://` in the URL")
    } else if says("password") || says("operation not permitted") {
        (ErrorKind::Denied, "the server refused the user or the password: correct the URL")
    } else {
        (ErrorKind::Internal, "the server refused a command for an unknown reason: please report it")
    }
}

/// Servers before 7.0 wrap what a script failed with: `ERR Error running script (call to f_…): @user_script:1: CODE text`.
fn without_script(text: &str) -> &str {
    let wrapped = text.contains("Error running script") || text.contains("user_script");
    let inner = text.split("@user_script:").last().and_then(|rest| rest.split_once(": "));
    match inner {
        Some((_, inner)) if wrapped => inner.trim_start_matches('-'),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, sync::Arc};

    use ErrorKind::{Denied, Internal, Invalid, Missing, Unavailable, Unsupported};

    use super::*;

    #[test]
    fn every_error_reply_has_its_kind() {
        for (text, kind) in [
            ("NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option", Missing),
            ("NOGROUP the consumer group this client was blocked on no longer exists", Missing),
            ("ERR The XGROUP subcommand requires the key to exist. Note that for CREATE…", Missing),
            ("ERR no such key", Missing),
            ("UNBLOCKED the stream key no longer exists", Missing),
            ("UNBLOCKED client unblocked via CLIENT UNBLOCK", Unavailable),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                Unavailable,
            ),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Invalid),
            ("READONLY You can't write against a read only replica.", Unavailable),
            ("LOADING Redis is loading the dataset in memory", Unavailable),
            ("OOM command not allowed when used memory > 'maxmemory'.", Unavailable),
            ("CLUSTERDOWN The cluster is down", Unavailable),
            ("MASTERDOWN Link with MASTER is down", Unavailable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable),
            ("BUSY Redis is busy running a script.", Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots", Unavailable),
            ("ERR max number of clients reached", Unavailable),
            ("NOAUTH Authentication required.", Denied),
            ("WRONGPASS invalid username-password pair or user is disabled.", Denied),
            ("NOPERM this user has no permissions to run the 'xadd' command", Denied),
            ("ERR AUTH <password> called without any password configured for the default user.", Denied),
            ("ERR DB index is out of range", Invalid),
            ("ERR unknown command 'XREADGROUP', with args beginning with:", Unsupported),
            ("ERR syntax error", Unsupported),
            ("ERR The ID specified in XADD is equal or smaller than the target stream top item", Invalid),
            ("ERR The stream has exhausted the last possible ID, unable to add more items", Invalid),
            ("ERR something new", Internal),
            ("MOVED 1 host:1", Unsupported),
            ("ERR This instance has cluster support disabled", Invalid),
            ("", Internal),
        ] {
            let error = writing("test")(Fault::Server(text.to_owned()));
            assert_eq!(error.kind(), kind, "{text}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{text}");
            assert_eq!(error.source().unwrap().to_string(), text);
            let retry = match kind {
                Unavailable if text.starts_with("UNBLOCKED") => Retry::Now,
                Unavailable => Retry::Later,
                _ => Retry::Never,
            };
            assert_eq!(error.retry(), retry, "{text}");
        }
    }

    #[test]
    fn what_a_script_failed_with_is_found() {
        let old = "ERR Error running script (call to f_12ab): @user_script:7: @user_script: 7: -READONLY You can't write";
        assert_eq!(writing("x")(Fault::Server(old.to_owned())).kind(), Unavailable);
        let old =
            "ERR Error running script (call to f_12ab): @user_script:1: WRONGTYPE Operation against a key";
        assert_eq!(writing("x")(Fault::Server(old.to_owned())).kind(), Invalid);
        let new = "WRONGTYPE Operation against a key script: 12ab, on @user_script:1.";
        assert_eq!(writing("x")(Fault::Server(new.to_owned())).kind(), Invalid);
    }

    #[test]
    fn what_a_script_may_not_do_may_come_after_what_it_did() {
        for text in [
            "ERR The user executing the script can't run this command or subcommand",
            "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
            "ERR ACL failure in script: User r has no permissions to run the 'hset' command",
            "NOPERM ACL failure in script: User r has no permissions to run the 'hset' command",
        ] {
            let error = writing("x")(Fault::Server(text.to_owned()));
            assert_eq!((error.kind(), error.outcome()), (Denied, Outcome::Unknown), "{text}");
            assert_eq!(reading("x")(Fault::Server(text.to_owned())).outcome(), Outcome::NotApplied);
        }
    }

    #[test]
    fn what_a_reply_names_is_told() {
        for (text, name, value) in [
            (
                "NOPERM this user has no permissions to run the 'xgroup|create' command",
                "command",
                "xgroup|create",
            ),
            (
                "ERR ACL failure in script: User u has no permissions to run the 'hset' command",
                "command",
                "hset",
            ),
            ("NOPERM User u has no permissions to access the 's' key", "key", "s"),
            (
                "WRONGTYPE Operation against a key in highwater:{s}:heartbeats:1:s:g",
                "key",
                "highwater:{s}:heartbeats:1:s:g",
            ),
        ] {
            assert_eq!(writing("x")(Fault::Server(text.to_owned())).context(name), Some(value));
        }
    }

    #[test]
    fn only_a_write_that_was_sent_is_of_unknown_outcome() {
        let source = || Arc::new(std::io::Error::other("reset")) as Source;
        for (fault, sent) in [
            (Fault::NotConnected(Some(source())), false),
            (Fault::Lost(Some(source())), true),
            (Fault::TimedOut, true),
        ] {
            assert_eq!(reading("x")(fault.clone()).outcome(), Outcome::NotApplied);
            let expected = if sent { Outcome::Unknown } else { Outcome::NotApplied };
            let error = writing("x")(fault);
            assert_eq!((error.kind(), error.outcome(), error.retry()), (Unavailable, expected, Retry::Later));
        }
        assert_eq!(writing("x")(Fault::Refused(source())).kind(), Denied);
        let moved = writing("x")(Fault::Moved("MOVED 1 host:1".to_owned()));
        assert_eq!(
            (moved.kind(), moved.outcome(), moved.retry()),
            (Unavailable, Outcome::NotApplied, Retry::Later)
        );
        assert_eq!(writing("x")(Fault::NoMaster).kind(), Invalid);
    }
}
