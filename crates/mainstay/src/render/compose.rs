//! A fleet as a Compose file: keeper and hub as one service, beside whatever its tools name.
//!
//! Manifests and code are mounted where they lie, so that paths in them mean the same. The service
//! starts as root without most of root's powers: the keeper gives each agent a user of its own.

use std::path::{Path, PathBuf};

use contract::pod::{FACADE_PORT, IMAGE_PROGRAM};
use serde_json::{Value, json};

use super::needs::Needs;
use super::{map, yaml};

/// Where the volume with the state is.
const STATE: &str = "/var/lib/mainstay";
/// The keeper makes users, gives them directories whose files stay its own group's, and ends their
/// processes.
pub const POWERS: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
];
/// How long `up` may take to end beside what its agents are given.
pub const HUB_SECONDS: u64 = 30;

/// What can't be written into the file.
pub fn trouble(needs: &Needs) -> Vec<String> {
    let mut trouble = Vec::new();
    for (host, who) in &needs.loopback {
        trouble.push(format!(
            "{who} is at {host}, which inside the service is the service itself: name a service of this file instead"
        ));
    }
    if needs.images.len() > 1 {
        let images: Vec<&str> = needs.images.iter().map(String::as_str).collect();
        trouble.push(format!(
            "the agents name several images ({}), and the service has one: the first was taken",
            images.join(", ")
        ));
    }
    if needs.images.is_empty() {
        for (program, who) in &needs.programs {
            trouble.push(format!(
                "{who} runs {program}, which Mainstay's image doesn't have: give one agent `image`, or say --image with an image that has both"
            ));
        }
    }
    trouble
}

pub fn render(paths: &[PathBuf], needs: &Needs, image: &str) -> String {
    let mut text = header(needs);
    let mut document = json!({
        "name": "mainstay",
        "services": {"mainstay": service(paths, needs, image)},
        "volumes": {"state": {}},
    });
    if !needs.files.is_empty() {
        let secrets = needs.files.keys().enumerate();
        document["secrets"] =
            map(secrets
                .map(|(n, path)| (format!("credential-{n}"), json!({"file": escaped(path)}))));
    }
    text.push_str(&yaml::write(&document));
    text
}

fn header(needs: &Needs) -> String {
    let mut text = "# Made by `mainstay render --to compose`.\n\
        # Start: docker compose up -d      Use: docker compose exec mainstay /bin/mainstay run AGENT 'a question'\n\
        # From outside: https://localhost:7080 with `docker compose exec mainstay /bin/mainstay token`;\n\
        # its certificate: docker compose cp mainstay:/var/lib/mainstay/system/tls/certificate.pem .\n"
        .to_owned();
    for (name, who) in &needs.secrets {
        text.push_str(&format!(
            "# {who} needs a secret: docker compose exec -T mainstay /bin/mainstay secret set {name} < FILE\n"
        ));
    }
    for (host, who) in &needs.neighbours {
        text.push_str(&format!(
            "# {who} is at `{host}`: give a service of this file that name.\n"
        ));
    }
    text
}

fn service(paths: &[PathBuf], needs: &Needs, image: &str) -> Value {
    let shown = |path: &PathBuf| path.display().to_string();
    let command: Vec<String> = ["up".to_owned()]
        .into_iter()
        .chain(paths.iter().map(shown))
        .chain(["--state", STATE, "--listen"].map(str::to_owned))
        .chain([format!("0.0.0.0:{FACADE_PORT}")])
        .collect();
    let mut service = json!({});
    match needs.images.first().filter(|_| !needs.programs.is_empty()) {
        Some(base) => service["build"] = json!({"dockerfile_inline": dockerfile(base, image)}),
        None => service["image"] = image.into(),
    }
    service["command"] = json!(command.iter().map(|word| escaped(word)).collect::<Vec<_>>());
    service["user"] = "0:0".into();
    service["restart"] = "unless-stopped".into();
    let seconds = needs.longest_grace_ms.div_ceil(1000) + HUB_SECONDS;
    service["stop_grace_period"] = format!("{seconds}s").into();
    service["ports"] = json!([format!("127.0.0.1:{FACADE_PORT}:{FACADE_PORT}")]);
    if !needs.environment.is_empty() {
        let variables = needs.environment.iter();
        service["environment"] = map(variables.map(|(name, who)| {
            (
                name.clone(),
                format!("${{{name}:?the credential of {who}}}").into(),
            )
        }));
    }
    if !needs.files.is_empty() {
        let secrets = needs.files.keys().enumerate();
        let secrets: Vec<Value> = secrets
            .map(|(n, path)| json!({"source": format!("credential-{n}"), "target": escaped(path)}))
            .collect();
        service["secrets"] = secrets.into();
    }
    service["volumes"] = volumes(paths, needs);
    service["tmpfs"] = json!(["/tmp"]);
    service["healthcheck"] = json!({
        "test": ["CMD", IMAGE_PROGRAM, "get", "agents", "--state", STATE],
        "interval": "10s", "timeout": "5s", "start_period": "10s",
    });
    service["cap_drop"] = json!(["ALL"]);
    service["cap_add"] = json!(POWERS);
    service["security_opt"] = json!(["no-new-privileges:true"]);
    service
}

