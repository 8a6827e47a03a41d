//! A pod's one spec: what the operator wrote, and over it what this container is.
//!
//! On a server an agent's directory is its source, and its variables are the manifest's alone. Here
//! the image's variables count too, under ours, and its working directory where there is no source.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use contract::keeper::InstanceKind;
use contract::pod::Pod;
use contract::shim::Spec;

use super::Options;
use super::layout::Layout;
use crate::plan::{Around, answer_max_bytes, environment};

/// Variables of the container that tell of Kubernetes or of us, and are nobody else's business.
const OURS: [&str; 2] = ["MAINSTAY_", "KUBERNETES_"];

/// Where gateway and service listen.
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) service: Option<u16>,
}

pub(super) fn spec(
    options: &Options,
    layout: &Layout,
    ports: &Ports,
    landlock: bool,
) -> io::Result<Spec> {
    let pod = &options.pod;
    let (home, tmp) = (layout.scratch.join("home"), layout.scratch.join("tmp"));
    let built_in = pod.command.is_empty();
    let around = Around {
        kind: pod.kind,
        owner: &pod.owner,
        instance: &options.instance,
        gateway_port: ports.gateway,
        service_port: ports.service,
        volume: pod.volume.as_deref(),
    };
    let mut env = images_own(options);
    env.extend(pod.env.clone());
    let (read, write) = match landlock {
        true => allowed(layout, pod),
        false => (Vec::new(), Vec::new()),
    };
    Ok(Spec {
        command: match built_in {
            true => vec![text(&options.program), "runtime".to_owned()],
            false => pod.command.clone(),
        },
        env: environment(env, &around),
        hub_env: pod.secrets.keys().cloned().collect(),
        secrets: pod.secrets.clone(),
        current_dir: match (&pod.source, built_in) {
            (Some(_), _) => text(&layout.source),
            (None, true) => text(&home),
            (None, false) => text(&std::env::current_dir()?),
        },
        uid: None,
        gid: None,
        read,
        write,
        home: text(&home),
        tmp: text(&tmp),
        log_dir: text(&layout.logs),
        answer_max_bytes: answer_max_bytes(pod.kind),
        grace_ms: pod.grace_ms,
        gateway_port: ports.gateway,
        service_port: ports.service,
        reach: Vec::new(),
        fresh_scratch: pod.kind == InstanceKind::Exec && pod.volume.is_none(),
    })
}

/// The container's variables, but for ours and those that the hub may set: it has the last word.
fn images_own(options: &Options) -> BTreeMap<String, String> {
    let all = options.environment.iter();
    all.filter(|(name, _)| {
        !OURS.iter().any(|prefix| name.starts_with(prefix))
            && !options.pod.secrets.contains_key(*name)
    })
    .map(|(name, value)| (name.clone(), value.clone()))
    .collect()
}

/// Landlock's two lists: everything but what is ours, and of that this program, the code and the
/// scratch.
fn allowed(layout: &Layout, pod: &Pod) -> (Vec<String>, Vec<String>) {
    let volume = pod.volume.as_ref().map(PathBuf::from);
    let own = [Some(layout.scratch.clone()), volume];
    let write = sandbox::confine::all_but(&layout.root)
        .into_iter()
        .chain(own.into_iter().flatten())
        .map(|path| text(&path))
        .collect();
    let source = pod.source.as_ref().map(|_| text(&layout.source));
    let read = [text(&layout.bin)].into_iter().chain(source);
    (read.collect(), write)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn options(root: &Path) -> Options {
        let text = r#"{"workspace": "w", "owner": "echo", "kind": "exec", "command": ["agent"],
            "env": {"MODE": "manifest"}, "secrets": {"KEY": "s/key"}, "graceMs": 1000,
            "hub": "127.0.0.1:1", "template": "t"}"#;
        let environment = [
            ("MODE", "image"),
            ("KEY", "image"),
            ("LD_LIBRARY_PATH", "/opt/lib"),
            ("MAINSTAY_POD", "{}"),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Options {
            pod: serde_json::from_str::<Pod>(text).unwrap(),
            instance: "echo-x".to_owned(),
            root: root.to_owned(),
            program: PathBuf::from("/mainstay/bin/mainstay"),
            environment: environment.into_iter().map(owned).collect(),
            probes: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            relay: |_, _, _| 0,
            termination_log: PathBuf::from("/nowhere"),
        }
    }

    fn spec_of(options: &Options, landlock: bool) -> Spec {
        let layout = Layout::prepare(&options.root).unwrap();
        let ports = Ports {
            gateway: 4000,
            service: None,
        };
        spec(options, &layout, &ports, landlock).unwrap()
    }

    #[test]
    fn the_images_variables_count_under_the_manifests_and_never_over_the_hubs() {
        let root = tempfile::tempdir().unwrap();
        let spec = spec_of(&options(root.path()), false);
        assert_eq!(spec.env["MODE"], "manifest");
        assert_eq!(spec.env["LD_LIBRARY_PATH"], "/opt/lib");
        assert_eq!(spec.env["MAINSTAY_INSTANCE"], "echo-x");
        assert_eq!(spec.env["ANTHROPIC_BASE_URL"], "http://127.0.0.1:4000");
        for absent in ["KEY", "MAINSTAY_POD", "KUBERNETES_SERVICE_HOST"] {
            assert!(!spec.env.contains_key(absent), "{absent}");
        }
        assert_eq!(spec.hub_env, ["KEY"]);
        assert_eq!(spec.current_dir, text(&std::env::current_dir().unwrap()));
    }

    #[test]
    fn without_a_command_the_built_in_loop_runs_at_home() {
        let root = tempfile::tempdir().unwrap();
        let mut options = options(root.path());
        options.pod.command.clear();
        let spec = spec_of(&options, false);
        assert_eq!(spec.command, ["/mainstay/bin/mainstay", "runtime"]);
        assert_eq!(spec.current_dir, spec.home);
    }

    #[test]
    fn an_agent_with_a_source_starts_in_it_and_may_read_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let mut options = options(&root);
        options.pod.source = Some("0".repeat(64));
        let source = text(&root.join("source"));
        let spec = spec_of(&options, true);
        assert_eq!(spec.current_dir, source);
        assert!(spec.read.contains(&source), "{:?}", spec.read);
        let mut writable = spec.write.iter();
        assert!(!writable.any(|path| Path::new(&source).starts_with(path)));
        options.pod.command.clear();
        assert_eq!(spec_of(&options, true).current_dir, source);
    }

    #[test]
    fn token_and_spool_are_outside_of_what_an_agent_may_touch() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let spec = spec_of(&options(&root), true);
        let below = |list: &[String], path: &Path| {
            let mut list = list.iter();
            list.any(|allowed| path.starts_with(allowed))
        };
        for hidden in ["token/token", "state/run/agent.spool", "state/logs"] {
            let path = root.join(hidden);
            assert!(
                !below(&spec.write, &path) && !below(&spec.read, &path),
                "{hidden}"
            );
        }
        assert!(below(&spec.write, Path::new(&spec.home)));
        assert!(below(&spec.read, &root.join("bin/mainstay")));
    }
}
