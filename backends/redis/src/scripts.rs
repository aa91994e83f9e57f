//! What must be one atomic step runs on the server.

use bytes::Bytes;
use highwater::Result;

use crate::{
    client::{Command, CommandOf, Driver, Fault, Link, ValueOf},
    commands::Build,
    error,
    packed::Packed,
    reply,
};

/// A script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Ack,
    Acquire,
    Advance,
    Claim,
    DeadKeys,
    DeadLetter,
    Effects,
    EnsureGroup,
    Heartbeat,
    Inspect,
    Lease,
    Leave,
    NoteAttempts,
    Redrive,
    RemoveGroup,
    RemoveStream,
    Reset,
    Settle,
    Settled,
    Trim,
}

/// What a script calls its arguments has come as one.
const UNPACK: &str = "local ARGV = cmsgpack.unpack(ARGV[1])\n";
const IDS: &str = include_str!("lua/ids.lua");
const BEATS: &str = include_str!("lua/beats.lua");
const BEFORE: &str = include_str!("lua/before.lua");
const GROUP: &str = include_str!("lua/group.lua");
const LETTERS: &str = include_str!("lua/letters.lua");
const POSITION: &str = include_str!("lua/position.lua");
const RECORD: &str = include_str!("lua/record.lua");

impl Script {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 20] = [
        Self::Ack,
        Self::Acquire,
        Self::Advance,
        Self::Claim,
        Self::DeadKeys,
        Self::DeadLetter,
        Self::Effects,
        Self::EnsureGroup,
        Self::Heartbeat,
        Self::Inspect,
        Self::Lease,
        Self::Leave,
        Self::NoteAttempts,
        Self::Redrive,
        Self::RemoveGroup,
        Self::RemoveStream,
        Self::Reset,
        Self::Settle,
        Self::Settled,
        Self::Trim,
    ];

    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Ack => &[IDS, POSITION, include_str!("lua/ack.lua")],
            Self::Acquire => &[IDS, RECORD, include_str!("lua/acquire.lua")],
            Self::Advance => &[IDS, RECORD, include_str!("lua/advance.lua")],
            Self::Claim => &[IDS, BEATS, include_str!("lua/claim.lua")],
            Self::DeadKeys => &[IDS, LETTERS, include_str!("lua/dead_keys.lua")],
            Self::DeadLetter => &[IDS, LETTERS, include_str!("lua/dead_letter.lua")],
            Self::Effects => &[
                IDS,
                POSITION,
                RECORD,
                BEFORE,
                GROUP,
                include_str!("lua/integers.lua"),
                include_str!("lua/foresee.lua"),
                include_str!("lua/effects.lua"),
            ],
            Self::EnsureGroup => &[IDS, include_str!("lua/ensure_group.lua")],
            Self::Heartbeat => &[IDS, BEATS, include_str!("lua/heartbeat.lua")],
            Self::Inspect => &[IDS, BEATS, include_str!("lua/inspect.lua")],
            Self::Lease => &[IDS, RECORD, include_str!("lua/lease.lua")],
            Self::Leave => &[IDS, BEATS, include_str!("lua/leave.lua")],
            Self::NoteAttempts => &[IDS, RECORD, include_str!("lua/note_attempts.lua")],
            Self::Redrive => &[IDS, LETTERS, include_str!("lua/redrive.lua")],
            Self::RemoveGroup => &[include_str!("lua/remove_group.lua")],
            Self::RemoveStream => &[IDS, include_str!("lua/remove_stream.lua")],
            Self::Reset => &[IDS, RECORD, include_str!("lua/reset.lua")],
            Self::Settle => {
                &[IDS, include_str!("lua/usual.lua"), POSITION, RECORD, GROUP, include_str!("lua/settle.lua")]
            }
            Self::Settled => &[IDS, RECORD, BEFORE, include_str!("lua/settled.lua")],
            Self::Trim => &[include_str!("lua/trim.lua")],
        }
    }

    /// The text that is sent. With flags, a script is let through at the memory limit: what acks frees memory, and what
    /// writes a checkpoint or a heartbeat writes little. What users write may be large, and waits for room.
    fn source(self, flags: bool) -> String {
        let header = match (flags, self) {
            (false, _) => "",
            (true, Self::Inspect | Self::Settled) => "#!lua flags=no-writes\n",
            (true, Self::DeadLetter | Self::Effects) => "#!lua\n",
            (true, _) => "#!lua flags=allow-oom\n",
        };
        header.to_owned() + UNPACK + &self.parts().join("\n")
    }
}

/// The scripts as one server knows them.
#[derive(Debug)]
pub(crate) struct Scripts {
    sources: Vec<String>,
    /// The digest under which the server keeps each; `None` where it may not be asked for, so the text is sent each time.
    digests: Vec<Option<String>>,
}

