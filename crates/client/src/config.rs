//! What a client needs to know before it can connect, and how a configuration file says it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spirula_auth::{ConMode, CryptoKey, Keyring, METHOD_CEPHX, METHOD_NONE, Principal};
use spirula_wire::types::{AddrType, EntityAddrVec, EntityName, EntityNameStr, EntityType};

use crate::conf::{Conf, Options, hostname};
use crate::error::{Error, SetupError};

/// Ceph's port of the messenger v2.
const MON_PORT: u16 = 3300;
const MON_PORT_LEGACY: u16 = 6789;

/// How to reach a cluster, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    pub principal: Principal,
    pub mons: Vec<SocketAddr>,
    /// Authentication methods, preferred first.
    pub methods: Vec<u32>,
    pub mon_modes: Vec<ConMode>,
    pub service_modes: Vec<ConMode>,
    /// Until the first session and map are there (`client_mount_timeout`).
    pub connect_timeout: Duration,
    /// For one question to a monitor or manager (`rados_mon_op_timeout`); for ever if `None`.
    pub mon_timeout: Option<Duration>,
    /// For one request to an OSD (`rados_osd_op_timeout`); for ever if `None`.
    pub osd_timeout: Option<Duration>,
    pub hostname: String,
}

/// What a command line adds to the configuration file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `-c`
    pub conf: Option<PathBuf>,
    /// `--cluster`
    pub cluster: Option<String>,
    /// `-n` / `--id`
    pub name: Option<EntityNameStr>,
    /// `-m`
    pub mon_host: Option<String>,
    /// `-k`
    pub keyring: Option<PathBuf>,
    /// Any option, as `--OPTION=VALUE` sets it.
    pub options: Vec<(String, String)>,
}

impl ConnectConfig {
    /// With Ceph's defaults.
    pub fn new(name: EntityNameStr, key: CryptoKey, mons: Vec<SocketAddr>) -> Self {
        Self {
            principal: Principal { name, key },
            mons,
            methods: vec![METHOD_CEPHX],
            mon_modes: vec![ConMode::Secure, ConMode::Crc],
            service_modes: vec![ConMode::Crc, ConMode::Secure],
            connect_timeout: Duration::from_secs(300),
            mon_timeout: None,
            osd_timeout: None,
            hostname: hostname(),
        }
    }

    /// From the configuration file that Ceph's own tools would read, as `client.admin` unless told
    /// otherwise.
    pub fn from_conf(overrides: &Overrides) -> Result<Self, Error> {
        let (conf, name, cluster) = overrides.load()?;
        Self::from_options(conf.of(&name, &cluster), &name)
    }

    fn from_options(options: Options<'_>, name: &EntityNameStr) -> Result<Self, Error> {
        let mon_host = options.get("mon_host").ok_or(SetupError::NoMonitors)?;
        let mons = parse_mon_host(&mon_host)?;
        let methods = auth_methods(options)?;
        let key = if methods.contains(&METHOD_CEPHX) {
            find_key(options, name)?
        } else {
            CryptoKey::default()
        };
        let mut config = Self::new(name.clone(), key, mons);
        config.methods = methods;
        if let Some(modes) = modes(options, "ms_mon_client_mode")? {
            config.mon_modes = modes;
        }
        if let Some(modes) = modes(options, "ms_client_mode")? {
            config.service_modes = modes;
        }
        if let Some(timeout) = seconds(options, "client_mount_timeout")? {
            config.connect_timeout = timeout;
        }
        config.mon_timeout = seconds(options, "rados_mon_op_timeout")?;
        config.osd_timeout = seconds(options, "rados_osd_op_timeout")?;
        Ok(config)
    }
}

