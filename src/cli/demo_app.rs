//! `homing demo-app`: one application of the demo, alone.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use tokio::{net::TcpListener, runtime::Builder};

use super::args::DemoAppArgs;
use crate::{
    control::stop_signals,
    demo::{self, Shop, ShopOptions},
};

/// Runs the application until a signal.
pub fn run(args: &DemoAppArgs) -> anyhow::Result<ExitCode> {
    let options =
        ShopOptions { session_timeout: args.session_timeout, ..ShopOptions::named(args.name.clone()) };
    let shop = Arc::new(Shop::new(options)?);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = stop_signals()?;
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {} (choose another with --listen)", args.listen))?;
        eprintln!("listening app http://{}", listener.local_addr()?);
        demo::run(listener, shop, async move {
            stop.next().await;
        })
        .await;
        Ok(ExitCode::SUCCESS)
    })
}
