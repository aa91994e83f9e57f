//! Users of Redis who lack a right.

use std::time::Duration;

use highwater::{Consumer, EntryId, Epoch, Error, ErrorKind, Position, Subscription, backend::*};
use highwater_redis::Redis;

use super::place::*;

/// A user who has these rights alone.
async fn limited(place: &Place, rules: &str) -> Redis {
    let all = ["ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "&*", "+@all"];
    let command: Vec<_> = all.into_iter().chain(rules.split(' ')).collect();
    place.redis_cli(&command);
    Redis::connect(format!("redis://limited:secret@{}", place.server().addr())).await.unwrap()
}

async fn call(redis: &Redis, call: &str) -> Option<Error> {
    let sub = subscription();
    let advance = Advance::new(sub.clone(), Epoch(0), Position::at(id(2)), consumer("c"));
    let new_group = Subscription::new("s", "new").unwrap();
    match call {
        "append" => {
            let append = Append::new(stream(), vec![NewEntry::new(fields("v"))]);
            redis.append(&append).await.unwrap().remove(0).err()
        }
        "trim" => redis.trim(&Trim::new(stream(), TrimLimit::Len(0))).await.err(),
        "inspect" => redis.inspect(&Inspect::subscription(&sub)).await.err(),
        "read" => redis.read(&Read::new(stream(), EntryId::ZERO, 1)).await.err(),
        "ensure_group" => redis.ensure_group(&EnsureGroup::new(new_group, &Position::default())).await.err(),
        "read_group" => redis.read_group(&ReadGroup::new(sub, consumer("c"), 1)).await.err(),
        "claim" => redis.claim(&Claim::new(sub, consumer("c"), 1, Duration::ZERO)).await.err(),
        "heartbeat" => redis.heartbeat(&Heartbeat::new(sub, consumer("c"), Token(1), SOON)).await.err(),
        "ack" => redis.ack(&Ack::new(sub, vec![id(2)])).await.err(),
        "load" => redis.load(&sub).await.err(),
        "list" => redis.list(&stream()).await.err(),
        "advance" => redis.advance(&advance).await.err(),
        "acquire" => redis.acquire(&Acquire::new(sub, consumer("c"), SOON)).await.err(),
        call => panic!("{call} is not in the table"),
    }
}

#[tokio::test]
async fn g18_a_user_who_lacks_a_right_is_told_which_and_changes_nothing() {
    let place = Place::redis().await;
    place.fill(3).await;
    // A pending entry, for those who would ack or claim it.
    place.backend.read_group(&ReadGroup::new(subscription(), consumer("other"), 1)).await.unwrap();
    for (rules, calls, named) in [
        ("-xadd", &["append"][..], "command=`xadd`"),
        ("-xtrim", &["trim"], "command=`xtrim`"),
        ("-xread", &["read"], "command=`xread`"),
        ("-xreadgroup", &["read_group"], "command=`xreadgroup`"),
        ("-hgetall", &["load"], "command=`hgetall`"),
        ("-smembers", &["list"], "command=`smembers`"),
        ("-eval -evalsha", &["ensure_group", "heartbeat", "claim", "ack", "advance"], "command=`eval"),
        // What a script may not do, a server names or not.
        ("-xgroup", &["ensure_group"], "operation=`ensure_group`"),
        ("-xinfo", &["inspect"], "operation=`inspect`"),
        ("-xack", &["ack"], "operation=`ack`"),
        ("-xclaim", &["claim"], "operation=`claim`"),
        ("-hset", &["heartbeat", "advance", "acquire"], "operation=`"),
        ("resetkeys ~highwater:*", &["append", "read", "read_group", "inspect", "ack"], "operation=`"),
        ("resetkeys ~s", &["load", "list", "advance", "acquire", "heartbeat"], "operation=`"),
    ] {
        let redis = limited(&place, rules).await;
        let before = place.picture().await;
        for name in calls {
            let error = call(&redis, name).await.unwrap_or_else(|| panic!("{rules}: {name} was granted"));
            let case = format!("{rules}: {name}");
            assert_eq!(error.kind(), ErrorKind::Denied, "{case}: {error:?}");
            assert_eq!(error.retry(), highwater::Retry::Never, "{case}");
            let text = error.to_string();
            assert!(text.contains("`ACL SETUSER`") && text.contains(named), "{case}: {text}");
            assert_eq!(place.picture().await, before, "{case}");
        }
    }
}

#[tokio::test]
async fn g18_a_server_that_refuses_to_keep_scripts_is_sent_their_text() {
    let place = Place::redis().await;
    place.fill(3).await;
    let redis = limited(&place, "-script").await;
    for name in ["ensure_group", "heartbeat", "ack", "advance"] {
        assert!(call(&redis, name).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn g18_a_consumer_who_lacks_a_right_stops_with_it_and_handles_nothing() {
    let place = Place::redis().await;
    place.fill(3).await;
    for (rules, exclusive) in [
        ("-xreadgroup", false),
        ("-eval -evalsha", false),
        ("-eval -evalsha", true),
        ("-xinfo", false),
        ("-xread", true),
        ("-hset", true),
        ("resetkeys ~s", false),
        ("resetkeys ~highwater:*", false),
    ] {
        let state = place.state().await;
        let redis = limited(&place, rules).await;
        let builder = Consumer::fused(subscription(), redis);
        let error = refused(if exclusive { builder.exclusive() } else { builder }).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{rules}: {error:?}");
        assert!(error.to_string().contains("`ACL SETUSER`"), "{rules}: {error}");
        // An owner leaves the mark of a new epoch; nothing else was touched.
        if !exclusive {
            assert_eq!(place.state().await, state, "{rules}");
        }
        let checkpoint = place.backend.load(&subscription()).await.unwrap().unwrap();
        assert_eq!(checkpoint.position.watermark, id(1), "{rules}");
        let release = Release::new(subscription(), checkpoint.epoch);
        place.backend.release(&release).await.unwrap();
    }
}
