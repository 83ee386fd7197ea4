//! What the demo prints.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::config::format_duration;

/// Where everything is and what to try, as text.
pub(crate) struct Guide<'a> {
    pub(crate) https: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) ca: &'a Path,
    /// Where curl keeps the cookies.
    pub(crate) jar: &'a Path,
    /// Name, process id and address of each.
    pub(crate) apps: Vec<(&'a str, u32, SocketAddr)>,
    pub(crate) session_timeout: Duration,
}

// === impl Guide ===

impl Guide<'_> {
    fn front_door(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    /// `curl` with all that every call needs.
    fn curl(&self, extra: &str) -> String {
        let ca = quoted(&self.ca.to_string_lossy()).into_owned();
        // The certificate is for localhost, so another address needs to be pointed at.
        let connect = match local(self.https.ip()) {
            true => String::new(),
            false => format!(" --connect-to ::{}:", bracketed(self.https.ip())),
        };
        let jar = self.jar();
        format!("curl {extra}--cacert {ca}{connect} -c {jar} -b {jar}")
    }

    fn jar(&self) -> String {
        quoted(&self.jar.to_string_lossy()).into_owned()
    }

    /// The branches of a shell's `case` that end the application which an answer comes from.
    fn kills(&self) -> String {
        let branch = |(name, pid, _): &(&str, u32, _)| format!(r#"*'"backend":"{name}"'*) kill {pid};;"#);
        self.apps.iter().map(branch).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Guide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.front_door();
        let (curl, silent) = (self.curl(""), self.curl("-s "));
        let count = match self.apps.len() {
            1 => "A shop that keeps".to_owned(),
            n => format!("{n} copies of a shop that keeps"),
        };
        writeln!(f, "\n{count} its sessions in memory, behind one front door:\n")?;
        writeln!(f, "  front door  {url}/  (a browser needs to trust {})", self.ca.display())?;
        if let Some(http) = self.http {
            writeln!(f, "  redirects   http://{}/", reachable(http))?;
        }
        if let Some(admin) = self.admin {
            writeln!(f, "  dashboard   http://{}/  (metrics: /metrics)", reachable(admin))?;
        }
        for (name, pid, address) in &self.apps {
            writeln!(f, "  {name:<10}  http://{address}/  (direct, past the proxy; pid {pid})")?;
        }
        let timeout = format_duration(self.session_timeout);
        writeln!(f, "  sessions    cookie `session`, ended after {timeout} without a request")?;
        writeln!(f, "\nLog in, fill a cart over new connections, and see that the same shop answers:\n")?;
        writeln!(f, "  {curl} {url}/login -d user=ada")?;
        writeln!(f, "  {curl} -X POST '{url}/cart/add?item=tea'")?;
        writeln!(f, "  {curl} --http1.1 -X POST '{url}/cart/add?item=milk'")?;
        writeln!(f, "  {curl} {url}/cart")?;
        writeln!(f, "  for i in 1 2 3 4 5 6 7 8 9 10; do {silent} {url}/whoami; done")?;
        let sessions = self
            .admin
            .map(|admin| format!("curl -s http://{}/metrics | grep '^homing_sessions'", reachable(admin)));
        if let Some(sessions) = &sessions {
            writeln!(f, "\nSessions of each shop, as the proxy counts them:\n")?;
            writeln!(f, "  {sessions}")?;
        }
        if self.apps.len() > 1 {
            writeln!(
                f,
                "\nStop the shop that has your session: another one serves you, without login and cart;"
            )?;
            writeln!(f, "whoever is at home elsewhere keeps both:\n")?;
            writeln!(f, "  case $({silent} {url}/whoami) in {} esac", self.kills())?;
            writeln!(f, "  {curl} {url}/whoami")?;
            if let Some(sessions) = &sessions {
                writeln!(f, "  {sessions}")?;
            }
        }
        if let (Some(admin), Ok(program)) = (self.admin, std::env::current_exe()) {
            let program = quoted(&program.to_string_lossy()).into_owned();
            let admin = format!("--admin http://{}", reachable(admin));
            writeln!(
                f,
                "\nSee and steer: where a session lives (the id is the cookie's value), a drain that waits:\n"
            )?;
            writeln!(f, "  {program} backends {admin}")?;
            writeln!(f, "  awk '/session/ {{print $7}}' {} | {program} explain {admin}", self.jar())?;
            writeln!(f, "  {program} drain app-1 --wait --timeout 1m {admin}")?;
            writeln!(f, "  {program} undrain app-1 {admin}")?;
        }
        writeln!(f, "\nEvents keep a session alive; end them by Ctrl-C. Logging out ends it:\n")?;
        writeln!(f, "  {} {url}/events", self.curl("-N "))?;
        writeln!(f, "  {curl} -X POST {url}/logout")?;
        writeln!(f, "\nCtrl-C here stops everything; a second one does not wait for open streams.")
    }
}

/// Addresses that `localhost` reaches.
fn local(ip: IpAddr) -> bool {
    ip.is_unspecified()
        || ip == IpAddr::from([127, 0, 0, 1])
        || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
}

/// `address` as one can connect to it.
fn reachable(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// For a POSIX shell.
pub(crate) fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', r"'\''")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guide(https: &str, ca: &str) -> String {
        Guide {
            https: https.parse().unwrap(),
            http: None,
            admin: Some("127.0.0.1:9090".parse().unwrap()),
            ca: Path::new(ca),
            jar: &Path::new(ca).with_file_name("cookies.jar"),
            apps: vec![
                ("app-1", 4001, "127.0.0.1:3001".parse().unwrap()),
                ("app-2", 4002, "127.0.0.1:3002".parse().unwrap()),
            ],
            session_timeout: Duration::from_mins(10),
        }
        .to_string()
    }

    #[test]
    fn commands_name_the_bound_addresses() {
        let text = guide("127.0.0.1:8443", "certs/ca.pem");
        let login = "curl --cacert certs/ca.pem -c certs/cookies.jar -b certs/cookies.jar https://localhost:8443/login -d user=ada";
        assert!(text.contains(login), "{text}");
        assert!(text.contains("http://127.0.0.1:9090/metrics"), "{text}");
        assert!(text.contains("10m") && text.contains("2 copies"), "{text}");
    }

    #[test]
    fn the_shop_to_stop_is_named_by_its_process_id() {
        let text = guide("127.0.0.1:8443", "certs/ca.pem");
        assert!(text.contains("pid 4002"), "{text}");
        assert!(
            text.contains(r#"/whoami) in *'"backend":"app-1"'*) kill 4001;; *'"backend":"app-2"'*)"#),
            "{text}"
        );
    }

    #[test]
    fn a_path_with_a_space_is_quoted() {
        assert!(
            guide("[::1]:1", "my certs/it's.pem")
                .contains(r"--cacert 'my certs/it'\''s.pem' -c 'my certs/cookies.jar'")
        );
    }

    #[test]
    fn an_address_that_localhost_does_not_reach_is_pointed_at() {
        assert!(guide("192.0.2.1:8443", "ca.pem").contains("--connect-to ::192.0.2.1: -c"));
        assert!(!guide("0.0.0.0:8443", "ca.pem").contains("--connect-to"));
    }
}
