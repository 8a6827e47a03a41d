//! A fleet as a systemd unit.
//!
//! Only the keeper is systemd's to end: shims outlive a keeper that dies, and the next one takes
//! them over. So the unit stops the main process alone, which ends the others in good order. What
//! the keeper needs of root is in the bounding set, and nothing else. RestrictSUIDSGID is left out,
//! since directories that keeper and hub share keep their group.

use std::path::PathBuf;

use super::compose::{HUB_SECONDS, POWERS};
use super::needs::Needs;

/// Where systemd reads credentials that the fleet takes from the environment.
const ENVIRONMENT: &str = "/etc/mainstay/environment";
const PROGRAM: &str = "/usr/local/bin/mainstay";

pub fn render(paths: &[PathBuf], needs: &Needs) -> String {
    let command: Vec<String> = paths
        .iter()
        .map(|path| quoted(&path.display().to_string()))
        .collect();
    let powers: Vec<String> = POWERS.iter().map(|power| format!("CAP_{power}")).collect();
    let seconds = needs.longest_grace_ms.div_ceil(1000) + HUB_SECONDS;
    format!(
        "# Made by `mainstay render --to systemd`. As /etc/systemd/system/mainstay.service:\n\
         #   systemctl daemon-reload && systemctl enable --now mainstay\n\
         {}\
         [Unit]\n\
         Description=Mainstay, a fleet of AI agents\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={PROGRAM} up {} --state /var/lib/mainstay\n\
         {}\
         Restart=always\n\
         RestartSec=1\n\
         KillMode=process\n\
         TimeoutStopSec={seconds}\n\
         OOMPolicy=continue\n\
         LimitNOFILE=524288\n\
         StateDirectory=mainstay\n\
         StateDirectoryMode=0755\n\
         \n\
         NoNewPrivileges=yes\n\
         CapabilityBoundingSet={}\n\
         ProtectSystem=strict\n\
         ProtectHome=read-only\n\
         PrivateTmp=yes\n\
         PrivateDevices=yes\n\
         ProtectClock=yes\n\
         ProtectControlGroups=yes\n\
         ProtectHostname=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelTunables=yes\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n\
         RestrictRealtime=yes\n\
         LockPersonality=yes\n\
         SystemCallArchitectures=native\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        notes(needs),
        command.join(" "),
        environment(needs),
        powers.join(" "),
    )
}

fn notes(needs: &Needs) -> String {
    let mut text = String::new();
    for (name, who) in &needs.environment {
        text.push_str(&format!(
            "# {who} needs {name}=… in {ENVIRONMENT} (mode 0600).\n"
        ));
    }
    for (name, who) in &needs.secrets {
        text.push_str(&format!(
            "# {who} needs a secret: {PROGRAM} secret set {name} < FILE\n"
        ));
    }
    for (path, who) in &needs.files {
        text.push_str(&format!("# {who} reads {}.\n", path.escape_debug()));
    }
    text
}

/// Without the file the hub would run and find no key: better that the unit says so.
fn environment(needs: &Needs) -> String {
    if needs.environment.is_empty() {
        return String::new();
    }
    format!("EnvironmentFile={ENVIRONMENT}\n")
}

/// An argument as systemd reads one: no variable, no specifier, no word too many.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%$".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", word.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(paths: &[&str], needs: &Needs) -> String {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        render(&paths, needs)
    }

    #[test]
    fn a_path_is_one_argument_whatever_is_in_it() {
        let unit = unit(&["/srv/a b", "/srv/50%$x", "/srv/a\nb"], &Needs::default());
        assert!(
            unit.contains(" up \"/srv/a b\" /srv/50%%$$x \"/srv/a\\nb\" --state"),
            "{unit}"
        );
    }

    #[test]
    fn a_variable_is_asked_for_only_where_a_credential_names_one() {
        assert!(!unit(&["/srv"], &Needs::default()).contains("EnvironmentFile"));
        let needs = Needs {
            environment: [("KEY".into(), "Provider p".into())].into(),
            files: [("/k\nUser=root".into(), "Provider q".into())].into(),
            longest_grace_ms: 1,
            ..Needs::default()
        };
        let unit = unit(&["/srv"], &needs);
        assert!(
            unit.contains("\nEnvironmentFile=/etc/mainstay/environment\n"),
            "{unit}"
        );
        assert!(unit.contains("# Provider p needs KEY=… in"), "{unit}");
        assert!(unit.contains("\nTimeoutStopSec=31\n"), "{unit}");
        assert!(
            !unit.contains("\nUser=root"),
            "a path is in one line: {unit}"
        );
    }
}
