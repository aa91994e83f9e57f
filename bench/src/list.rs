//! All that can be measured.

use futures_util::future::BoxFuture;
use highwater::Ownership;
use highwater_redis::Client;

use crate::{
    Result,
    env::Env,
    late,
    measure::Run,
    ours::{Ours, Store, Way},
    raw, sweep,
};

/// What of a run its group compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    Rate,
    /// Where the rate was given: how late nearly all came.
    Late,
    /// And what that took of all processors.
    Cost,
}

impl Shows {
    pub fn of(self, run: &Run) -> f64 {
        match self {
            Self::Rate => run.rate(),
            Self::Late => run.more.get(Self::LATE).copied().unwrap_or_default(),
            Self::Cost => run.client_each() + run.server_each(),
        }
    }

    /// Of what `of` says.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate => "entries/s",
            Self::Late => Self::LATE,
            Self::Cost => "CPU ns an entry",
        }
    }

    const LATE: &str = "p95 us";
}

/// Which servers a run needs beside the stream's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    pub other: bool,
    pub postgres: bool,
}

type Work = Box<dyn Fn(Env) -> BoxFuture<'static, Result<Run>> + Send + Sync>;

/// One way to do the work of its group.
pub struct Scenario {
    pub name: String,
    pub run: Work,
    pub needs: Needs,
    pub shape: Shape,
    /// It is compared with the first of its group that has the same here.
    pub beside: String,
}

/// How much a run gets to do.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// One of so many entries: it would take minutes else.
    pub share: u64,
    /// So many, and no share of what was asked for. Where a rate is given, the seconds say how many.
    pub entries: Option<u64>,
    pub payload: usize,
    pub batch: usize,
    pub many: u64,
    pub rate: u64,
    /// Only when long runs were asked for.
    pub long: bool,
    /// It makes its own streams.
    pub unfilled: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            share: 1,
            entries: None,
            payload: 100,
            batch: 1_000,
            many: 1,
            rate: 0,
            long: false,
            unfilled: false,
        }
    }
}

/// Scenarios that are compared.
pub struct Group {
    pub name: &'static str,
    pub about: &'static str,
    pub shows: Shows,
    pub scenarios: Vec<Scenario>,
}

/// All groups, in the order of what matters most.
pub fn groups() -> Vec<Group> {
    let throughput = Group {
        name: "throughput",
        about: "A stream that is full, read to its end.",
        shows: Shows::Rate,
        scenarios: throughput(),
    };
    [vec![throughput], late::groups(), sweep::groups()].into_iter().flatten().collect()
}

/// The scenario of this name.
pub fn find(name: &str) -> Result<Scenario> {
    let all = groups().into_iter().flat_map(|group| group.scenarios);
    Ok(all.into_iter().find(|scenario| scenario.name == name).ok_or("there is no such scenario")?)
}

pub fn print() -> Result {
    for group in groups() {
        println!("{}: {}", group.name, group.about);
        group.scenarios.iter().for_each(|scenario| println!("  {}", scenario.name));
    }
    Ok(())
}

impl Scenario {
    pub fn new<F>(name: &str, run: impl Fn(Env) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Run>> + Send + 'static,
    {
        let run: Work = Box::new(move |env| Box::pin(run(env)));
        let (needs, shape) = (Needs::default(), Shape::default());
        Self { name: name.to_owned(), run, needs, shape, beside: String::new() }
    }

    fn postgres(mut self) -> Self {
        self.needs.postgres = true;
        self
    }

    pub fn share(mut self, share: u64) -> Self {
        self.shape.share = share;
        self
    }

    pub fn many(mut self, many: u64) -> Self {
        self.shape.many = many;
        self
    }

    /// So many entries a second, in streams of its own.
    pub fn paced(mut self, rate: u64) -> Self {
        (self.shape.rate, self.shape.unfilled) = (rate, true);
        self
    }

    pub fn beside(mut self, beside: &str) -> Self {
        self.beside = beside.to_owned();
        self
    }

    /// The same under another name and shape, compared with those of the same shape.
    pub fn shaped(mut self, name: &str, change: impl FnOnce(&mut Shape)) -> Self {
        self.name = format!("{}/{name}", self.name);
        self.beside = name.to_owned();
        change(&mut self.shape);
        self
    }
}

impl From<Ours> for Scenario {
    fn from(ours: Ours) -> Self {
        let mut scenario = Self::new(&ours.to_string(), move |env| ours.run(env));
        scenario.needs =
            Needs { other: ours.store == Store::OtherRedis, postgres: ours.store == Store::Postgres };
        scenario.share(if ours.way == Way::TransactionEach { 50 } else { 1 })
    }
}

fn throughput() -> Vec<Scenario> {
    let mut list = vec![
        Scenario::new("limit/group", raw::limit_group),
        Scenario::new("limit/read", raw::limit_read),
        Scenario::new("raw/redis-rs/group/typed", raw::group_typed),
        Scenario::new("raw/redis-rs/group/lean", raw::group_lean),
        Scenario::new("raw/redis-rs/group/two connections", raw::group_two_connections),
        Scenario::new(
            "raw/redis-rs/group/two connections, checkpoint",
            raw::group_two_connections_checkpoint,
        ),
        Scenario::new("raw/redis-rs/group/two readers", raw::group_two_readers),
        Scenario::new("raw/redis-rs/read/lean", raw::read_lean),
        Scenario::new("raw/redis-rs/read/checkpoint", raw::read_lean_checkpoint),
        Scenario::new("raw/redis-rs/read/sqlx", raw::read_postgres).postgres(),
        Scenario::new("raw/fred/group/lean", raw::fred_seq),
        Scenario::new("raw/fred/group/two clients", raw::fred_two),
        Scenario::new("one by one", raw::one_by_one).share(50),
    ];
    list.extend(ours().into_iter().map(Scenario::from));
    #[cfg(feature = "peers")]
    list.extend(crate::peers::throughput());
    list
}

/// All pairs of ownership and client, and from there one change at a time.
fn ours() -> Vec<Ours> {
    let mut list = Vec::new();
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let plain = Ours { ownership, ..sweep::SHARED };
        list.extend([plain, Ours { client: Client::Fred, ..plain }]);
        list.extend(
            [Way::Batch, Way::ByHand, Way::Transaction, Way::TransactionEach]
                .map(|way| Ours { way, ..plain }),
        );
        if ownership == Ownership::Shared {
            list.extend([Client::RedisRs, Client::Fred].map(|client| Ours { readers: 2, client, ..plain }));
        }
        let stores = [Store::Memory, Store::OtherRedis, Store::Postgres, Store::Sqlite];
        list.extend(stores.map(|store| Ours { store, ..plain }));
        for store in [Store::Postgres, Store::Sqlite] {
            list.extend([Way::Transaction, Way::TransactionEach].map(|way| Ours { way, store, ..plain }));
        }
    }
    list
}
