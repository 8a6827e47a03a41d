//! Jumps of the wall clock: noted in the system's log, so that its times can be read, and nothing
//! else. Deadlines and time budgets go by a clock that doesn't jump (`Ground::boot_ms`).

use serde::Serialize;

use crate::projection;
use crate::tx::Tx;

/// A change of less is taken for a correction.
const JUMP_MS: i64 = 5_000;

/// What the entry says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Jumped {
    by_ms: i64,
}

impl Tx<'_> {
    /// Compares both clocks with how they stood at the last look.
    pub(crate) fn note_jump(&mut self) {
        let ahead_ms = self.now_ms.saturating_sub(self.boot_ms);
        let before = self.state.ahead_ms.replace(ahead_ms);
        let by_ms = before.map_or(0, |before| ahead_ms.saturating_sub(before));
        if by_ms.abs() <= JUMP_MS {
            return;
        }
        tracing::warn!(by_ms, "the wall clock jumped");
        let body = projection::encode(&Jumped { by_ms });
        let row = store::Row::State(store::StateRow {
            kind: "clock".into(),
            key: "jumped".into(),
            body: body.clone(),
        });
        self.system("clock.jumped", "wall", body, row);
    }
}