/// The agents' image with the program in it.
fn dockerfile(base: &str, image: &str) -> String {
    format!(
        "FROM {base}\nCOPY --from={image} {IMAGE_PROGRAM} {IMAGE_PROGRAM}\nENTRYPOINT [\"{IMAGE_PROGRAM}\"]\n"
    )
}

fn volumes(paths: &[PathBuf], needs: &Needs) -> Value {
    let mut mounts = vec![json!({"type": "volume", "source": "state", "target": STATE})];
    let sources = needs.sources.keys().map(PathBuf::from);
    let mut mounted: Vec<PathBuf> = Vec::new();
    for path in paths.iter().cloned().chain(sources) {
        // The folder of a file: a transcript or code that it names lies there.
        let folder = if path.is_dir() { path } else { parent(&path) };
        if mounted.iter().any(|above| folder.starts_with(above)) {
            continue;
        }
        let shown = escaped(&folder.display().to_string());
        mounts.push(json!({"type": "bind", "source": shown, "target": shown, "read_only": true}));
        mounted.push(folder);
    }
    mounts.into()
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

/// Compose takes `$` for a variable.
fn escaped(word: &str) -> String {
    word.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            environment: [("OPENAI_API_KEY".into(), "Provider openai".into())].into(),
            files: [("/keys/$a".into(), "Provider a".into())].into(),
            secrets: [("desk/token".into(), "tool desk/tickets".into())].into(),
            neighbours: [("tickets".into(), "tool desk/tickets".into())].into(),
            longest_grace_ms: 30_500,
            ..Needs::default()
        }
    }

    fn read(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn credentials_come_from_where_the_fleet_says() {
        let text = render(&["/srv/fleet".into()], &needs(), "mainstay:1");
        let service = read(&text)["services"]["mainstay"].clone();
        assert_eq!(
            service["environment"]["OPENAI_API_KEY"],
            "${OPENAI_API_KEY:?the credential of Provider openai}"
        );
        assert_eq!(service["secrets"][0]["target"], "/keys/$$a");
        assert_eq!(read(&text)["secrets"]["credential-0"]["file"], "/keys/$$a");
        assert!(text.contains("secret set desk/token"), "{text}");
        assert!(text.contains("`tickets`"), "{text}");
        assert_eq!(service["stop_grace_period"], "61s");
        assert_eq!(service["ports"][0], "127.0.0.1:7080:7080");
    }

    #[test]
    fn programs_come_from_the_image_that_an_agent_names() {
        let needs = Needs {
            images: ["python:3.12-slim".to_owned()].into(),
            programs: [("python3".into(), "Agent a".into())].into(),
            ..Needs::default()
        };
        assert_eq!(trouble(&needs), Vec::<String>::new());
        let service = read(&render(&[], &needs, "mainstay:1"))["services"]["mainstay"].clone();
        assert_eq!(service["image"], Value::Null);
        let dockerfile = service["build"]["dockerfile_inline"].as_str().unwrap();
        assert!(dockerfile.starts_with("FROM python:3.12-slim\nCOPY --from=mainstay:1 "));
        let needs = Needs {
            images: Default::default(),
            ..needs
        };
        assert!(trouble(&needs)[0].contains("Agent a runs python3"));
    }

    #[test]
    fn a_folder_is_mounted_once_and_where_it_lies() {
        let directory = tempfile::tempdir().unwrap();
        let (fleet, code) = (
            directory.path().join("fleet"),
            directory.path().join("code"),
        );
        std::fs::create_dir_all(fleet.join("agent")).unwrap();
        std::fs::create_dir_all(&code).unwrap();
        let needs = Needs {
            sources: [fleet.join("agent"), code.clone()]
                .map(|path| (path.display().to_string(), "Agent a".to_owned()))
                .into(),
            ..Needs::default()
        };
        let mounts = volumes(&[fleet.join("fleet.yaml")], &needs);
        let targets: Vec<&str> = mounts.as_array().unwrap()[1..]
            .iter()
            .map(|mount| mount["target"].as_str().unwrap())
            .collect();
        assert_eq!(targets, [fleet.to_str().unwrap(), code.to_str().unwrap()]);
    }

    #[test]
    fn the_file_has_only_what_the_specification_knows() {
        const SERVICE: [&str; 16] = [
            "build",
            "cap_add",
            "cap_drop",
            "command",
            "environment",
            "healthcheck",
            "image",
            "ports",
            "restart",
            "secrets",
            "security_opt",
            "stop_grace_period",
            "tmpfs",
            "user",
            "volumes",
            "init",
        ];
        let document = read(&render(&["/srv/a$b".into()], &needs(), "mainstay:1"));
        for key in document.as_object().unwrap().keys() {
            assert!(
                ["name", "services", "volumes", "secrets"].contains(&key.as_str()),
                "{key}"
            );
        }
        let service = document["services"]["mainstay"].as_object().unwrap();
        for key in service.keys() {
            assert!(SERVICE.contains(&key.as_str()), "{key}");
        }
        assert_eq!(service["command"][1], "/srv/a$$b");
    }
}
