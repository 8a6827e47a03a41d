//! Rows as Postgres gives them, and cursors that walk a table.

use std::collections::VecDeque;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::Link;
use crate::database::{Columns, DatabaseError, Rows, Value};

impl Columns for Row {
    fn integer(&self, at: usize) -> Result<i64, DatabaseError> {
        // Lengths are shorter numbers than sequences.
        let is_short = self.columns().get(at).map(|column| column.type_()) == Some(&Type::INT4);
        if is_short {
            return Ok(self.try_get::<_, i32>(at)?.into());
        }
        Ok(self.try_get(at)?)
    }

    fn text(&self, at: usize) -> Result<&str, DatabaseError> {
        Ok(self.try_get(at)?)
    }

    fn optional_text(&self, at: usize) -> Result<Option<&str>, DatabaseError> {
        Ok(self.try_get(at)?)
    }

    fn blob(&self, at: usize) -> Result<&[u8], DatabaseError> {
        Ok(self.try_get(at)?)
    }

    fn value(&self, at: usize) -> Result<Value, DatabaseError> {
        let column = self.columns().get(at).map(|column| column.type_().clone());
        Ok(match column {
            Some(Type::TEXT) => {
                let text = self.optional_text(at)?;
                text.map_or(Value::Null, |text| Value::Text(text.to_owned()))
            }
            Some(Type::BYTEA) => Value::Blob(self.blob(at)?.to_owned()),
            _ => Value::Integer(self.integer(at)?),
        })
    }
}

/// A cursor declared in the connection's transaction.
pub(super) struct Cursor<'a> {
    link: &'a Link,
    fetch: String,
    ahead: VecDeque<Row>,
    current: Option<Row>,
}

impl Cursor<'_> {
    pub(super) fn new<'a>(link: &'a Link, name: &str, fetched: usize) -> Cursor<'a> {
        Cursor {
            link,
            fetch: format!("FETCH FORWARD {fetched} FROM {name}"),
            ahead: VecDeque::new(),
            current: None,
        }
    }
}

impl Rows for Cursor<'_> {
    fn next(&mut self) -> Result<Option<&dyn Columns>, DatabaseError> {
        if self.ahead.is_empty() {
            self.ahead = self.link.fetch(&self.fetch)?.into();
        }
        self.current = self.ahead.pop_front();
        Ok(self.current.as_ref().map(|row| row as &dyn Columns))
    }
}
