//! `spirula ceph`: commands to the cluster, as Ceph's `ceph` takes them.
//!
//! Which commands there are, what arguments they take and who answers them is what the daemons say
//! (`get_command_descriptions`); this file knows none of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use serde_json::{Map, Value};
use spirula_client::argparse::Descriptions;
use spirula_client::{
    Cluster, CommandOutput, ConnectConfig, Daemon, Errno, Error, LogEntry, Overrides, PgId,
    SetupError,
};

use super::connect::block_on;
use super::general::{config_option, is_no_mon_config};
use super::{daemon, report};
use crate::print::{self, complain, output};

/// Everything after `ceph` is taken apart here, since options may stand among a command's words.
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// A command and its arguments; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    words: Vec<String>,
}

const USAGE: &str = "\
Usage: spirula ceph [OPTIONS] COMMAND [ARGUMENTS]...

  -c, --conf FILE         configuration file
      --cluster NAME      name of the cluster
  -n, --name ENTITY       who to be [default: client.admin]
      --id, --user ID     the same, without `client.`
  -k, --keyring FILE      keyring file
  -m ADDRS                monitors to connect to
      --connect-timeout SECONDS
  -i, --in-file FILE      input of the command (`-`: standard input)
  -o, --out-file FILE     write the output here
  -f, --format FORMAT     plain, json, json-pretty, xml, ...
  -s, --status            status of the cluster
  -w, --watch             follow the cluster log (--watch-debug, -info, -sec, -warn, -error)
  -W, --watch-channel C   follow one channel of it, or `*`
      --OPTION VALUE          any option of the configuration
      --admin-daemon PATH COMMAND
  daemon NAME COMMAND     ask a daemon of this host through its admin socket
  tell DAEMON COMMAND     ask one daemon: osd.N, mon.N, mgr, a PG, or osd.* and mon.*
";

#[derive(Debug, Default, PartialEq)]
struct Line {
    overrides: Whereabouts,
    input: Option<PathBuf>,
    output: Option<PathBuf>,
    format: Option<String>,
    status: bool,
    watch_level: Option<String>,
    watch_channel: Option<String>,
    admin_socket: Option<PathBuf>,
    connect_timeout: Option<f64>,
    /// Of the configuration.
    options: Vec<(String, String)>,
    help: bool,
    version: bool,
    words: Vec<String>,
}

