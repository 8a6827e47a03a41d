//! The demo's tools: a small MCP server on standard input and output that reads this machine.
//!
//! Real on purpose: what it says comes from /proc and statvfs, and `save_report` changes a file, so
//! that doing it twice would show. One line of JSON-RPC in, one line out.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
const PROTOCOLS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

#[derive(Debug, clap::Args)]
pub struct DemoToolsArgs {}

pub fn serve(_args: &DemoToolsArgs) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, "failed to speak with the client").because(error)
    };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(failed)?;
        if let Some(reply) = answer(&line) {
            writeln!(output, "{reply}")
                .and_then(|()| output.flush())
                .map_err(failed)?;
        }
    }
    Ok(Exit::Done)
}

/// The reply to one message; `None` for a notification.
fn answer(line: &str) -> Option<Value> {
    let Ok(message) = serde_json::from_str::<Value>(line) else {
        return Some(
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "not JSON"}}),
        );
    };
    let id = message.get("id")?;
    let params = message.get("params").unwrap_or(&Value::Null);
    let result = match message.get("method").and_then(Value::as_str) {
        Some("initialize") => Ok(initialized(params)),
        Some("ping") => Ok(json!({})),
        Some("tools/list") => Ok(json!({"tools": tools()})),
        Some("tools/call") => call(params),
        _ => Err((-32601, "no such method".to_owned())),
    };
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    })
}

fn initialized(params: &Value) -> Value {
    let asked = params.get("protocolVersion").and_then(Value::as_str);
    let version = asked
        .filter(|asked| PROTOCOLS.contains(asked))
        .unwrap_or(PROTOCOLS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "mainstay-demo-tools", "version": env!("CARGO_PKG_VERSION")},
    })
}

fn tools() -> Value {
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": false});
    json!([
        {"name": "disks", "description": "How full this machine's disks are.", "inputSchema": nothing},
        {"name": "memory", "description": "How much memory this machine has left.", "inputSchema": nothing},
        {"name": "processes", "description": "How many processes run, and the largest.", "inputSchema": nothing},
        {"name": "save_report", "description": "Append a report to the file of reports.", "inputSchema": text},
    ])
}

fn call(params: &Value) -> Result<Value, (i64, String)> {
    let result = match params.get("name").and_then(Value::as_str) {
        Some("disks") => disks(),
        Some("memory") => memory(),
        Some("processes") => processes(),
        Some("save_report") => {
            let text = params.pointer("/arguments/text").and_then(Value::as_str);
            save_report(text.ok_or((-32602, "text is missing".to_owned()))?)
        }
        _ => return Err((-32602, "no such tool".to_owned())),
    };
    let (text, is_error) = match result {
        Ok(value) => (value.to_string(), false),
        Err(error) => (error.to_string(), true),
    };
    Ok(json!({"content": [{"type": "text", "text": text}], "isError": is_error}))
}

fn tenths(value: f64) -> Value {
    json!((value * 10.0).round() / 10.0)
}

/// Block devices' file systems, each once.
fn disks() -> std::io::Result<Value> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut disks: Vec<Value> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(mount)) = (words.next(), words.next()) else {
            continue;
        };
        // The root counts whatever it lies on: in a container it is no device.
        if !(device.starts_with("/dev/") || mount == "/") || !seen.insert(device.to_owned()) {
            continue;
        }
        let Ok(stat) = rustix::fs::statvfs(mount) else {
            continue;
        };
        #[allow(clippy::cast_precision_loss, reason = "shown to a tenth")]
        let (total, free) = (
            (stat.f_blocks * stat.f_frsize) as f64,
            (stat.f_bavail * stat.f_frsize) as f64,
        );
        if total > 0.0 {
            let used = tenths(used_percent(stat.f_blocks, stat.f_bfree, stat.f_bavail));
            disks.push(json!({"mount": mount, "totalGiB": tenths(total / GIB), "freeGiB": tenths(free / GIB), "usedPercent": used}));
        }
    }
    let used = |disk: &Value| {
        disk.get("usedPercent")
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    };
    let fullest = disks
        .iter()
        .max_by(|one, other| used(one).total_cmp(&used(other)))
        .cloned();
    let fullest = fullest.ok_or_else(|| std::io::Error::other("this machine shows no disk"))?;
    Ok(json!({"fullest": fullest, "disks": disks}))
}

/// As df says it: what is reserved for root counts neither as used nor as there to be used.
#[allow(clippy::cast_precision_loss, reason = "shown to a tenth")]
fn used_percent(blocks: u64, free: u64, available: u64) -> f64 {
    let used = blocks.saturating_sub(free);
    100.0 * used as f64 / (used.saturating_add(available).max(1)) as f64
}

fn memory() -> std::io::Result<Value> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        line.trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap_or(0.0)
    };
    Ok(json!({
        "totalGiB": tenths(kib("MemTotal:") * 1024.0 / GIB),
        "availableGiB": tenths(kib("MemAvailable:") * 1024.0 / GIB),
    }))
}

fn processes() -> std::io::Result<Value> {
    let mut found: Vec<(f64, String)> = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let is_process = name
            .to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        // One that ends while we look is not counted.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        if is_process {
            let field = |name: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap_or_default()
                    .trim()
            };
            let kib: f64 = field("VmRSS:")
                .trim_end_matches(" kB")
                .parse()
                .unwrap_or(0.0);
            found.push((kib * 1024.0 / MIB, field("Name:").to_owned()));
        }
    }
    let largest = found.iter().max_by(|one, other| one.0.total_cmp(&other.0));
    let (resident, name) = largest
        .cloned()
        .ok_or_else(|| std::io::Error::other("this machine shows no process"))?;
    Ok(json!({"count": found.len(), "largest": {"name": name, "residentMiB": tenths(resident)}}))
}

/// One line a report. The caller's text can't make two of it.
fn save_report(text: &str) -> std::io::Result<Value> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .ok_or_else(|| std::io::Error::other("HOME is not set"))?;
    let path = home.join("reports.txt");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)?;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    file.write_all(format!("{line}\n").as_bytes())?;
    let lines = std::fs::read_to_string(&path)?.lines().count();
    Ok(json!({"path": path, "lines": lines}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &str) -> Value {
        let line =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}})
                .to_string();
        let reply = answer(&line).unwrap();
        serde_json::from_str(
            reply
                .pointer("/result/content/0/text")
                .unwrap()
                .as_str()
                .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn numbers_are_this_machines() {
        assert!(
            called("disks")
                .pointer("/fullest/totalGiB")
                .unwrap()
                .as_f64()
                .unwrap()
                > 0.0
        );
        assert!(called("memory")["totalGiB"].as_f64().unwrap() > 0.0);
        assert!(called("processes")["count"].as_u64().unwrap() > 0);
    }

    #[test]
    fn blocks_reserved_for_root_are_neither_used_nor_available() {
        let check = |blocks, free, available, expect: f64| {
            assert!((used_percent(blocks, free, available) - expect).abs() < 1e-9);
        };
        check(100, 40, 40, 60.0);
        check(100, 40, 20, 75.0);
        check(100, 100, 0, 0.0);
    }

    #[test]
    fn a_notification_gets_no_reply_and_garbage_an_error() {
        assert_eq!(
            answer(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
            None
        );
        assert_eq!(answer("{").unwrap()["error"]["code"], -32700);
        assert_eq!(
            answer(r#"{"id":1,"method":"x"}"#).unwrap()["error"]["code"],
            -32601
        );
    }
}
