//! Runs the rows, each in a process of its own, and prints them.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time};

use super::{
    list::{KINDS, Kind, store_name},
    row::MARK,
};
use crate::{
    Result,
    cli::{Client, FaultStore, Faults, Ownership, Ownerships},
    support::process::Guarded,
};

/// Longer than any row takes: it has limits of its own.
const ROW_LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(20);
const HEAD: &str = "| fault | checkpoint | client | ownership | appended | lost | gone | told | duplicates | recovery | peak memory | reconnects |";

#[derive(Debug, Clone, Copy)]
struct Row {
    kind: &'static Kind,
    store: FaultStore,
    client: Client,
    ownership: Ownership,
}

/// Runs the rows that were asked for, and fails if one of them does.
pub async fn run(args: &Faults) -> Result {
    let rows = rows(args);
    if rows.is_empty() {
        return Err("no row has these: see the names in `xtask/src/faults/list.rs`".into());
    }
    let begun = Instant::now();
    println!("{HEAD}\n|{}", " --- |".repeat(HEAD.matches('|').count() - 1));
    let (mut waiting, mut running) = (rows.iter().copied(), JoinSet::new());
    let mut failed = Vec::new();
    loop {
        while running.len() < args.jobs as usize
            && let Some(row) = waiting.next()
        {
            running.spawn(play(row));
        }
        let Some(played) = running.join_next().await else { break };
        let (row, result) = played?;
        if let Err(error) = print(row, result) {
            println!("  {error}");
            failed.push(name(row));
        }
    }
    println!("\n{} rows in {:.0?}, {} failed", rows.len(), begun.elapsed(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join("; ")).into()) }
}

fn rows(args: &Faults) -> Vec<Row> {
    let clients = [Client::RedisRs, Client::Fred].into_iter().filter(|c| args.client.is_none_or(|a| a == *c));
    let ownerships: &[_] = match args.ownership {
        Ownerships::Shared => &[Ownership::Shared],
        Ownerships::Exclusive => &[Ownership::Exclusive],
        Ownerships::Both => &[Ownership::Shared, Ownership::Exclusive],
    };
    let asked = |kind: &&Kind| {
        let name = kind.name.to_lowercase();
        args.only.is_empty() || args.only.iter().any(|only| name.contains(&only.to_lowercase()))
    };
    let mut rows = Vec::new();
    for kind in KINDS.iter().filter(asked).filter(|kind| kind.short || !args.short) {
        let stores = kind.stores.iter().filter(|store| args.store.is_none_or(|asked| asked == **store));
        for (nth, store) in stores.enumerate() {
            for (client, ownership) in
                clients.clone().flat_map(|client| ownerships.iter().map(move |o| (client, *o)))
            {
                // Each client once, each ownership once.
                let is_short = nth == 0 && (client == Client::Fred) == (ownership == Ownership::Exclusive);
                if is_short || !args.short {
                    rows.push(Row { kind, store: *store, client, ownership });
                }
            }
        }
    }
    rows
}

/// Runs a row in a process of its own. Its fields.
async fn play(row: Row) -> (Row, Result<Vec<String>>) {
    (row, fields(row).await)
}

async fn fields(row: Row) -> Result<Vec<String>> {
    let store = match row.store {
        FaultStore::Redis => "redis",
        FaultStore::Postgres => "postgres",
        FaultStore::Rows => "rows",
        FaultStore::Keys => "keys",
    };
    let mut command = Command::new(crate::this_program()?);
    command.args(["child", "fault", "--name", row.kind.name, "--store", store]);
    command.args(["--client", client_name(row.client), "--ownership", ownership_name(row.ownership)]);
    let mut process = Guarded::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let deadline = Instant::now() + ROW_LIMIT;
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            return Err("the row does not end in time".into());
        }
        time::sleep(POLL).await;
    };
    // A line is all that it prints: the pipe has held it.
    let mut printed = String::new();
    if let Some(mut output) = process.child().stdout.take() {
        std::io::Read::read_to_string(&mut output, &mut printed)?;
    }
    let line = printed.lines().find_map(|line| line.strip_prefix(MARK));
    let line = line.ok_or_else(|| format!("the row ended without a result: {status}"))?;
    Ok(line.split('|').map(Into::into).collect())
}

fn print(row: Row, fields: Result<Vec<String>>) -> Result {
    let mut fields = match fields {
        Ok(fields) => fields,
        Err(error) => {
            println!("{} failed", begin(row));
            return Err(error);
        }
    };
    let wrong = fields.pop().unwrap_or_default();
    println!("{} {} |", begin(row), fields.join(" | "));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
}

fn begin(row: Row) -> String {
    let (client, ownership) = (client_name(row.client), ownership_name(row.ownership));
    format!("| {} | {} | {client} | {ownership} |", row.kind.name, store_name(row.store))
}

fn name(row: Row) -> String {
    let (client, ownership) = (client_name(row.client), ownership_name(row.ownership));
    format!("{}, {}, {client}, {ownership}", row.kind.name, store_name(row.store))
}

fn client_name(client: Client) -> &'static str {
    match client {
        Client::RedisRs => "redis-rs",
        Client::Fred => "fred",
    }
}

fn ownership_name(ownership: Ownership) -> &'static str {
    match ownership {
        Ownership::Shared => "shared",
        Ownership::Exclusive => "exclusive",
    }
}