impl Overrides {
    /// Reads the configuration file and puts what the command line says on top; whose options are
    /// meant, and the cluster's name.
    pub fn load(&self) -> Result<(Conf, EntityNameStr, String), Error> {
        let admin = || EntityNameStr::new(EntityType::CLIENT, "admin");
        let name = self.name.clone().unwrap_or_else(admin);
        let asked = self.conf.as_deref();
        let cluster = match (&self.cluster, asked.and_then(Path::file_stem)) {
            (Some(cluster), _) => cluster.clone(),
            _ => "ceph".to_owned(),
        };
        let mut conf = match Conf::find(asked, &cluster) {
            Some(path) => Conf::load(&path)?,
            None => Conf::default(),
        };
        let special = name.to_string();
        for (key, value) in &self.options {
            conf.set(&special, key, value);
        }
        if let Some(mon_host) = &self.mon_host {
            conf.set(&special, "mon_host", mon_host);
        }
        if let Some(keyring) = &self.keyring {
            conf.set(&special, "keyring", &keyring.to_string_lossy());
        }
        Ok((conf, name, cluster))
    }
}

/// `[v2:1.2.3.4:3300,v1:1.2.3.4:6789],host2 host3:3300`: the v2 addresses in it.
pub fn parse_mon_host(text: &str) -> Result<Vec<SocketAddr>, SetupError> {
    let mut addrs = Vec::new();
    for host in split_hosts(text) {
        match host.parse::<EntityAddrVec>() {
            Ok(vec) => {
                let v2 = vec.iter().filter_map(|a| v2_of(a.type_, a.addr?));
                addrs.extend(v2);
            }
            Err(_) => addrs.extend(resolve(host)?),
        }
    }
    match (addrs.is_empty(), text.trim().is_empty()) {
        (false, _) => Ok(addrs),
        (true, true) => Err(SetupError::NoMonitors),
        (true, false) => Err(SetupError::OnlyLegacy(text.to_owned())),
    }
}

/// Where a monitor at this address speaks v2, if it does.
fn v2_of(type_: AddrType, addr: SocketAddr) -> Option<SocketAddr> {
    match (type_, addr.port()) {
        (AddrType::LEGACY, _) => None,
        (_, 0) => Some(SocketAddr::new(addr.ip(), MON_PORT)),
        (AddrType::ANY, MON_PORT_LEGACY) => None,
        _ => Some(addr),
    }
}

fn resolve(host: &str) -> Result<Vec<SocketAddr>, SetupError> {
    let bare = host.strip_prefix("v2:").unwrap_or(host);
    let with_port = match bare.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => bare.to_owned(),
        _ => format!("{bare}:{MON_PORT}"),
    };
    let found =
        with_port.to_socket_addrs().map_err(|e| SetupError::MonHost(format!("{host}: {e}")))?;
    Ok(found.collect())
}

/// Commas, semicolons and blanks separate hosts, but not inside of brackets.
fn split_hosts(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(move |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        depth == 0 && (c.is_whitespace() || c == ',' || c == ';')
    });
    parts.filter(|p| !p.is_empty()).collect()
}

fn auth_methods(options: Options<'_>) -> Result<Vec<u32>, SetupError> {
    let value = options
        .get("auth_client_required")
        .or_else(|| options.get("auth_supported"))
        .unwrap_or_else(|| "cephx".to_owned());
    let words = value.split([',', ' ', ';']).filter(|w| !w.is_empty());
    let bad = |value: &str| SetupError::Option {
        option: "auth_client_required",
        value: value.to_owned(),
    };
    words
        .map(|word| match word {
            "cephx" => Ok(METHOD_CEPHX),
            "none" => Ok(METHOD_NONE),
            other => Err(bad(other)),
        })
        .collect()
}