impl Scripts {
    /// Loads all scripts: with flags or, where the server does not know them, without.
    pub(crate) async fn load<D: Driver>(link: &Link<D>) -> Result<Self> {
        if let Some(scripts) = Self::try_load(link, true).await? {
            return Ok(scripts);
        }
        let failed =
            || highwater::Error::new(highwater::ErrorKind::Unsupported, "the server cannot run our scripts");
        Self::try_load(link, false).await?.ok_or_else(failed)
    }

    async fn try_load<D: Driver>(link: &Link<D>, flags: bool) -> Result<Option<Self>> {
        let sources: Vec<_> = Script::ALL.iter().map(|script| script.source(flags)).collect();
        let load = |source| CommandOf::<D>::new("SCRIPT").with("LOAD").with(source);
        let replies = link
            .run_all(None, sources.iter().map(load).collect())
            .await
            .map_err(error::reading("connect"))?;
        let mut digests = Vec::with_capacity(sources.len());
        for value in replies {
            digests.push(match value.and_then(reply::string) {
                Ok(digest) => Some(digest),
                // Servers without flags stumble over the first line.
                Err(Fault::Server(text)) if text.contains("compiling script") => return Ok(None),
                Err(Fault::Server(text)) if text.starts_with("NOPERM") => None,
                Err(fault) => return Err(error::reading("connect")(fault)),
            });
        }
        if flags && digests.iter().all(Option::is_none) {
            // Who may not have scripts kept still finds out whether the server knows flags. Any other answer is for the
            // first call to meet.
            let probe = CommandOf::<D>::new("EVAL").with("#!lua flags=no-writes\nreturn 1").number(0);
            let answer = link.run(None, &probe).await;
            if matches!(answer, Err(Fault::Server(text)) if text.contains("compiling script")) {
                return Ok(None);
            }
        }
        Ok(Some(Self { sources, digests }))
    }

    /// Runs a script. If the server has lost it, which a restart, a failover or a flush does, its text is sent.
    pub(crate) async fn run<D: Driver>(
        &self,
        link: &Link<D>,
        script: Script,
        keys: &[&str],
        arguments: impl FnOnce(&mut Packed),
    ) -> Result<ValueOf<D>, Fault> {
        let arguments = Packed::build(arguments);
        if let Some(digest) = &self.digests[script as usize] {
            let command: CommandOf<D> = command("EVALSHA", digest, keys, &arguments);
            match link.run(keys.first().copied(), &command).await {
                Err(Fault::Server(text)) if text.starts_with("NOSCRIPT") => {}
                answer => return answer,
            }
        }
        let command = command("EVAL", &self.sources[script as usize], keys, &arguments);
        link.run(keys.first().copied(), &command).await
    }

    /// What runs a script where the server knows it. `None`: it may not be asked for.
    pub(crate) fn command<C: Command>(
        &self,
        script: Script,
        keys: &[&str],
        arguments: impl FnOnce(&mut Packed),
    ) -> Option<C> {
        let digest = self.digests[script as usize].as_ref()?;
        Some(command("EVALSHA", digest, keys, &Packed::build(arguments)))
    }
}

fn command<C: Command>(name: &'static str, program: &str, keys: &[&str], arguments: &Bytes) -> C {
    let mut command = C::new(name).with(program).number(keys.len() as u64);
    for key in keys {
        command.arg(key.as_bytes());
    }
    command.shared(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_stand_at_their_place() {
        for (i, script) in Script::ALL.into_iter().enumerate() {
            assert_eq!(script as usize, i, "{script:?}");
        }
    }

    #[test]
    fn ids_and_epochs_are_never_made_numbers() {
        for script in Script::ALL {
            for line in script.source(true).lines().filter(|line| line.contains("tonumber(")) {
                // A time, a duration, a limit or a count: all far below 2^53.
                // Or what users add up, of 15 digits at most.
                let harmless = [
                    "time[",
                    "ARGV[",
                    "deadline",
                    "entry[3]",
                    "entry[4]",
                    "consumer[2]",
                    "lease_until",
                    "looked_at",
                    "#digits <= 15 and #b_digits <= 15",
                ];
                assert!(
                    harmless.iter().any(|name| line.contains(name)) || line.starts_with("--"),
                    "{script:?}: {line}"
                );
            }
        }
    }

    #[test]
    fn only_servers_that_know_flags_see_them() {
        for script in Script::ALL {
            assert!(script.source(true).starts_with("#!lua"), "{script:?}");
            assert!(!script.source(false).contains("#!"), "{script:?}");
        }
    }
}
