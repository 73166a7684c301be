//! `spirula rados`: objects from the command line, as Ceph's `rados` does it.

use std::fmt::Display;
use std::fs::Metadata;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use spirula_client::{ALL_NAMESPACES, Cluster, Error, IoCtx, PoolStat};

use super::bench::{self, BenchArgs, CleanupArgs};
use super::connect::{ConnectArgs, block_on};
use super::progress::Progress;
use super::report;
use crate::print::{self, output};

/// Data moved by one request of `put` and `get`.
const CHUNK_BYTES: usize = 4 << 20;
/// Bytes of a listing that are printed at once.
const LIST_BYTES_MAX: usize = 64 << 10;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Pool to work in.
    #[arg(short = 'p', long, global = true)]
    pool: Option<String>,
    /// Namespace to work in.
    #[arg(short = 'N', long, global = true)]
    namespace: Option<String>,
    /// With ls: the objects of all namespaces.
    #[arg(long, global = true)]
    all: bool,
    /// Place objects by this key instead of by their names.
    #[arg(long, global = true, value_name = "KEY")]
    object_locator: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Write a file (`-`: standard input) to an object.
    Put {
        object: String,
        file: PathBuf,
        /// Write here instead of replacing the object.
        #[arg(long)]
        offset: Option<u64>,
    },
    /// Write an object to a file (`-`: standard output).
    Get { object: String, file: PathBuf },
    /// Append a file to an object.
    Append { object: String, file: PathBuf },
    /// List objects.
    Ls,
    /// Remove objects.
    Rm {
        #[arg(required = true)]
        objects: Vec<String>,
    },
    /// Size and time of change of an object.
    Stat { object: String },
    /// Make an empty object.
    #[command(alias = "touch")]
    Create { object: String },
    /// Set the size of an object.
    Truncate { object: String, size: u64 },
    /// Set an extended attribute; without a value, from standard input.
    Setxattr { object: String, name: String, value: Option<String> },
    /// Print an extended attribute.
    Getxattr { object: String, name: String },
    /// Names of the extended attributes.
    Listxattr { object: String },
    /// Remove an extended attribute.
    Rmxattr { object: String, name: String },
    /// Set an omap value; without a value, from standard input.
    Setomapval { object: String, key: String, value: Option<String> },
    /// Print an omap value; with a file, write it there.
    Getomapval { object: String, key: String, file: Option<PathBuf> },
    /// Keys of an object's omap.
    Listomapkeys { object: String },
    /// Keys and values of an object's omap.
    Listomapvals { object: String },
    /// Remove omap keys.
    Rmomapkey {
        object: String,
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Remove all omap keys.
    Clearomap {
        #[arg(required = true)]
        objects: Vec<String>,
    },
    /// Set the omap header; without a value, from standard input.
    Setomapheader { object: String, value: Option<String> },
    /// Print the omap header; with a file, write it there.
    Getomapheader { object: String, file: Option<PathBuf> },
    /// Statistics of the pools.
    Df,
    /// Names of the pools.
    Lspools,
    /// Measure writing or reading.
    Bench(BenchArgs),
    /// Remove what `bench --no-cleanup` left.
    Cleanup(CleanupArgs),
}

