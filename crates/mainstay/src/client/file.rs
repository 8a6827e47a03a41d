//! Files that go to the hub and come from it as they are.

use reqwest::Method;
use serde_json::Value;

use super::{CallError, Client};
use crate::exit::{Exit, Failure};

impl Client {
    /// A file that the hub makes, of at most so many bytes.
    pub async fn download(&self, path: &str, limit_bytes: usize) -> Result<Vec<u8>, CallError> {
        let mut response = self.send(Method::POST, path, None, &[]).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit_bytes {
                return Err(CallError::Refused(Failure::new(
                    Exit::Failed,
                    "the hub's answer has no end",
                )));
            }
        }
        Ok(bytes)
    }

    /// Whether there is something of that name.
    pub async fn has(&self, path: &str) -> Result<bool, CallError> {
        match self.send(Method::GET, path, None, &[]).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused(failure)) if failure.exit == Exit::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a file there, of that many bytes.
    pub async fn put(
        &self,
        path: &str,
        file: std::io::Result<std::fs::File>,
        length: u64,
    ) -> Result<(), CallError> {
        let file = file.map_err(|error| {
            CallError::Refused(Failure::new(Exit::Failed, "failed to read a file").because(error))
        })?;
        let request = self
            .http
            .request(Method::PUT, format!("{}{path}", self.base));
        let request = request.header("content-length", length.to_string());
        let body = reqwest::Body::from(tokio::fs::File::from_std(file));
        self.sent(request.body(body), &[]).await.map(drop)
    }

    /// Sends a file, and gives the answer as JSON.
    pub async fn upload(&self, path: &str, file: Vec<u8>) -> Result<Value, CallError> {
        let request = self
            .http
            .request(Method::POST, format!("{}{path}", self.base));
        let request = request.header("content-type", "application/x-ndjson");
        let response = self.sent(request.body(file), &[]).await?;
        let text = response.bytes().await.map_err(|error| self.lost(error))?;
        serde_json::from_slice(&text).map_err(|error| {
            let failure = Failure::new(Exit::Failed, format!("the answer to {path} is not JSON"));
            CallError::Refused(failure.because(error))
        })
    }
}
