//! What the gateway looks after by itself, every two seconds: spools of the dead, instances that are lost.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::app::App;
use crate::audit::Entry;
use crate::audit::entry::LineType;
use crate::clock;
use crate::ingest::unknown_end;
use crate::routes::agents::LeaveLine;
use crate::spool_adoption::{self, Adopter};
use crate::state::{Process, Standing, StateError};

const EVERY: Duration = Duration::from_secs(2);

/// Sweeps between two times that `state.db` learns who was heard of.
const SEEN_EVERY: u32 = 15;

/// Sweeps until it is dropped.
pub async fn run(app: App, spool: PathBuf) {
    let (mut adopter, mut round, mut since) = (Adopter::default(), 0_u32, 0);
    loop {
        if let Err(error) = adopter.sweep(&spool, &app.audit).await {
            tracing::warn!("the spool cannot be read: {error}");
        }
        if let Err(error) = tend_instances(&app, &spool, adopter.left_alone()).await {
            tracing::warn!("instances cannot be looked after now: {error}");
        }
        round = round.wrapping_add(1);
        if round.is_multiple_of(SEEN_EVERY) {
            let (keeper, now) = (Arc::clone(&app), clock::now_micros());
            match spawn_blocking(move || keeper.state.seen(&keeper.sessions.seen_since(since))).await {
                Ok(Err(error)) => tracing::warn!("{error}"),
                _ => since = now,
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Marks instances as lost whose process is gone, and ends the calls that nobody can end any more.
async fn tend_instances(app: &App, spool: &Path, left_alone: Arc<HashSet<PathBuf>>) -> io::Result<()> {
    let keeper = Arc::clone(app);
    let gone = spawn_blocking(move || -> Result<Vec<Process>, StateError> {
        let mut processes = keeper.state.active_processes()?;
        processes.retain(|process| process.is_gone(&keeper.host));
        Ok(processes)
    });
    for process in gone.await?.map_err(io::Error::other)? {
        let line = LeaveLine {
            agent_id: &process.agent_id,
            instance_id: &process.instance_id,
            run_id: process.run_id.as_deref(),
            lost: true,
        };
        app.audit.append(vec![Entry::other(LineType::Leave, &line)], false).await.map_err(io::Error::other)?;
        app.sessions.forget(&process.instance_id);
        let (keeper, instance_id) = (Arc::clone(app), process.instance_id.clone());
        spawn_blocking(move || keeper.state.depart(&instance_id, true)).await?.map_err(io::Error::other)?;
        tracing::info!(
            "instance {} of agent {} is lost: pid {} is gone",
            process.instance_id,
            process.agent_id,
            process.pid
        );
    }
    if app.audit.is_rebuilding() {
        return Ok(());
    }
    let (keeper, directory) = (Arc::clone(app), spool.to_owned());
    let ends = spawn_blocking(move || ends_unknown(&keeper, &directory, &left_alone)).await??;
    if !ends.is_empty() {
        app.audit.append(ends, true).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Ends for open calls of processes that are gone and have nothing in the spool that could still say more.
fn ends_unknown(app: &App, spool: &Path, left_alone: &HashSet<PathBuf>) -> io::Result<Vec<Entry>> {
    let instances = app.reader.instances_with_open_calls().map_err(io::Error::other)?;
    let mut ends = Vec::new();
    let mut gone = HashSet::new();
    for instance in instances {
        let Some(process) = app.state.process(&instance).map_err(io::Error::other)? else { continue };
        let standing = app.state.standing(&instance).map_err(io::Error::other)?;
        if matches!(standing, Standing::Left | Standing::Lost) && process.is_gone(&app.host) {
            gone.insert(instance);
        }
    }
    // Looked at after the process was seen dead: what it wrote before is there.
    let spooled = if gone.is_empty() { Default::default() } else { spool_adoption::list(spool)? };
    let awaits = |instance: &String| {
        spooled.get(instance).is_some_and(|paths| paths.iter().any(|path| !left_alone.contains(path)))
    };
    for instance in gone.into_iter().filter(|instance| !awaits(instance)) {
        for call in app.reader.open_calls(&instance).map_err(io::Error::other)? {
            ends.push(unknown_end(call.event_id, call.agent_id.unwrap_or_default(), instance.clone(), call.run_id));
        }
    }
    Ok(ends)
}