#[cfg(test)]
impl Args {
    /// Whom and what the options name.
    pub(crate) fn asked_for(&self) -> (spirula_client::Overrides, Option<&str>) {
        (self.connect.overrides(), self.pool.as_deref())
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    block_on(async {
        let cluster = match args.connect.connect().await {
            Ok(cluster) => cluster,
            Err(error) => bail!("couldn't connect to cluster: {error}"),
        };
        execute(&args, &cluster).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn execute(args: &Args, cluster: &Cluster) -> Result<()> {
    match &args.command {
        Command::Lspools => {
            let pools = cluster.list_pools();
            return print_lines(pools.iter().map(|(_, name)| name));
        }
        Command::Df => return df(cluster, args.pool.as_deref()).await,
        _ => {}
    }
    let pool = args.pool.as_deref();
    let pool = pool.ok_or_else(|| anyhow!("pool name is required for this command: give -p"))?;
    let opened = cluster.pool(pool).await;
    let mut io = opened.map_err(|e| failed(&format!("opening pool {pool}"), &e))?;
    if let Some(nspace) = &args.namespace {
        io = io.with_namespace(nspace.clone());
    }
    if let Some(key) = &args.object_locator {
        io = io.with_locator(key.clone());
    }
    match &args.command {
        Command::Ls => ls(&io, args.all).await,
        Command::Bench(bench) => bench::run(&io, bench).await,
        Command::Cleanup(cleanup) => bench::cleanup(&io, cleanup).await,
        command => on_object(&io, pool, command).await,
    }
}

async fn on_object(io: &IoCtx, pool: &str, command: &Command) -> Result<()> {
    use Command::*;
    match command {
        Put { object, file, offset } => put(io, pool, object, file, *offset).await,
        Get { object, file } => get(io, pool, object, file)
            .await
            .map_err(|e| e.explain(&format!("getting {pool}/{object}"))),
        Append { object, file } => {
            let data = read_input(file)?;
            done(io.append(object, data).await, &format!("appending {pool}/{object}"))
        }
        Rm { objects } => {
            for object in objects {
                done(io.remove(object).await, &format!("removing {pool}>{object}"))?;
            }
            Ok(())
        }
        Stat { object } => {
            let stat = io.stat(object).await;
            let stat = stat.map_err(|e| failed(&format!("stat-ing {pool}/{object}"), &e))?;
            let (mtime, size) = (report::stamp(stat.mtime), stat.size);
            output!("{pool}/{object} mtime {mtime}, size {size}")?;
            Ok(())
        }
        Create { object } => {
            done(io.create(object, true).await, &format!("creating {pool}/{object}"))
        }
        Truncate { object, size } => {
            done(io.truncate(object, *size).await, &format!("truncating oid {object} to {size}"))
        }
        Setxattr { .. } | Getxattr { .. } | Listxattr { .. } | Rmxattr { .. } => {
            on_xattr(io, pool, command).await
        }
        _ => on_omap(io, pool, command).await,
    }
}

async fn on_xattr(io: &IoCtx, pool: &str, command: &Command) -> Result<()> {
    match command {
        Command::Setxattr { object, name, value } => {
            let value = value_or_stdin(value)?;
            let what = format!("setting xattr {pool}/{object}/{name}");
            done(io.set_xattr(object, name, value).await, &what)
        }
        Command::Getxattr { object, name } => {
            let what = format!("getting xattr {pool}/{object}/{name}");
            let value = io.get_xattr(object, name).await.map_err(|e| failed(&what, &e))?;
            print_raw(&value, true)
        }
        Command::Listxattr { object } => {
            let what = format!("getting xattr set {pool}/{object}");
            let names = io.get_xattrs(object).await.map_err(|e| failed(&what, &e))?;
            print_lines(names.keys())
        }
        Command::Rmxattr { object, name } => {
            let what = format!("removing xattr {pool}/{object}/{name}");
            done(io.rm_xattr(object, name).await, &what)
        }
        _ => Ok(()),
    }
}

async fn on_omap(io: &IoCtx, pool: &str, command: &Command) -> Result<()> {
    match command {
        Command::Setomapval { object, key, value } => {
            let what = format!("setting omap value {pool}/{object}/{key}");
            let value = value_or_stdin(value)?;
            done(io.omap_set(object, [(key.clone(), value)]).await, &what)
        }
        Command::Getomapval { object, key, file } => {
            let what = format!("getting omap value {pool}/{object}/{key}");
            match io.omap_get(object, key).await {
                Ok(value) => show_value("value", &value, file.as_deref()),
                Err(e) if e == Error::Server(spirula_client::Errno::ENODATA) => {
                    bail!("No such key: {pool}/{object}/{key}")
                }
                Err(e) => Err(failed(&what, &e)),
            }
        }
        Command::Listomapkeys { object } => {
            let what = format!("getting omap key set {pool}/{object}");
            let all = io.omap_list(object).await.map_err(|e| failed(&what, &e))?;
            print_lines(all.keys())
        }
        Command::Listomapvals { object } => {
            let what = format!("getting omap keys {pool}/{object}");
            let all = io.omap_list(object).await.map_err(|e| failed(&what, &e))?;
            for (key, value) in all {
                output!("{key}")?;
                show_value("value", &value, None)?;
            }
            Ok(())
        }
        Command::Rmomapkey { object, keys } => {
            let what = format!("removing omap key {pool}/{object}");
            done(io.omap_rm_keys(object, keys.clone()).await, &what)
        }
        Command::Clearomap { objects } => {
            for object in objects {
                let what = format!("clearing omap keys {pool}/{object}");
                done(io.omap_clear(object).await, &what)?;
            }
            Ok(())
        }
        Command::Setomapheader { object, value } => {
            let what = format!("setting omap header {pool}/{object}");
            let value = value_or_stdin(value)?;
            done(io.omap_set_header(object, value).await, &what)
        }
        Command::Getomapheader { object, file } => {
            let what = format!("getting omap header {pool}/{object}");
            let header = io.omap_get_header(object).await.map_err(|e| failed(&what, &e))?;
            show_value("header", &header, file.as_deref())
        }
        _ => Ok(()),
    }
}

async fn ls(io: &IoCtx, all: bool) -> Result<()> {
    let io = match all {
        true => io.with_namespace(ALL_NAMESPACES),
        false => io.clone(),
    };
    let mut list = io.list();
    let mut out = Vec::new();
    while let Some(object) = list.next().await.map_err(|e| failed("listing", &e))? {
        if all {
            out.extend_from_slice(&object.nspace);
            out.push(b'\t');
        }
        out.extend_from_slice(&object.oid);
        if !object.locator.is_empty() {
            out.push(b'\t');
            out.extend_from_slice(&object.locator);
        }
        out.push(b'\n');
        if out.len() >= LIST_BYTES_MAX {
            print::bytes(&out)?;
            out.clear();
        }
    }
    Ok(print::bytes(&out)?)
}

async fn put(io: &IoCtx, pool: &str, object: &str, file: &Path, at: Option<u64>) -> Result<()> {
    let what = format!("putting {pool}/{object}");
    let mut input = open_input(file)?;
    let total = std::fs::metadata(file).ok().filter(Metadata::is_file).map(|m| m.len());
    let mut progress = Progress::new(format!("put {pool}/{object}"), total);
    let start = at.unwrap_or(0);
    let mut offset = start;
    let mut first = true;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        (&mut input).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        let len = chunk.len();
        if first && at.is_none() {
            done(io.write_full(object, chunk).await, &what)?;
        } else if len > 0 {
            done(io.write(object, offset, chunk).await, &what)?;
        }
        first = false;
        offset += len as u64;
        progress.at(offset - start, Instant::now());
        if len < CHUNK_BYTES {
            return Ok(());
        }
    }
}

/// Where a transfer broke.
enum TransferError {
    Cluster(Error),
    Local(anyhow::Error),
}

/// Where `get` writes to.
enum Output {
    Stdout,
    File(std::fs::File),
}

impl TransferError {
    fn explain(self, what: &str) -> anyhow::Error {
        match self {
            Self::Cluster(e) => failed(what, &e),
            Self::Local(e) => e,
        }
    }
}

async fn get(io: &IoCtx, pool: &str, object: &str, file: &Path) -> Result<(), TransferError> {
    let local =
        |e: std::io::Error| TransferError::Local(anyhow!("writing {}: {e}", file.display()));
    let mut out: Option<Output> = None;
    let mut offset = 0;
    // Asking for the size is worth it only if somebody looks.
    let total = match Progress::is_visible() {
        true => io.stat(object).await.ok().map(|stat| stat.size),
        false => None,
    };
    let mut progress = Progress::new(format!("get {pool}/{object}"), total);
    loop {
        let chunk = io.read(object, offset, CHUNK_BYTES as u64).await;
        let chunk = chunk.map_err(TransferError::Cluster)?;
        // Made only now, so that an absent object leaves no empty file.
        let out = match &mut out {
            Some(out) => out,
            None => out.insert(match file == Path::new("-") {
                true => Output::Stdout,
                false => Output::File(std::fs::File::create(file).map_err(local)?),
            }),
        };
        match out {
            Output::Stdout => {
                print::bytes(&chunk).map_err(|e| TransferError::Local(e.into()))?;
            }
            Output::File(file) => file.write_all(&chunk).map_err(local)?,
        }
        offset += chunk.len() as u64;
        progress.at(offset, Instant::now());
        if chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
    }
}

async fn df(cluster: &Cluster, only: Option<&str>) -> Result<()> {
    cluster.wait_for_latest_map().await?;
    let names = cluster.list_pools().into_iter().map(|(_, name)| name);
    let names: Vec<String> = names.filter(|n| only.is_none_or(|o| o == n)).collect();
    let stats = cluster.pool_stats(names).await?;
    let usage = cluster.statfs().await?;
    let heads = "POOL_NAME,USED,OBJECTS,CLONES,COPIES,MISSING_ON_PRIMARY,UNFOUND,DEGRADED,RD_OPS,\
                 RD,WR_OPS,WR,USED COMPR,UNDER COMPR";
    let mut rows = vec![heads.split(',').map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(stats.pool_stats.iter().map(|(name, stat)| df_row(name, stat)));
    output!("{}", report::table(&rows))?;
    output!("total_objects    {}", usage.num_objects)?;
    output!("total_used       {}", report::bytes(usage.kb_used << 10))?;
    output!("total_avail      {}", report::bytes(usage.kb_avail << 10))?;
    output!("total_space      {}", report::bytes(usage.kb << 10))?;
    Ok(())
}

fn df_row(name: &str, stat: &PoolStat) -> Vec<String> {
    let (sum, store) = (&stat.stats.sum, &stat.store_stats);
    let size = |n: i64| report::bytes(u64::try_from(n).unwrap_or(0));
    vec![
        name.to_owned(),
        size(store.allocated + store.omap_allocated),
        sum.num_objects.to_string(),
        sum.num_object_clones.to_string(),
        sum.num_object_copies.to_string(),
        sum.num_objects_missing_on_primary.to_string(),
        sum.num_objects_unfound.to_string(),
        sum.num_objects_degraded.to_string(),
        sum.num_rd.to_string(),
        size(sum.num_rd_kb << 10),
        sum.num_wr.to_string(),
        size(sum.num_wr_kb << 10),
        size(store.data_compressed_allocated),
        size(store.data_compressed_original),
    ]
}

fn failed(what: &str, error: &Error) -> anyhow::Error {
    match error {
        Error::Server(_) | Error::NoPool(_) => anyhow!("error {what}: {}", error.errno()),
        other => anyhow!("error {what}: {other}"),
    }
}

fn done(result: Result<(), Error>, what: &str) -> Result<()> {
    result.map_err(|e| failed(what, &e))
}

fn open_input(file: &Path) -> Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let opened = std::fs::File::open(file);
    Ok(Box::new(opened.with_context(|| format!("reading {}", file.display()))?))
}

fn read_input(file: &Path) -> Result<Bytes> {
    let mut data = Vec::new();
    open_input(file)?.read_to_end(&mut data)?;
    Ok(data.into())
}

fn value_or_stdin(value: &Option<String>) -> Result<Bytes> {
    match value {
        Some(value) => Ok(value.clone().into()),
        None => read_input(Path::new("-")),
    }
}

fn print_lines(lines: impl Iterator<Item = impl Display>) -> Result<()> {
    lines.into_iter().try_for_each(|line| Ok(output!("{line}")?))
}

fn print_raw(data: &[u8], newline: bool) -> Result<()> {
    print::bytes(data)?;
    if newline {
        print::bytes(b"\n")?;
    }
    Ok(())
}

fn show_value(what: &str, value: &[u8], file: Option<&Path>) -> Result<()> {
    match file {
        Some(file) => {
            output!("Writing to {}", file.display())?;
            Ok(std::fs::write(file, value)?)
        }
        None => {
            output!("{what} ({} bytes) :", value.len())?;
            output!("{}", report::hexdump(value))?;
            Ok(())
        }
    }
}