fn modes(options: Options<'_>, option: &'static str) -> Result<Option<Vec<ConMode>>, SetupError> {
    let Some(value) = options.get(option) else {
        return Ok(None);
    };
    let words = value.split([',', ' ']).filter(|w| !w.is_empty());
    let modes = words
        .map(|word| match word {
            "crc" => Ok(ConMode::Crc),
            "secure" => Ok(ConMode::Secure),
            other => Err(SetupError::Option { option, value: other.to_owned() }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(modes))
}

/// 0 means for ever, as in Ceph.
fn seconds(options: Options<'_>, option: &'static str) -> Result<Option<Duration>, SetupError> {
    let Some(value) = options.get(option) else {
        return Ok(None);
    };
    let parsed = value.trim_end_matches('s').parse().ok();
    match parsed.and_then(|s: f64| Duration::try_from_secs_f64(s).ok()) {
        Some(d) if d.is_zero() => Ok(None),
        Some(d) => Ok(Some(d)),
        None => Err(SetupError::Option { option, value }),
    }
}

/// In Ceph's order: `key`, `keyfile`, then the first keyring that exists.
fn find_key(options: Options<'_>, name: &EntityNameStr) -> Result<CryptoKey, SetupError> {
    let parse = |text: &str| CryptoKey::from_base64(text.trim()).map_err(|_| SetupError::Key);
    if let Some(key) = options.get("key") {
        return parse(&key);
    }
    if let Some(path) = options.get("keyfile").map(PathBuf::from) {
        return parse(&read(&path)?);
    }
    let places = match std::env::var("CEPH_KEYRING") {
        Ok(keyring) if !keyring.is_empty() && options.get("keyring").is_none() => keyring,
        _ => options.get("keyring").unwrap_or_else(|| options.expand(KEYRINGS)),
    };
    let places: Vec<PathBuf> = places.split([',', ';']).map(|p| PathBuf::from(p.trim())).collect();
    let Some(path) = places.iter().find(|p| p.exists()).cloned() else {
        return Err(SetupError::NoKeyring { name: name.clone(), looked_at: places });
    };
    let keyring = match Keyring::parse(&read(&path)?) {
        Ok(keyring) => keyring,
        Err(error) => return Err(SetupError::Keyring { path, error }),
    };
    match keyring.get(name) {
        Some(auth) if !auth.key.is_empty() => Ok(auth.key.clone()),
        _ => Err(SetupError::NoKey { path, name: name.clone() }),
    }
}

const KEYRINGS: &str = "/etc/ceph/$cluster.$name.keyring,/etc/ceph/$cluster.keyring,\
                        /etc/ceph/keyring,/etc/ceph/keyring.bin";

fn read(path: &Path) -> Result<String, SetupError> {
    std::fs::read_to_string(path)
        .map_err(|e| SetupError::Unreadable { path: path.to_owned(), error: e.to_string() })
}

/// How a client names itself to daemons: by its global id, or -1 before it has one.
pub(crate) fn client_name(global_id: u64) -> EntityName {
    let num = match i64::try_from(global_id) {
        Ok(0) | Err(_) => -1,
        Ok(id) => id,
    };
    EntityName::client(num)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<String> {
        let addrs = parse_mon_host(text).unwrap();
        addrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn monitor_addresses() {
        assert_eq!(hosts("[v2:127.0.0.1:40000,v1:127.0.0.1:40001]"), ["127.0.0.1:40000"]);
        assert_eq!(
            hosts("10.0.0.1,10.0.0.2:3301 v2:[::1]:5"),
            ["10.0.0.1:3300", "10.0.0.2:3301", "[::1]:5"]
        );
        assert_eq!(
            hosts("[v2:1.1.1.1:3300,v1:1.1.1.1:6789],[v2:1.1.1.2:3300]"),
            ["1.1.1.1:3300", "1.1.1.2:3300"]
        );
        assert_eq!(
            parse_mon_host("v1:1.1.1.1:6789"),
            Err(SetupError::OnlyLegacy("v1:1.1.1.1:6789".into()))
        );
        assert_eq!(parse_mon_host(" "), Err(SetupError::NoMonitors));
    }

    #[test]
    fn options_of_a_client() {
        let dir = std::env::temp_dir().join(format!("spirula-conf-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let keyring = dir.join("keyring");
        let key = "AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==";
        std::fs::write(&keyring, format!("[client.bob]\n\tkey = {key}\n")).unwrap();
        let text = format!(
            "mon host = 127.0.0.1\nkeyring = /no/such,{}\nms client mode = secure\n\
             rados osd op timeout = 1.5\n",
            keyring.display()
        );
        let conf = Conf::parse(&text).unwrap();
        let config = |name: &str| {
            let name = name.parse().unwrap();
            ConnectConfig::from_options(conf.of(&name, "ceph"), &name)
        };
        let bob = config("client.bob").unwrap();
        assert_eq!(bob.principal.key.to_base64(), key);
        assert_eq!(bob.service_modes, [ConMode::Secure]);
        assert_eq!(bob.osd_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(bob.mon_timeout, None);
        assert!(matches!(config("client.eve"), Err(Error::Setup(SetupError::NoKey { .. }))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
