//! Handlers inside a transaction: their effects and the checkpoint are committed together.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::{
    Consumer, HandlerError, Ownership, Report, lane::Lanes, queue::Order, run, settle::Settler,
    transaction::Transactions,
};
use crate::{Delivery, Error, Result, backend::TransactionalCheckpoint};

impl<S, C: TransactionalCheckpoint> Consumer<S, C> {
    /// As [`run`](Self::run), with a handler that writes to a transaction of the checkpoint store: what it writes and that the
    /// entry is settled are committed together, or not at all. One transaction an entry; see
    /// [`run_transactional_batches`](Self::run_transactional_batches) for fewer.
    ///
    /// The effects in the transaction take place exactly once. A handler may still be called again with an entry whose
    /// transaction did not take place, and what it does elsewhere is done at least once.
    ///
    /// The consumer begins and commits; dropping the transaction, an error and a panic roll it back. A store that cannot answer
    /// is no failure of the entry: it is handled again when the store answers.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use highwater::{Consumer, Fields, Memory, Producer, Subscription};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> highwater::Result<()> {
    /// let (stream, store) = (Memory::new(), Memory::new());
    /// Producer::new("orders".parse()?, stream.clone())?.append(Fields::from_iter([("kind", "order")])).await?;
    ///
    /// let (rows, stop) = (Arc::new(Mutex::new(0)), Arc::new(tokio::sync::Notify::new()));
    /// let (table, stopped) = (Arc::clone(&rows), Arc::clone(&stop));
    /// let consumer = Consumer::builder(Subscription::new("orders", "billing")?, stream, store).exclusive().build()?;
    /// let report = consumer.run_transactional(move |tx, delivery| {
    ///     let (table, stop) = (Arc::clone(&table), Arc::clone(&stop));
    ///     Box::pin(async move {
    ///         // With a database: `sqlx::query("INSERT …").bind(…).execute(&mut **tx).await?`.
    ///         println!("{}", delivery.id());
    ///         tx.effect(move || {
    ///             *table.lock().unwrap() += 1;
    ///             stop.notify_one();
    ///         });
    ///         Ok::<_, std::io::Error>(())
    ///     })
    /// }, stopped.notified()).await?;
    /// assert_eq!(report.settled, 1);
    /// assert_eq!(*rows.lock().unwrap(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Invalid`](crate::ErrorKind::Invalid) in an exclusive subscription with
    /// [`keyed`](crate::Builder::keyed) or [`concurrency`](crate::Builder::concurrency): its position moves in strict order.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run): a transaction under way takes place entirely or not at all.
    pub fn run_transactional<F, E>(
        self,
        handler: F,
        shutdown: impl Future + Send,
    ) -> impl Future<Output = Result<Report>> + Send
    where
        F: for<'a> Fn(&'a mut C::Tx, Delivery) -> BoxFuture<'a, Result<(), E>> + Send + Sync + 'static,
        E: Into<HandlerError> + 'static,
    {
        let order = match &self.order {
            Order::Strict { .. } => Ok(Order::Strict { chunk_max: 1 }),
            order if self.context.settings.ownership == Ownership::Shared => Ok(order.clone()),
            _ => Err(Error::invalid(
                "transactions of an exclusive subscription come in strict order: leave out `concurrency` and `keyed`",
            )),
        };
        self.start(move |tx, deliveries| one(&handler, tx, deliveries), order, shutdown)
    }

    /// As [`run_transactional`](Self::run_transactional), with a transaction a batch, in strict order: one batch at a time, of
    /// at most [`batch_entries_max`](crate::Builder::batch_entries_max) entries. A batch that fails comes again as a whole.
    ///
    /// # Errors
    ///
    /// As [`run_transactional`](Self::run_transactional), and [`Invalid`](crate::ErrorKind::Invalid) with
    /// [`keyed`](crate::Builder::keyed) or [`concurrency`](crate::Builder::concurrency), in a shared subscription too.
    ///
    /// # Cancel safety
    ///
    /// As [`run_transactional`](Self::run_transactional).
    pub fn run_transactional_batches<F, E>(
        self,
        handler: F,
        shutdown: impl Future + Send,
    ) -> impl Future<Output = Result<Report>> + Send
    where
        F: for<'a> Fn(&'a mut C::Tx, Vec<Delivery>) -> BoxFuture<'a, Result<(), E>> + Send + Sync + 'static,
        E: Into<HandlerError> + 'static,
    {
        let order = match self.order {
            Order::Strict { .. } => Ok(Order::Strict { chunk_max: self.batch_entries_max }),
            _ => Err(Error::invalid("batches come in strict order: leave out `concurrency` and `keyed`")),
        };
        self.start(move |tx, batch| into(handler(tx, batch)), order, shutdown)
    }

    /// That it is `Send` is said here, and in both that are public: of their bare futures the compiler cannot prove it inside of
    /// another one, where the transaction's type is that of a trait object.
    fn start<F>(
        self,
        call: F,
        order: Result<Order>,
        shutdown: impl Future + Send,
    ) -> impl Future<Output = Result<Report>> + Send
    where
        F: for<'a> Fn(&'a mut C::Tx, Vec<Delivery>) -> BoxFuture<'a, Result<(), HandlerError>>
            + Send
            + Sync
            + 'static,
    {
        let fused = matches!(self.context.settler, Settler::Atomic(_));
        let lanes = Transactions::new(self.checkpoints, Arc::clone(&self.context), fused, call);
        let (context, lanes) = (self.context, Arc::new(lanes) as Arc<dyn Lanes>);
        async move { run::start(context, lanes, order?, shutdown).await }
    }
}

fn one<'a, T, F, E>(
    handler: &F,
    tx: &'a mut T,
    mut deliveries: Vec<Delivery>,
) -> BoxFuture<'a, Result<(), HandlerError>>
where
    F: Fn(&'a mut T, Delivery) -> BoxFuture<'a, Result<(), E>>,
    E: Into<HandlerError> + 'static,
{
    let delivery = deliveries.pop().expect("one delivery a transaction");
    debug_assert!(deliveries.is_empty(), "one delivery a transaction");
    into(handler(tx, delivery))
}

fn into<'a, E: Into<HandlerError> + 'static>(
    handling: BoxFuture<'a, Result<(), E>>,
) -> BoxFuture<'a, Result<(), HandlerError>> {
    handling.map(|result| result.map_err(Into::into)).boxed()
}
