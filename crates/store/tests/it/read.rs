//! Projections: put, replaced, deleted, listed in order and page by page.

use store::{
    Batch, NewEntry, Row, RowKey, SessionRow, StateRow, StepRow, TaskCursor, TaskFilter, TaskRow,
};

use crate::fixture::{entry, on_both};

fn task(id: &str, agent: &str, state: &str, created_ms: i64) -> TaskRow {
    TaskRow {
        id: id.to_owned(),
        agent: agent.to_owned(),
        session: format!("s-{agent}"),
        state: state.to_owned(),
        created_ms,
        updated_seq: 1,
        body: id.as_bytes().to_vec(),
    }
}

fn batch(rows: Vec<Row>) -> Batch {
    Batch {
        entries: vec![NewEntry {
            payloads: Vec::new(),
            ..entry(1)
        }],
        rows,
        ..Batch::default()
    }
}

fn ids(tasks: Vec<TaskRow>) -> Vec<String> {
    tasks.into_iter().map(|task| task.id).collect()
}

#[test]
fn tasks_are_filtered_and_paged_newest_first() {
    on_both(|home| {
        let mut log = home.open();
        let tasks = [
            task("t1", "a", "completed", 10),
            task("t2", "a", "working", 20),
            task("t3", "b", "submitted", 20),
            task("t4", "a", "input-required", 30),
            task("t5", "b", "canceled", 40),
        ];
        log.append(&batch(tasks.clone().map(Row::Task).to_vec()))
            .unwrap();
        let reader = log.reader().unwrap();
        assert_eq!(reader.task("t3").unwrap().as_ref(), Some(&tasks[2]));
        assert_eq!(reader.task("t9").unwrap(), None);
        let all = TaskFilter::default();
        assert_eq!(
            ids(reader.tasks(&all, 9).unwrap()),
            ["t5", "t4", "t3", "t2", "t1"]
        );
        let page = reader.tasks(&all, 3).unwrap();
        let before = page.last().map(|task| TaskCursor {
            created_ms: task.created_ms,
            id: task.id.clone(),
        });
        assert_eq!(
            ids(reader
                .tasks(
                    &TaskFilter {
                        before,
                        ..all.clone()
                    },
                    9
                )
                .unwrap()),
            ["t2", "t1"]
        );
        let of_a = TaskFilter {
            agent: Some("a".to_owned()),
            ..all.clone()
        };
        assert_eq!(ids(reader.tasks(&of_a, 2).unwrap()), ["t4", "t2"]);
        let working = TaskFilter {
            state: Some("working".to_owned()),
            ..of_a
        };
        assert_eq!(ids(reader.tasks(&working, 9).unwrap()), ["t2"]);
        let in_session = TaskFilter {
            session: Some("s-b".to_owned()),
            ..all
        };
        assert_eq!(ids(reader.tasks(&in_session, 9).unwrap()), ["t5", "t3"]);
        assert_eq!(ids(reader.open_tasks().unwrap()), ["t2", "t3", "t4"]);
        log.append(&batch(vec![
            Row::Task(task("t2", "a", "failed", 20)),
            Row::Delete(RowKey::Task("t3".to_owned())),
        ]))
        .unwrap();
        assert_eq!(ids(reader.open_tasks().unwrap()), ["t4"]);
        assert_eq!(ids(log.read().open_tasks().unwrap()), ["t4"]);
    });
}

#[test]
fn the_other_rows_are_put_replaced_and_deleted() {
    on_both(|home| {
        let mut log = home.open();
        let step = |n: u64, body: &[u8]| StepRow {
            task: "t".to_owned(),
            n,
            body: body.to_vec(),
        };
        let session = |id: &str, agent: Option<&str>| SessionRow {
            id: id.to_owned(),
            agent: agent.map(str::to_owned),
            body: vec![1],
        };
        let state = |key: &str, body: u8| StateRow {
            kind: "k".to_owned(),
            key: key.to_owned(),
            body: vec![body],
        };
        log.append(&batch(vec![
            Row::Step(step(10, b"ten")),
            Row::Step(step(2, b"two")),
            Row::Step(step(2, b"TWO")),
            Row::Session(session("s1", Some("a"))),
            Row::Session(session("s2", None)),
            Row::Session(session("s3", Some("a"))),
            Row::Idempotency {
                key: "i".to_owned(),
                task: "t".to_owned(),
            },
            Row::State(state("y", 1)),
            Row::State(state("x", 2)),
        ]))
        .unwrap();
        let reader = log.reader().unwrap();
        assert_eq!(
            reader.steps("t").unwrap(),
            [step(2, b"TWO"), step(10, b"ten")]
        );
        assert_eq!(reader.step("t", 10).unwrap(), Some(step(10, b"ten")));
        assert_eq!(reader.session("s2").unwrap(), Some(session("s2", None)));
        assert_eq!(
            reader.sessions(Some("a"), None, 9).unwrap(),
            [session("s3", Some("a")), session("s1", Some("a"))]
        );
        assert_eq!(
            reader.sessions(None, Some("s3"), 1).unwrap(),
            [session("s2", None)]
        );
        assert_eq!(reader.idempotent_task("i").unwrap().as_deref(), Some("t"));
        assert_eq!(reader.states("k").unwrap(), [state("x", 2), state("y", 1)]);
        assert_eq!(reader.state("k", "x").unwrap(), Some(state("x", 2)));
        log.append(&batch(vec![
            Row::Delete(RowKey::Step {
                task: "t".to_owned(),
                n: 2,
            }),
            Row::Delete(RowKey::Session("s2".to_owned())),
            Row::Delete(RowKey::Idempotency("i".to_owned())),
            Row::Delete(RowKey::State {
                kind: "k".to_owned(),
                key: "x".to_owned(),
            }),
        ]))
        .unwrap();
        assert_eq!(reader.steps("t").unwrap(), [step(10, b"ten")]);
        assert_eq!(reader.session("s2").unwrap(), None);
        assert_eq!(reader.idempotent_task("i").unwrap(), None);
        assert_eq!(reader.states("k").unwrap(), [state("y", 1)]);
    });
}

#[test]
fn a_page_of_large_entries_ends_early_but_none_is_left_out() {
    on_both(|home| {
        let mut log = home.open();
        for _ in 0..12 {
            let large = NewEntry {
                payloads: Vec::new(),
                data: vec![7; 1024 * 1024],
                ..entry(1)
            };
            log.append(&Batch {
                entries: vec![large],
                ..Batch::default()
            })
            .unwrap();
        }
        let page = log.read().entries(0, 100).unwrap();
        assert!(page.len() < 12, "{}", page.len());
        let rest = log.read().entries(page.len() as u64, 100).unwrap();
        assert_eq!(rest.last().map(|entry| entry.seq), Some(12));
        assert_eq!(page.len() + rest.len(), 13);
    });
}
