//! `homing demo-app`: one application of the demo, alone.

use std::{
    io,
    net::{Shutdown, TcpListener},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use socket2::SockRef;
use tokio::{io::AsyncReadExt as _, net::UnixStream, runtime::Builder};

use super::args::DemoAppArgs;
use crate::{
    control::{Stop, stop_signals},
    demo::{self, Shop, ShopOptions},
};

/// Runs the application until a signal.
pub fn run(args: &DemoAppArgs) -> anyhow::Result<ExitCode> {
    let options =
        ShopOptions { session_timeout: args.session_timeout, ..ShopOptions::named(args.name.clone()) };
    let shop = Arc::new(Shop::new(options)?);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_signals()?;
        if args.listen_stdin {
            as_child(shop, stop).await?
        } else {
            alone(args, shop, stop).await?
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn alone(args: &DemoAppArgs, shop: Arc<Shop>, mut stop: Stop) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {} (choose another with --listen)", args.listen))?;
    eprintln!("listening app http://{}", listener.local_addr()?);
    let shutdown = async move {
        stop.next().await;
    };
    demo::run(listener, shop, shutdown).await;
    Ok(())
}

/// Runs for `homing demo`, and no longer than that.
async fn as_child(shop: Arc<Shop>, mut stop: Stop) -> anyhow::Result<()> {
    let (listener, lifeline) =
        demo::inherited().context("--listen-stdin is how `homing demo` starts its applications")?;
    let listener = listen(listener)?;
    let shutdown = async move {
        stop.next().await;
        // Standard input still holds the socket: without this, clients would wait in it for nobody
        // while the last requests finish.
        let _ = SockRef::from(&io::stdin()).shutdown(Shutdown::Both);
    };
    lifeline.set_nonblocking(true)?;
    let lifeline = UnixStream::from_std(lifeline)?;
    tokio::select! {
        () = demo::run(listener, shop, shutdown) => {}
        () = end_of(lifeline) => {}
    }
    Ok(())
}

fn listen(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Nothing is ever written to it; an error is an end as well.
async fn end_of(mut lifeline: UnixStream) {
    while lifeline.read(&mut [0; 16]).await.is_ok_and(|count| count > 0) {}
}
