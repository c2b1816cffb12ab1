//! tokio: a task per connection that reads and writes all of what it got, on a runtime of the current thread.
//!
//! TCP_NODELAY: on, set on each accepted socket, as tokio has no call for the listening one.

use std::io::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{signal, SignalKind};

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0u8; 16384]; // as large as the largest message of the bench
    stream.set_nodelay(true)?;
    loop {
        let size = stream.read(&mut bytes).await?;
        if size == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..size]).await?;
    }
}

async fn accept(listener: TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    }
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        std::io::stdout().flush()?;
        tokio::spawn(accept(listener));
        terminated.recv().await;
        Ok(())
    })
}