/// What finds the cluster.
#[derive(Debug, Default, PartialEq)]
struct Whereabouts {
    conf: Option<PathBuf>,
    cluster: Option<String>,
    name: Option<String>,
    mon_host: Option<String>,
    keyring: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let line = Line::parse(args.words)?;
    if line.version {
        output!("spirula version {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let overrides = line.overrides()?;
    if let Some((socket, words)) = line.admin_command(&overrides)? {
        return daemon::run(&socket, &words, line.format.as_deref());
    }
    let asks = line.status || line.watch_level.is_some() || !line.words.is_empty();
    if line.help && line.words.is_empty() || !asks {
        print::text(format_args!("{USAGE}"))?;
        return Ok(match line.help {
            true => ExitCode::SUCCESS,
            false => exit_code(Errno::EINVAL),
        });
    }
    block_on(async {
        let cluster = match connect(&line, &overrides).await {
            Ok(cluster) => cluster,
            Err(error) => return Ok(report_unconnected(&error)),
        };
        execute(&line, &cluster).await
    })
}

async fn connect(line: &Line, overrides: &Overrides) -> Result<Cluster, Error> {
    let mut config = ConnectConfig::from_conf(overrides)?;
    let seconds = line.connect_timeout.filter(|s| *s > 0.0);
    if let Some(timeout) = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        config.connect_timeout = timeout;
    }
    Cluster::connect(config).await
}

/// As Ceph's tool ends in such cases.
fn report_unconnected(error: &Error) -> ExitCode {
    match error {
        Error::Auth { .. } => {
            complain!("{error}");
            complain!("[errno 13] RADOS permission denied (error connecting to the cluster)");
            exit_code(Errno::EACCES)
        }
        Error::Setup(SetupError::NoKeyring { .. } | SetupError::NoKey { .. }) => {
            complain!("unable to find a keyring: {error}");
            complain!("[errno 2] RADOS object not found (error connecting to the cluster)");
            ExitCode::FAILURE
        }
        Error::TimedOut(_) => {
            complain!("timed out");
            ExitCode::FAILURE
        }
        other => {
            complain!("Error initializing cluster client: {other}");
            ExitCode::FAILURE
        }
    }
}

fn exit_code(errno: Errno) -> ExitCode {
    ExitCode::from(u8::try_from(errno.0).unwrap_or(1))
}

/// Whom a command line is for.
#[derive(Clone, Debug, PartialEq)]
enum Target {
    /// Any monitor, or the manager where the description says so.
    Cluster,
    One(Daemon),
}

async fn execute(line: &Line, cluster: &Cluster) -> Result<ExitCode> {
    if let Some(level) = &line.watch_level {
        return watch(cluster, level, line.watch_channel.as_deref().unwrap_or("cluster")).await;
    }
    let input = read_input(line.input.as_deref())?;
    let mut words = line.words.clone();
    if line.status {
        words.insert(0, "status".to_owned());
    }
    let targets = match find_targets(cluster, &words) {
        Ok(targets) => targets,
        Err(error) => {
            complain!("error handling command target: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    if words.first().is_some_and(|w| w == "tell") {
        words.drain(..2);
        if words.is_empty() {
            complain!("\"tell\" requires additional arguments: tell <name> <command> [options...]");
            return Ok(exit_code(Errno::EINVAL));
        }
    }
    let mut code = ExitCode::SUCCESS;
    let several = targets.len() > 1;
    for (label, target) in targets {
        let prefix = if several { format!("{label}: ") } else { String::new() };
        let output = one_command(line, cluster, &target, &label, &words, &input).await?;
        match output {
            Some(output) => {
                if let Some(errno) = show(line, &prefix, &output)? {
                    code = exit_code(errno);
                }
            }
            None => return Ok(ExitCode::SUCCESS),
        }
    }
    Ok(code)
}

/// Asks the daemon what it understands, finds the command, and sends it. `None`: only help was
/// wanted.
async fn one_command(
    line: &Line,
    cluster: &Cluster,
    target: &Target,
    label: &str,
    words: &[String],
    input: &Bytes,
) -> Result<Option<CommandOutput>> {
    let mut ask = Map::new();
    ask.insert("prefix".to_owned(), "get_command_descriptions".into());
    let answer = send(cluster, target, false, ask, Bytes::new()).await;
    let answer = answer.map_err(|e| anyhow!("{label}: {e}"))?;
    if answer.error().is_some() {
        let rs = format!("problem getting command descriptions from {label}");
        return Ok(Some(CommandOutput { rs, ..answer }));
    }
    let descriptions = Descriptions::parse(&answer.outbl)?;
    if line.help || words.first().is_some_and(|w| w == "help") {
        let beginning = if line.help { words.join(" ") } else { words[1..].join(" ") };
        print::text(format_args!("{}", descriptions.help(&beginning)))?;
        return Ok(None);
    }
    let matched = match descriptions.resolve(words) {
        Ok(matched) => matched,
        Err(error) => {
            complain!("{error}");
            return Ok(Some(CommandOutput {
                r: -Errno::EINVAL.0,
                rs: "invalid command".to_owned(),
                outbl: Bytes::new(),
            }));
        }
    };
    let for_mgr = *target == Target::Cluster && matched.is_for_mgr();
    let mut args = matched.args;
    if for_mgr {
        args.insert("target".to_owned(), serde_json::json!(["mon-mgr", ""]));
    }
    if let Some(format) = &line.format {
        args.insert("format".to_owned(), format.as_str().into());
    }
    let output = send(cluster, target, for_mgr, args, input.clone()).await;
    Ok(Some(output.map_err(|e| anyhow!("{label}: {e}"))?))
}

async fn send(
    cluster: &Cluster,
    target: &Target,
    for_mgr: bool,
    mut args: Map<String, Value>,
    input: Bytes,
) -> Result<CommandOutput, Error> {
    if let Target::One(Daemon::Pg(pg)) = target {
        args.insert("pgid".to_owned(), pg.to_string().into());
    }
    let cmd = Value::Object(args).to_string();
    match target {
        Target::Cluster if for_mgr => cluster.mgr_command(cmd, input).await,
        Target::Cluster => cluster.mon_command(cmd, input).await,
        Target::One(daemon) => cluster.tell(daemon, cmd, input).await,
    }
}

/// `tell WHO ...` and `pg ID ...` are for one daemon, or for all of a kind.
fn find_targets(cluster: &Cluster, words: &[String]) -> Result<Vec<(String, Target)>> {
    let word = |i: usize| words.get(i).map(String::as_str);
    let one = |label: &str, daemon| vec![(label.to_owned(), Target::One(daemon))];
    let pgid = |text: &str| PgId::from_str(text).ok();
    match (word(0), word(1)) {
        (Some("pg"), Some(id)) if pgid(id).is_some() => {
            Ok(pgid(id).map(|pg| one(id, Daemon::Pg(pg))).unwrap_or_default())
        }
        (Some("tell"), Some(who)) => match who.split_once('.') {
            _ if who == "mgr" => Ok(one(who, Daemon::Mgr)),
            Some(("mgr", _)) => Ok(one(who, Daemon::Mgr)),
            Some(("osd", "*")) => {
                let map = cluster.map();
                let ids: Vec<i32> = map.existing_osds().map(|(id, _)| id).collect();
                let target = |id| (format!("osd.{id}"), Target::One(Daemon::Osd(id)));
                Ok(ids.into_iter().map(target).collect())
            }
            Some(("mon", "*")) => {
                let monmap = cluster.monmap().context("no monmap")?;
                let names = monmap.mons.keys().cloned();
                let target = |id| (format!("mon.{id}"), Target::One(Daemon::Mon(id)));
                Ok(names.map(target).collect())
            }
            Some(("osd", id)) => {
                let id = id.parse().map_err(|_| anyhow!("osd id {id} not integer"))?;
                Ok(one(who, Daemon::Osd(id)))
            }
            Some(("mon", id)) => Ok(one(who, Daemon::Mon(id.to_owned()))),
            Some((type_, _)) => match pgid(who) {
                Some(pg) => Ok(one(who, Daemon::Pg(pg))),
                None => bail!("unknown type {type_}"),
            },
            None => bail!("no . in {who}"),
        },
        _ => Ok(vec![("mon.".to_owned(), Target::Cluster)]),
    }
}

/// Prints what came back; the error number of a refusal.
fn show(line: &Line, prefix: &str, output: &CommandOutput) -> Result<Option<Errno>> {
    if let Some(path) = &line.output {
        match path.as_path() == Path::new("-") {
            true => print::bytes(&output.outbl)?,
            false => std::fs::write(path, &output.outbl)
                .with_context(|| format!("writing {}", path.display()))?,
        }
    } else {
        let mut out = Vec::new();
        // Scripts skip this line.
        if line.format.as_deref().is_some_and(|f| f.starts_with("json")) {
            out.push(b'\n');
        }
        if !output.outbl.is_empty() {
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(&output.outbl);
            let ends = output.outbl.last() == Some(&b'\n');
            if !prefix.is_empty() || !ends {
                out.push(b'\n');
            }
        }
        print::bytes(&out)?;
    }
    match output.error() {
        Some(errno) => {
            complain!("Error {}: {}", errno.name(), output.rs);
            Ok(Some(errno))
        }
        None => {
            if !output.rs.is_empty() {
                complain!("{prefix}{}", output.rs);
            }
            Ok(None)
        }
    }
}

async fn watch(cluster: &Cluster, level: &str, channel: &str) -> Result<ExitCode> {
    let mut log = cluster.watch_log(level);
    let status = cluster.mon_command(r#"{"prefix":"status"}"#, Bytes::new()).await?;
    if let Some(errno) = status.error() {
        complain!("status query failed: {}", status.rs);
        return Ok(exit_code(errno));
    }
    output!("{}", String::from_utf8_lossy(&status.outbl))?;
    loop {
        tokio::select! {
            entry = log.recv() => match entry {
                Some(entry) if channel == "*" || entry.channel == channel => {
                    output!("{}", log_line(&entry))?;
                }
                Some(_) => {}
                None => return Ok(ExitCode::SUCCESS),
            },
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn log_line(entry: &LogEntry) -> String {
    let level = match entry.prio {
        0 => "DBG",
        1 => "INF",
        2 => "SEC",
        3 => "WRN",
        4 => "ERR",
        _ => "???",
    };
    let stamp = report::stamp(entry.stamp);
    format!("{stamp} {} [{level}] {}", entry.name, entry.msg)
}

fn read_input(path: Option<&Path>) -> Result<Bytes> {
    let Some(path) = path else {
        return Ok(Bytes::new());
    };
    if path == Path::new("-") {
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut data)?;
        return Ok(data.into());
    }
    let read = std::fs::read(path);
    let data = read.with_context(|| format!("Can't open input file {}", path.display()))?;
    Ok(data.into())
}

impl Line {
    fn parse(args: Vec<String>) -> Result<Self> {
        let mut line = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            // What follows is for the daemon.
            let is_inject = arg == "injectargs";
            if is_inject || arg == "--" {
                line.words.extend(is_inject.then_some(arg).into_iter().chain(args));
                break;
            }
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            if line.switch(name) && inline.is_none() {
                continue;
            }
            if !takes_value(name) {
                match config_option(&arg, || args.next()) {
                    _ if is_no_mon_config(&arg) => {}
                    Some(option) => line.options.push(option),
                    None => line.words.push(arg),
                }
                continue;
            }
            let value = inline.or_else(|| args.next());
            let value = value.ok_or_else(|| anyhow!("{name} needs a value"))?;
            line.option(name, value)?;
        }
        Ok(line)
    }

    /// An option without a value.
    fn switch(&mut self, name: &str) -> bool {
        match name {
            "-s" | "--status" => self.status = true,
            "-h" | "--help" => self.help = true,
            "-v" | "--version" => self.version = true,
            "-w" | "--watch" => self.watch_level = Some("info".to_owned()),
            _ => match name.strip_prefix("--watch-") {
                Some(level @ ("debug" | "info" | "sec" | "warn" | "error")) => {
                    self.watch_level = Some(level.to_owned());
                }
                _ => return false,
            },
        }
        true
    }

    fn option(&mut self, name: &str, value: String) -> Result<()> {
        let o = &mut self.overrides;
        match name {
            "-c" | "--conf" => o.conf = Some(value.into()),
            "--cluster" => o.cluster = Some(value),
            "-n" | "--name" => o.name = Some(value),
            "--id" | "--user" => o.name = Some(format!("client.{value}")),
            "-k" | "--keyring" => o.keyring = Some(value.into()),
            "-m" | "--mon-host" | "--mon_host" => o.mon_host = Some(value),
            "-i" | "--in-file" => self.input = Some(value.into()),
            "-o" | "--out-file" => self.output = Some(value.into()),
            "-f" | "--format" => self.format = Some(value),
            "-W" | "--watch-channel" => {
                self.watch_channel = Some(value);
                self.watch_level.get_or_insert_with(|| "info".to_owned());
            }
            "--admin-daemon" | "--admin-socket" => self.admin_socket = Some(value.into()),
            _ => {
                let seconds = value.parse();
                let seconds = seconds.map_err(|_| anyhow!("{name}: {value} is not a number"))?;
                self.connect_timeout = Some(seconds);
            }
        }
        Ok(())
    }

    fn overrides(&self) -> Result<Overrides> {
        let o = &self.overrides;
        let name = o.name.as_deref().map(str::parse).transpose();
        Ok(Overrides {
            conf: o.conf.clone(),
            cluster: o.cluster.clone(),
            name: name.map_err(|e| anyhow!("{e}"))?,
            mon_host: o.mon_host.clone(),
            keyring: o.keyring.clone(),
            options: self.options.clone(),
        })
    }

    /// The socket and the command, if this is for an admin socket.
    fn admin_command(&self, overrides: &Overrides) -> Result<Option<(PathBuf, Vec<String>)>> {
        if let Some(socket) = &self.admin_socket {
            return Ok(Some((socket.clone(), self.words.clone())));
        }
        match self.words.as_slice() {
            [daemon, who, command @ ..] if daemon == "daemon" && !command.is_empty() => {
                Ok(Some((daemon::socket_of(who, overrides)?, command.to_vec())))
            }
            [daemon, ..] if daemon == "daemon" => bail!("daemon requires at least 3 arguments"),
            _ => Ok(None),
        }
    }
}

fn takes_value(name: &str) -> bool {
    let options = [
        "-c",
        "--conf",
        "--cluster",
        "-n",
        "--name",
        "--id",
        "--user",
        "-k",
        "--keyring",
        "-m",
        "--mon-host",
        "--mon_host",
        "-i",
        "--in-file",
        "-o",
        "--out-file",
        "-f",
        "--format",
        "-W",
        "--watch-channel",
        "--admin-daemon",
        "--admin-socket",
        "--connect-timeout",
    ];
    options.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Line {
        Line::parse(text.split_whitespace().map(str::to_owned).collect()).unwrap()
    }

    #[test]
    fn options_stand_anywhere() {
        let line = parse("-c x.conf osd pool create p1 8 --bulk -f json --id bob");
        assert_eq!(line.words, ["osd", "pool", "create", "p1", "8", "--bulk"]);
        assert_eq!(line.format.as_deref(), Some("json"));
        assert_eq!(line.overrides.name.as_deref(), Some("client.bob"));
        assert!(parse("-s").status);
        assert_eq!(parse("--format=json-pretty df").format.as_deref(), Some("json-pretty"));
        assert_eq!(parse("config set a b -- -s").words, ["config", "set", "a", "b", "-s"]);
        assert_eq!(parse("-W audit").watch_level.as_deref(), Some("info"));
        assert!(Line::parse(vec!["-f".to_owned()]).is_err());
    }

    #[test]
    fn options_of_the_configuration_are_no_words() {
        let line = parse("fsid --rados-mon-op-timeout=3 --debug_ms 0 --no-mon-config --id bob");
        assert_eq!(line.words, ["fsid"]);
        let options = [("rados_mon_op_timeout", "3"), ("debug_ms", "0")];
        assert_eq!(line.options, options.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(line.overrides().unwrap().options, line.options);
        assert_eq!(line.overrides.name.as_deref(), Some("client.bob"));
        let line = parse("-f json tell osd.0 injectargs --debug-osd 10 -f x");
        assert_eq!(line.words[2..], ["injectargs", "--debug-osd", "10", "-f", "x"]);
    }

    #[test]
    fn log_lines() {
        let entry = LogEntry {
            name: "mon.a".parse().unwrap(),
            prio: 3,
            msg: "text".to_owned(),
            ..LogEntry::default()
        };
        assert_eq!(log_line(&entry), "1970-01-01T00:00:00.000000+0000 mon.a [WRN] text");
    }
}
