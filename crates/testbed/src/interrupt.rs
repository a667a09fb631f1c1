//! Ctrl-C and SIGTERM while something is being built on the host: take it away, then end.

use std::{
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after an interruption, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;

/// Held by whoever cleans up.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for the right to clean up or to say that all went well. After an interruption it never comes: the process ends.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interruption runs `cleanup` and ends this process.
///
/// Whatever another thread makes at the same moment may stay; the next run finds it by its name.
pub(crate) fn clean_up_with(cleanup: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let interrupted = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::io::Result::Ok(())
        });
        // Without handlers the signal's own action ends the process, and the next run cleans up.
        if interrupted.is_ok() {
            let _turn = turn();
            cleanup();
            process::exit(INTERRUPTED);
        }
    });
}
