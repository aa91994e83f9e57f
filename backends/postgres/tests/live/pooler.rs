//! PgBouncer in transaction mode: each transaction may be on another connection of the server.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use highwater::{Epoch, Position, backend::*};
use highwater_postgres::Postgres;
use tempfile::TempDir;

use crate::{store::*, support::eventually};

/// A pooler of one's own. It ends with this value.
struct PgBouncer {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl PgBouncer {
    /// Starts one in front of a server, with two connections to it; `None` where it is not installed.
    async fn start(server: SocketAddr) -> Option<Self> {
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|p| Path::new(p).exists())?;
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.ip(),
            server.port()
        );
        let file = dir.path().join("pgbouncer.ini");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root.
            command.args(["--user", "postgres"]);
            fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let bouncer = Self { process: command.spawn().unwrap(), port, _dir: dir };
        eventually("the pooler listens", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Some(bouncer)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_through_pgbouncer_in_transaction_mode() {
    let store = Store::new().await;
    let Some(bouncer) = PgBouncer::start(store.addr()).await else {
        println!("skipped: pgbouncer is not installed");
        return;
    };
    let url = store.url_at(SocketAddr::from(([127, 0, 0, 1], bouncer.port)));
    let mut tasks = Vec::new();
    for n in 0..4u64 {
        let postgres = Postgres::connect(&url).await.unwrap();
        postgres.ensure_schema().await.unwrap();
        let orders = store.orders.clone();
        tasks.push(tokio::spawn(async move {
            let mine = highwater::Subscription::new("mine", n.to_string()).unwrap();
            let lease = Acquire::new(mine.clone(), name("me"), LONG);
            let Acquired::Owned(grant) = postgres.acquire(&lease).await.unwrap() else {
                panic!("it is free")
            };
            let mut first = 0;
            for entry in 1..=25 {
                let settlement = each(&orders, 0, [entry]);
                first += u64::from(handle(&postgres, &settlement).await.unwrap() == Committed::done(None));
                let advance = Advance::new(mine.clone(), grant.epoch, Position::at(id(entry)), name("me"));
                assert!(postgres.advance(&advance).await.unwrap().moved);
                let renew = Renew::new(mine.clone(), grant.epoch, LONG);
                postgres.renew(&renew).await.unwrap();
                let loaded = postgres.load(&mine).await.unwrap().unwrap();
                assert_eq!((loaded.position.watermark, loaded.epoch), (id(entry), grant.epoch));
            }
            postgres.release(&Release::new(mine, grant.epoch)).await.unwrap();
            first
        }));
    }
    let mut first = 0;
    for task in tasks {
        first += task.await.unwrap();
    }
    assert_eq!(first, 25);
    assert_eq!(store.sql("SELECT count(*), count(DISTINCT entry) FROM effects").await, "25|25");
    let through = Postgres::connect(&url).await.unwrap();
    handle(&through, &store.up_to(Epoch(0), 26, 28)).await.unwrap();
    assert_eq!(store.watermark().await, Some(id(28)));
}
