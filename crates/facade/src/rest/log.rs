//! The log over HTTP: its head, its entries, and entries as they are committed.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use hub::Hub;
use hub::view::{EntryView, HeadView, Page};
use serde::Deserialize;

use super::{Answer, LAST_EVENT, LIMIT, Operation, number, read};
use crate::decode::{QueryOf, page_limit};
use crate::door::Door;
use crate::problem::Problem;
use crate::sse::{self, Broken, Piece};
use crate::{decode, frames};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation {
            errors: &[],
            ..read(
                "/api/v1/log/head",
                "log_head",
                "The newest signed head.",
                Answer::One("Head"),
                || get(head),
            )
        },
        Operation {
            parameters: const {
                &[
                    number("from", "Sequence of the first entry; 0 unless told."),
                    LIMIT,
                ]
            },
            errors: &[400],
            ..read(
                "/api/v1/log/entries",
                "log_entries",
                "Entries in their order.",
                Answer::List("Entry"),
                || get(entries),
            )
        },
        Operation {
            parameters: const { &[LAST_EVENT] },
            errors: &[400],
            ..read(
                "/api/v1/events",
                "log_events",
                "Entries as they are committed, from now or after the last seen.",
                Answer::Events("Entry"),
                || get(events),
            )
        },
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntriesQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

async fn head(State(hub): State<Hub>) -> Result<Json<HeadView>, Problem> {
    Ok(Json(hub.log_head().await?))
}

async fn entries(
    State(hub): State<Hub>,
    QueryOf(query): QueryOf<EntriesQuery>,
) -> Result<Json<Page<EntryView>>, Problem> {
    Ok(Json(
        hub.log_entries(query.from, page_limit(query.limit)?)
            .await?,
    ))
}

async fn events(State(door): State<Door>, headers: HeaderMap) -> Result<Response, Problem> {
    let after = last_event(&headers)?;
    let feed = door.hub.log_feed(after).await?;
    let entries = stream::unfold(feed, |mut feed| async move {
        feed.next().await.map(|entry| (entry, feed))
    });
    Ok(sse::respond(door.stop, encode(entries)))
}

/// Each entry as an event named after its kind. The log never ends, so an end is a break.
fn encode(entries: impl Stream<Item = EntryView> + Send) -> impl Stream<Item = Piece> + Send {
    let event = |entry: EntryView| {
        Ok(sse::event(
            Some(&entry.kind),
            Some(&entry.seq.to_string()),
            &frames::text(&entry),
        ))
    };
    entries.map(event).chain(stream::iter([Err(Broken)]))
}

fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let last = decode::header(headers, "last-event-id").filter(|value| !value.is_empty());
    last.map(str::parse)
        .transpose()
        .map_err(|_| Problem::invalid("Last-Event-ID is an entry's sequence number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub::view::PayloadView;
    use serde_json::json;

    #[tokio::test]
    async fn an_entry_is_an_event_with_its_sequence_as_id() {
        let entry = EntryView {
            seq: 7,
            time: "2026-01-02T03:04:05Z".into(),
            kind: "task-submitted".into(),
            version: 1,
            subject: "task/1".into(),
            author: "owner".into(),
            data: json!({}),
            payloads: vec![PayloadView {
                name: "input".into(),
                bytes: 3,
                erased: false,
            }],
        };
        let pieces: Vec<_> = encode(stream::iter([entry])).collect().await;
        let text = String::from_utf8(pieces[0].clone().unwrap().to_vec()).unwrap();
        assert!(
            text.starts_with("event: task-submitted\nid: 7\ndata: {\"seq\":7,"),
            "{text}"
        );
        assert_eq!(pieces[1], Err(Broken));
    }

    #[test]
    fn the_last_event_is_a_number_or_nothing() {
        let headers = |value| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("last-event-id"),
                http::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(last_event(&headers("12")).unwrap(), Some(12));
        assert_eq!(last_event(&HeaderMap::new()).unwrap(), None);
        assert!(last_event(&headers("12-0")).is_err());
    }
}
