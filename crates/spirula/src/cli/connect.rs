//! The options that every client tool has: which cluster, and as whom.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use spirula_client::{Cluster, ConnectConfig, EntityNameStr, EntityType, Overrides};

#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ConnectArgs {
    /// Configuration file [default: $CEPH_CONF, then /etc/ceph, ~/.ceph and the working directory].
    #[arg(short = 'c', long = "conf", global = true, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Name of the cluster.
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// Who to be, as client.ID [default: client.admin].
    #[arg(
        short = 'n',
        long = "name",
        global = true,
        value_name = "ENTITY",
        overrides_with = "entity_id"
    )]
    entity: Option<EntityNameStr>,
    /// Who to be, without the `client.`.
    #[arg(
        long = "id",
        visible_alias = "user",
        global = true,
        value_name = "ID",
        overrides_with = "entity"
    )]
    entity_id: Option<String>,
    /// Keyring file.
    #[arg(short = 'k', long, global = true, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Monitors to connect to.
    #[arg(short = 'm', long = "mon-host", global = true, value_name = "ADDRS")]
    mon_host: Option<String>,
    /// Seconds to wait for the cluster.
    #[arg(long, global = true, value_name = "SECONDS")]
    connect_timeout: Option<f64>,
    /// Any configuration option; may be repeated.
    #[arg(long = "set", global = true, value_name = "OPTION=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
}

impl ConnectArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        let by_id = |id: &String| EntityNameStr::new(EntityType::CLIENT, id.clone());
        Overrides {
            conf: self.conf.clone(),
            cluster: self.cluster.clone(),
            name: self.entity.clone().or_else(|| self.entity_id.as_ref().map(by_id)),
            mon_host: self.mon_host.clone(),
            keyring: self.keyring.clone(),
            options: self.options.clone(),
        }
    }

    pub(crate) fn config(&self) -> Result<ConnectConfig, spirula_client::Error> {
        let mut config = ConnectConfig::from_conf(&self.overrides())?;
        let seconds = self.connect_timeout.filter(|s| *s > 0.0);
        if let Some(timeout) = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
            config.connect_timeout = timeout;
        }
        Ok(config)
    }

    pub(crate) async fn connect(&self) -> Result<Cluster, spirula_client::Error> {
        Cluster::connect(self.config()?).await
    }
}

/// Runs a tool on this thread alone: one connection gains nothing from more.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime of the client")?;
    runtime.block_on(future)
}

fn parse_option(text: &str) -> Result<(String, String), String> {
    let (option, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not OPTION=VALUE"))?;
    Ok((option.to_owned(), value.to_owned()))
}
