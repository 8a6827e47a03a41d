//! A task that leaves for another home and one that has come: how it stands there and here.
//!
//! Who waited for a person's word on a step waits for it at the new home too; who waited behind an
//! agent that it called waits there behind the same task, which came with it. Whatever else was
//! open goes on when a person says so: only people know that nobody works on it elsewhere.

use super::{Moved, Reason, Task, TaskState};

pub(super) fn moved(task: &mut Task) {
    // Told a second time it stands as it stood the first.
    let stood = task.moved.take().map_or_else(
        || (task.reason, task.error_message.clone()),
        |moved| (moved.reason, moved.message),
    );
    task.moved = Some(Moved {
        moved_ms: task.updated_ms,
        reason: stood.0,
        message: stood.1,
    });
    // A generation is a number of one home.
    task.generation = None;
    task.lease = None;
    if task.state.is_terminal() {
        return;
    }
    task.parked_ms.get_or_insert(task.updated_ms);
    park(
        task,
        Reason::Moved,
        "its session was exported, and it goes on where that is imported".to_owned(),
    );
}

pub(super) fn imported(task: &mut Task) {
    let stood = task.moved.take();
    if task.state.is_terminal() {
        return;
    }
    let (reason, message) = stood.map_or((None, None), |moved| (moved.reason, moved.message));
    match (reason, message) {
        (Some(reason), Some(message)) if waits_alike(reason) => park(task, reason, message),
        _ => {
            let message = format!(
                "its session was imported with this task open. When nothing works on it elsewhere: mainstay task retry {}",
                task.id
            );
            park(task, Reason::Imported, message);
        }
    }
}

/// What it waits for is the same at every home.
fn waits_alike(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Question | Reason::Divergence | Reason::Parked | Reason::Poison
    )
}

fn park(task: &mut Task, reason: Reason, message: String) {
    task.state = TaskState::InputRequired;
    task.reason = Some(reason);
    task.error_code = Some(reason.word().to_owned());
    task.error_message = Some(message);
}
