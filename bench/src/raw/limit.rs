//! What the server does at most: requests that always wait for it, and replies that nobody parses.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Result,
    env::{Env, FIELD},
    measure::Run,
    stage::entry_id,
};

/// So many requests wait at the server.
const QUEUED: u64 = 2;

/// `XREADGROUP` and then one `XACK` for all of it, whose ids are known beforehand.
pub async fn group(env: Env) -> Result<Run> {
    let mut socket = connect(&env).await?;
    let create = command(&["XGROUP", "CREATE", &env.stream, &env.group, "0"]);
    socket.write_all(&create).await?;
    receive(&mut socket, "+OK\r\n".len()).await?;
    let count = env.batch.to_string();
    let read =
        command(&["XREADGROUP", "GROUP", &env.group, "c", "COUNT", &count, "STREAMS", &env.stream, ">"]);
    let request = |nth: u64| {
        let ids: Vec<_> = (nth * env.batch as u64..(nth + 1) * env.batch as u64).map(entry_id).collect();
        let ack = ["XACK", &env.stream, &env.group].into_iter().chain(ids.iter().map(|id| &**id));
        [read.clone(), command(&ack.collect::<Vec<_>>())].concat()
    };
    let acked = format!(":{count}\r\n").len();
    drive(&env, socket, request, acked).await
}

/// `XREAD` alone.
pub async fn read(env: Env) -> Result<Run> {
    let socket = connect(&env).await?;
    let count = env.batch.to_string();
    let request = |nth: u64| {
        let after = (nth * env.batch as u64).checked_sub(1).map_or("0".to_owned(), entry_id);
        command(&["XREAD", "COUNT", &count, "STREAMS", &env.stream, &after])
    };
    drive(&env, socket, request, 0).await
}

/// Sends requests so that some always wait, until as many bytes came as all entries have.
async fn drive(
    env: &Env,
    mut socket: TcpStream,
    request: impl Fn(u64) -> Vec<u8>,
    more: usize,
) -> Result<Run> {
    let batches = env.entries / env.batch as u64;
    // Built before the clock runs: what a client does is not the question.
    let requests: Vec<_> = (0..batches).map(request).collect();
    let reply = reply_len(env) + more;
    let meter = env.start()?;
    for nth in 0..batches + QUEUED {
        if let Some(request) = requests.get(usize::try_from(nth)?) {
            socket.write_all(request).await?;
        }
        if nth >= QUEUED {
            receive(&mut socket, reply).await?;
        }
    }
    meter.stop()
}

async fn connect(env: &Env) -> Result<TcpStream> {
    let addr = env.redis.url.trim_start_matches("redis://").trim_end_matches('/');
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Takes exactly so many bytes: the server sends no others.
async fn receive(socket: &mut TcpStream, mut bytes: usize) -> Result {
    let mut buffer = vec![0; 64 << 10];
    let mut begins = true;
    while bytes > 0 {
        let most = bytes.min(buffer.len());
        match socket.read(&mut buffer[..most]).await? {
            0 => return Err("the server has closed the connection".into()),
            n if begins && buffer[0] == b'-' => {
                return Err(String::from_utf8_lossy(&buffer[..n]).into_owned().into());
            }
            n => bytes -= n,
        }
        begins = false;
    }
    Ok(())
}

/// How long the reply to a read of a full batch is.
fn reply_len(env: &Env) -> usize {
    let bulk = |len: usize| format!("${len}\r\n").len() + len + 2;
    let entry = "*2\r\n".len() * 2 + bulk(entry_id(0).len()) + bulk(FIELD.len()) + bulk(env.payload);
    "*1\r\n*2\r\n".len() + bulk(env.stream.len()) + format!("*{}\r\n", env.batch).len() + entry * env.batch
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    request
}
