//! The life of a consumer: take part or take the lease, run a session, and again if the lease was lost.

use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;

use super::{
    context::{Context, is_passing},
    keeper,
    lane::Lanes,
    queue::Order,
    report::Report,
    session::{End, Session},
    settings::Ownership,
};
use crate::{Epoch, Result};

/// Runs until `shutdown` resolves or something fails that waiting does not mend.
async fn run(
    context: Arc<Context>,
    lanes: Arc<dyn Lanes>,
    order: Order,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Report> {
    let mut shutdown = std::pin::pin!(shutdown.fuse());
    let mut report = Report::default();
    let mut failed = 0;
    // How many sessions in a row have ended without having settled anything.
    let mut fruitless = 0;
    loop {
        let entered = tokio::select! {
            biased;
            () = &mut shutdown => {
                // The call that was dropped may have taken effect.
                goodbye(&context).await;
                break;
            }
            entered = keeper::enter(&context, &*lanes) => entered,
        };
        let again = match entered {
            Ok(position) => {
                failed = 0;
                let settled = report.settled;
                let end = Session::new(&context, &lanes, &order, position, &mut report)
                    .run(shutdown.as_mut())
                    .await;
                match end {
                    End::Stopped => break,
                    End::Failed(error) => return Err(error),
                    End::Again(error) => {
                        report.lost(&context, &error);
                        fruitless = if report.settled > settled { 0 } else { fruitless + 1 };
                        // The first one begins again at once. What ends it every time must not make a hot loop.
                        if fruitless > 1 {
                            let wait = context.settings.reconnect.delay(fruitless - 1);
                            tokio::select! {
                                biased;
                                () = &mut shutdown => {
                                    goodbye(&context).await;
                                    break;
                                }
                                () = context.clock.sleep(wait) => {}
                            }
                        }
                        continue;
                    }
                }
            }
            Err(error) if is_passing(&error) => error,
            Err(error) => {
                // Who took the lease before it found what is wrong must not keep others, or a reset, from it.
                if context.epoch() > Epoch::default() && context.settings.ownership == Ownership::Exclusive {
                    goodbye(&context).await;
                }
                return Err(error);
            }
        };
        failed += 1;
        let wait = context.unavailable(&again, failed);
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = context.clock.sleep(wait) => {}
        }
    }
    report.reconnects = context.reconnects();
    report.gaps = context.gaps();
    Ok(report)
}

async fn goodbye(context: &Context) {
    keeper::leave(context, keeper::GOODBYE_MAX.min(context.settings.drain_timeout)).await;
}

/// Runs a consumer under a span that names it.
pub(crate) async fn start(
    context: Arc<Context>,
    lanes: Arc<dyn Lanes>,
    order: Order,
    shutdown: impl Future + Send,
) -> Result<Report> {
    let shutdown = async { drop(shutdown.await) };
    let span =
        tracing::info_span!("consumer", subscription = %context.subscription, consumer = %context.name);
    run(context, lanes, order, shutdown).instrument(span).await
}
