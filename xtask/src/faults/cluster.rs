//! Three nodes, and a slot that moves from one to another while it is used.

use crate::{
    Result, servers,
    support::{resp::Connection, server::RedisServer},
};

use super::stage::{run, until};

const SLOTS: usize = 16_384;
const NODES: usize = 3;
/// How many keys move in one step.
const KEYS: &str = "10";

/// Starts the nodes, each with a third of the slots.
pub fn start() -> Result<Vec<RedisServer>> {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let nodes: Vec<_> = (0..NODES).map(|_| servers::private_redis(&options)).collect::<Result<_>>()?;
    for (i, node) in nodes.iter().enumerate() {
        let mut connection = node.connect()?;
        let (first, last) = ((SLOTS * i / NODES).to_string(), (SLOTS * (i + 1) / NODES - 1).to_string());
        run(&mut connection, &["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        run(&mut connection, &["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()])?;
        if i > 0 {
            let port = node.addr().port().to_string();
            run(&mut nodes[0].connect()?, &["CLUSTER", "MEET", "127.0.0.1", &port])?;
        }
    }
    for node in &nodes {
        let mut connection = node.connect()?;
        until("the nodes do not agree", || {
            let info = run(&mut connection, &["CLUSTER", "INFO"])?.text();
            Ok(info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{NODES}\r")))
        })?;
    }
    Ok(nodes)
}

pub fn url(nodes: &[RedisServer]) -> String {
    let hosts: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
    format!("redis-cluster://{}", hosts.join(","))
}

/// Moves the slot of a stream to another node, beginning while a read of it is blocked.
pub fn migrate(nodes: &[RedisServer], stream: &str) -> Result {
    let mut all: Vec<Connection> = nodes.iter().map(RedisServer::connect).collect::<std::io::Result<_>>()?;
    let slot = run(&mut all[0], &["CLUSTER", "KEYSLOT", stream])?.text();
    let from = slot.parse::<usize>()? * NODES / SLOTS;
    let to = (from + 1) % NODES;
    let ids: Vec<_> =
        all.iter_mut().map(|c| Ok(run(c, &["CLUSTER", "MYID"])?.text())).collect::<Result<_>>()?;
    until("no read of it is blocked", || {
        let clients = run(&mut all[from], &["CLIENT", "LIST"])?.text();
        Ok(clients.lines().any(|line| line.contains(" flags=b")))
    })?;
    run(&mut all[to], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]])?;
    run(&mut all[from], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]])?;
    let port = nodes[to].addr().port().to_string();
    loop {
        let keys = run(&mut all[from], &["CLUSTER", "GETKEYSINSLOT", &slot, KEYS])?;
        let keys: Vec<_> = keys.list().iter().map(|key| key.text()).collect();
        if keys.is_empty() {
            break;
        }
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        command.extend(keys.iter().map(String::as_str));
        run(&mut all[from], &command)?;
    }
    // First whoever takes it, then whoever gives it.
    for node in [to, from, NODES - from - to] {
        run(&mut all[node], &["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]])?;
    }
    Ok(())
}
