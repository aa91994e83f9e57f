//! What runs prepare and look up, beside what is measured.

use redis::{cmd, pipe, streams::StreamInfoGroupsReply};

use super::redis_rs::connect;
use crate::{Result, env::Env, stage::entry_id};

/// A stream of one's own, for what wants another field, or deletes what it read.
pub async fn fill(env: &Env, stream: &str, field: &str, payload: &str) -> Result {
    let mut redis = connect(env).await?;
    for first in (0..env.entries).step_by(1_000) {
        let mut pipe = pipe();
        for _ in first..env.entries.min(first + 1_000) {
            pipe.cmd("XADD").arg(stream).arg("*").arg(field).arg(payload).ignore();
        }
        pipe.query_async::<()>(&mut redis).await?;
    }
    Ok(())
}

/// The group of this run, at the beginning.
pub async fn create_group(env: &Env, stream: &str) -> Result {
    let mut redis = connect(env).await?;
    cmd("XGROUP").arg("CREATE").arg(stream).arg(&env.group).arg("0").query_async::<()>(&mut redis).await?;
    Ok(())
}

/// The group of this run goes, if it has one.
pub async fn destroy_group(env: &Env) -> Result {
    let mut redis = connect(env).await?;
    cmd("XGROUP").arg("DESTROY").arg(&env.stream).arg(&env.group).query_async::<()>(&mut redis).await?;
    Ok(())
}

/// The group has delivered all, and nothing is pending.
pub async fn nothing_pending(env: &Env) -> Result {
    let (pending, delivered) = standing(env).await?;
    let last = entry_id(env.entries - 1);
    if pending == 0 && delivered == last {
        Ok(())
    } else {
        Err(format!("{pending} pending, delivered up to {delivered}, not {last}").into())
    }
}

/// Nothing is pending, where ids are the server's.
pub async fn group_is_done(env: &Env) -> Result {
    let pending = pending(env).await?;
    if pending == 0 { Ok(()) } else { Err(format!("{pending} pending").into()) }
}

pub async fn pending(env: &Env) -> Result<usize> {
    Ok(standing(env).await?.0)
}

async fn standing(env: &Env) -> Result<(usize, String)> {
    let mut redis = connect(env).await?;
    let groups: StreamInfoGroupsReply =
        cmd("XINFO").arg("GROUPS").arg(&env.stream).query_async(&mut redis).await?;
    let group = groups.groups.into_iter().find(|group| group.name == env.group).ok_or("the group is gone")?;
    Ok((group.pending, group.last_delivered_id))
}

/// How many there are beside this one.
pub async fn connections(env: &Env) -> Result<usize> {
    let mut redis = connect(env).await?;
    let list: String = cmd("CLIENT").arg("LIST").query_async(&mut redis).await?;
    Ok(list.lines().count().saturating_sub(1))
}

pub async fn is_empty(env: &Env, stream: &str) -> Result {
    match len(env, stream).await? {
        0 => Ok(()),
        left => Err(format!("{left} are left").into()),
    }
}

/// All entries of a run are there.
pub async fn has_entries(env: &Env, stream: &str) -> Result {
    match len(env, stream).await? {
        len if len == env.entries => Ok(()),
        len => Err(format!("{len} entries of {}", env.entries).into()),
    }
}

async fn len(env: &Env, stream: &str) -> Result<u64> {
    let mut redis = connect(env).await?;
    let len: u64 = cmd("XLEN").arg(stream).query_async(&mut redis).await?;
    Ok(len)
}

pub async fn set_len(env: &Env, key: &str) -> Result<u64> {
    let mut redis = connect(env).await?;
    let len: u64 = cmd("SCARD").arg(key).query_async(&mut redis).await?;
    Ok(len)
}

/// A number in a hash.
pub async fn hash_field(env: &Env, key: &str, field: &str) -> Result<i64> {
    let mut redis = connect(env).await?;
    let number: i64 = cmd("HGET").arg(key).arg(field).query_async(&mut redis).await?;
    Ok(number)
}
