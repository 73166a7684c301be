//! `spirula vos`: looks at the store of a stopped OSD, and writes nothing to its device.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use spirula_bio::superblock::UuidText;
use spirula_osd::DevicePaths;
use spirula_store::{CheckFailure, CheckReport, Offline};
use spirula_vos::{
    AkeyDump, BLOCK_SIZE, ContainerId, Epoch, ExtentDump, Fragmentation, ObjectDump, ObjectKey,
    PlaceDump, PreparedTx, VersionDump,
};
use spirula_xstream::Config;

/// Objects listed by one read.
const LIST_BATCH: usize = 256;
/// Bytes of a single value that are printed.
const VALUE_SHOWN_MAX: usize = 64;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Verify every checksum and every reference, and that the space adds up.
    Check {
        /// The device: a file or block device that no OSD has open.
        device: PathBuf,
    },
    /// Print whose store it is, its containers and its space.
    Stat {
        /// The device.
        device: PathBuf,
    },
    /// List the transactions that are prepared, with what they will do, and those that have ended.
    Transactions {
        /// The device.
        device: PathBuf,
    },
    /// List the objects of a container, or print all that is kept of one object.
    Dump {
        /// The device.
        device: PathBuf,
        /// The container, as `stat` prints it.
        #[arg(value_parser = parse_container)]
        container: [u8; 16],
        /// The object, as the list prints it.
        object: Option<String>,
    },
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let config = Config::new("vos");
    spirula_xstream::run(config, async move { execute(args.command, &mut io::stdout()).await })
        .context("xstream")?
}

async fn execute(command: Command, out: &mut dyn Write) -> Result<ExitCode> {
    let path = match &command {
        Command::Check { device }
        | Command::Stat { device }
        | Command::Transactions { device }
        | Command::Dump { device, .. } => device,
    };
    // Devices for WAL and metadata are found beside it.
    let devices = DevicePaths::find(path, &BTreeMap::new()).open_read_only()?;
    let store = Offline::open(&devices).await?;
    match command {
        Command::Check { .. } => return check(&store, out).await,
        Command::Stat { .. } => stat(&store, out).await?,
        Command::Transactions { .. } => transactions(&store, out).await?,
        Command::Dump { container, object, .. } => {
            let cid = ContainerId(container);
            if !store.read(|vos| Ok(vos.container_exists(cid))).await? {
                bail!("no container {}", hex(&container));
            }
            match object {
                Some(object) => dump(&store, cid, &unescape(&object)?, out).await?,
                None => list(&store, cid, out).await?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(store: &Offline, out: &mut dyn Write) -> Result<ExitCode> {
    match store.check().await {
        Ok(report) => {
            counts(&report, out)?;
            writeln!(out, "the store is sound")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(CheckFailure::Data(report)) => {
            counts(&report, out)?;
            for damage in &report.damage {
                writeln!(out, "{damage}")?;
            }
            writeln!(out, "{} data extents are damaged", report.damaged)?;
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => {
            writeln!(out, "{failure}")?;
            writeln!(out, "the store is damaged")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn counts(report: &CheckReport, out: &mut dyn Write) -> io::Result<()> {
    let s = &report.summary;
    writeln!(out, "objects  {}", s.objects)?;
    writeln!(out, "entries  {} in {} pages", s.entries, s.pages)?;
    writeln!(out, "data     {} extents, {} bytes verified", s.extents, report.data_bytes)?;
    writeln!(
        out,
        "blocks   {} data + {} pages + {} waiting + {} free = {}",
        s.blocks, s.page_blocks, s.waiting_blocks, s.free_blocks, s.total_blocks
    )
}

async fn stat(store: &Offline, out: &mut dyn Write) -> Result<()> {
    let stat = store.stat();
    let (sb, space) = (&stat.superblock, &stat.space);
    writeln!(out, "cluster     {}", UuidText(sb.fsid))?;
    writeln!(out, "osd         {} {}", sb.osd_id, UuidText(sb.osd_uuid))?;
    match sb.set.wal {
        false => {
            writeln!(out, "device      {} bytes, {} of them WAL", sb.device_bytes, sb.wal_bytes)?;
        }
        true => {
            writeln!(out, "device      {} bytes", sb.device_bytes)?;
            writeln!(out, "wal         {} bytes on a device of its own", sb.wal_bytes)?;
        }
    }
    if sb.set.meta_bytes > 0 {
        writeln!(out, "meta        {} bytes on a device of its own", sb.set.meta_bytes)?;
    }
    writeln!(out, "checkpoint  {}", stat.checkpoint)?;
    writeln!(out, "transaction {}, {} of them only in the WAL", stat.seq, stat.replayed)?;
    writeln!(out, "data        {} bytes", space.stored)?;
    match space.metadata_per_object() {
        Some(each) => {
            writeln!(out, "metadata    {} bytes, {each:.1} for each object", space.metadata)?;
        }
        None => writeln!(out, "metadata    {} bytes", space.metadata)?,
    }
    writeln!(out, "available   {} of {} bytes", space.available, space.total)?;
    free_runs(&stat.fragmentation, out)?;
    match stat.scrubbed {
        (0, _) => writeln!(out, "scrubbed    never")?,
        (at, errors) => writeln!(out, "scrubbed    {at} seconds after 1970, {errors} errors")?,
    }
    let containers = store
        .read(|vos| {
            let all = vos.containers().into_iter();
            Ok(all
                .map(|cid| (cid, vos.container_stats(cid).unwrap_or_default()))
                .collect::<Vec<_>>())
        })
        .await?;
    let prepared = store.read(|vos| Ok(vos.stats().prepared)).await?;
    writeln!(out, "prepared    {prepared} transactions")?;
    for (cid, stats) in containers {
        let (id, objects, bytes) = (hex(&cid.0), stats.objects, stats.bytes);
        let about = if stats.exact { "" } else { "about " };
        writeln!(out, "container   {id} {about}{objects} objects, {bytes} bytes")?;
    }
    Ok(())
}

fn free_runs(free: &Fragmentation, out: &mut dyn Write) -> io::Result<()> {
    let (runs, longest) = (free.runs, free.longest * BLOCK_SIZE);
    writeln!(out, "free runs   {runs}, the longest {longest} bytes, score {:.4}", free.score())?;
    for (i, (runs, blocks)) in free.classes.iter().enumerate().filter(|(_, c)| c.0 > 0) {
        let from = BLOCK_SIZE << i;
        writeln!(out, "            {runs} from {from} bytes on, {} bytes", blocks * BLOCK_SIZE)?;
    }
    Ok(())
}

async fn transactions(store: &Offline, out: &mut dyn Write) -> Result<()> {
    for PreparedTx { id, .. } in store.read(|vos| Ok(vos.prepared())).await? {
        let tx = store.read(|vos| vos.dump_prepared(id)).await?;
        let (blocks, pages) = (tx.blocks, tx.pages);
        writeln!(
            out,
            "{} prepared at {}, horizon {}: {blocks} blocks, {pages} pages kept back",
            hex(&id.0),
            tx.epoch,
            tx.horizon
        )?;
        for (name, object) in tx.operations {
            match object {
                Some((cid, oid)) => {
                    writeln!(out, "  {name} {} {}", hex(&cid.0), oid.0.escape_ascii())?;
                }
                None => writeln!(out, "  {name}")?,
            }
        }
    }
    let mut after = None;
    loop {
        let some = store.read(|vos| vos.ended_transactions(after, LIST_BATCH)).await?;
        for (id, state) in &some {
            writeln!(out, "{} {state}", hex(&id.0))?;
        }
        match some.last() {
            Some((last, _)) => after = Some(*last),
            None => return Ok(()),
        }
    }
}

async fn list(store: &Offline, cid: ContainerId, out: &mut dyn Write) -> Result<()> {
    let mut after: Option<ObjectKey> = None;
    loop {
        let some = store.read(|vos| vos.dump_objects(cid, after.as_ref(), LIST_BATCH)).await?;
        for oid in &some {
            writeln!(out, "{}", oid.0.escape_ascii())?;
        }
        match some.into_iter().last() {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

async fn dump(
    store: &Offline,
    cid: ContainerId,
    oid: &ObjectKey,
    out: &mut dyn Write,
) -> Result<()> {
    let object = store.read(|vos| vos.dump_object(cid, oid)).await?;
    let object = object.ok_or_else(|| anyhow!("no object {}", oid.0.escape_ascii()))?;
    head(&object, out)?;
    for (dkey, akey) in &object.akeys {
        let dump = store.read(|vos| vos.dump_akey(cid, oid, dkey, akey)).await?;
        writeln!(out, "dkey {} akey {}", quoted(dkey), quoted(akey))?;
        versions(&dump, out)?;
    }
    Ok(())
}

fn head(object: &ObjectDump, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "changed {} horizon {}", epoch(object.epoch), object.horizon)?;
    for (at, created) in &object.incarnations {
        let what = if *created { "created" } else { "punched" };
        writeln!(out, "{what} {}", epoch(*at))?;
    }
    for at in &object.retained {
        writeln!(out, "retained {at}")?;
    }
    for p in &object.punches {
        let to = p.to.as_ref().map_or("the end".to_owned(), |to| quoted(to));
        let (dkey, from) = (quoted(&p.dkey), quoted(&p.from));
        writeln!(out, "punched {} dkey {dkey} akeys {from} to {to}", epoch(p.epoch))?;
    }
    Ok(())
}

fn versions(dump: &AkeyDump, out: &mut dyn Write) -> io::Result<()> {
    for (at, version) in &dump.versions {
        let text = match version {
            VersionDump::Value(value) => value_text(value),
            VersionDump::Punched => "punched".to_owned(),
            VersionDump::Grown { to, size } => format!("grown to {to}: size {size}"),
            VersionDump::Set { to, size } => format!("set to {to}: size {size}"),
        };
        writeln!(out, "  {} {text}", epoch(*at))?;
    }
    dump.extents.iter().try_for_each(|e| writeln!(out, "  {}", extent_text(e)))
}

fn value_text(value: &Bytes) -> String {
    let shown = &value[..value.len().min(VALUE_SHOWN_MAX)];
    let more = if shown.len() < value.len() { "..." } else { "" };
    format!("{} bytes {}{more}", value.len(), quoted(shown))
}

fn extent_text(e: &ExtentDump) -> String {
    let death = e.death.map_or("now".to_owned(), epoch);
    let place = match e.place {
        PlaceDump::Inline => "inline".to_owned(),
        PlaceDump::Device { addr, blocks, skip } => {
            let byte = addr.0 * BLOCK_SIZE + u64::from(skip);
            format!("block {} +{blocks} (byte {byte} of the device)", addr.0)
        }
        PlaceDump::Punched => "punched".to_owned(),
        PlaceDump::CutOff => "cut off".to_owned(),
    };
    format!("[{}, {}) {} to {death} {place}", e.offset, e.offset + e.len, epoch(e.birth))
}

fn epoch(epoch: Epoch) -> String {
    format!("{}.{}", epoch.hlc, epoch.minor)
}

fn quoted(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_container(text: &str) -> Result<[u8; 16], String> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
    number.map(u128::to_be_bytes).ok_or_else(|| "not 32 hexadecimal digits".to_owned())
}

/// The inverse of `escape_ascii`; other characters are taken as they are.
fn unescape(text: &str) -> Result<ObjectKey> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        (rest, out) = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits)?;
                let byte =
                    u8::from_str_radix(digits, 16).context("bad \\x in the object's name")?;
                (after, push(out, byte))
            }
            (b'\\', [b't', after @ ..]) => (after, push(out, b'\t')),
            (b'\\', [b'n', after @ ..]) => (after, push(out, b'\n')),
            (b'\\', [b'r', after @ ..]) => (after, push(out, b'\r')),
            (b'\\', [c @ (b'\\' | b'\'' | b'"'), after @ ..]) => (after, push(out, *c)),
            (b'\\', _) => bail!("bad escape in the object's name; copy it from the list"),
            (c, after) => (after, push(out, *c)),
        };
    }
    Ok(ObjectKey(out.into()))
}

fn push(mut out: Vec<u8>, byte: u8) -> Vec<u8> {
    out.push(byte);
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use spirula_store::{Expect, FormatOptions, Options, Store};
    use spirula_vos::{StageError, Tx, TxId};

    use spirula_bio::Device;

    use super::*;

    const CID: [u8; 16] = [7; 16];
    const BYTES: u64 = 24 << 20;

    async fn submit(store: &Store, tx: &Tx) {
        loop {
            match store.submit(tx) {
                Ok(commit) => return commit.await.unwrap(),
                Err(StageError::Missing(pages)) => store.load(pages).await.unwrap(),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// A store with an object of three versions; not closed, so that its WAL counts.
    async fn fill(path: &Path) {
        let device = Device::create(path, Some(BYTES)).unwrap();
        Store::format(&device, &FormatOptions::default()).await.unwrap();
        let options = Options { zero_ahead: false, ..Options::default() };
        let store = Store::open(&device, Expect::default(), options).await.unwrap();
        let (cid, oid) = (ContainerId(CID), ObjectKey::copy_from(b"a\\\xff"));
        let mut tx = Tx::new(1);
        tx.create_container(cid);
        submit(&store, &tx).await;
        for epoch in [10, 20, 30] {
            let mut tx = Tx::new(epoch);
            tx.retain(cid, &oid, &[10]);
            tx.update(cid, &oid, b"d", b"name", Bytes::from(format!("value {epoch}")));
            let data = Bytes::from(vec![epoch as u8; 5000]);
            tx.write(cid, &oid, b"d", b"data", 0, data, None);
            submit(&store, &tx).await;
        }
        let mut tx = Tx::new(40);
        tx.prepare(TxId([1; 16]));
        tx.write(cid, &oid, b"p", b"data", 0, Bytes::from(vec![4; 5000]), None);
        submit(&store, &tx).await;
        let mut tx = Tx::new(41);
        tx.abort_prepared(TxId([2; 16]));
        submit(&store, &tx).await;
    }

    /// A process that a test beside this one starts has our files, and their locks, for a moment.
    async fn print(command: Command) -> Result<(ExitCode, String)> {
        let mut tries = 0..200;
        loop {
            let mut out = Vec::new();
            match execute(command.clone(), &mut out).await {
                Err(e) if e.to_string().contains("in use") && tries.next().is_some() => {
                    spirula_xstream::sleep(std::time::Duration::from_millis(20)).await;
                }
                done => return Ok((done?, String::from_utf8(out)?)),
            }
        }
    }

    fn with_store(test: impl AsyncFnOnce(PathBuf) + 'static) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("block");
        let image = path.clone();
        spirula_xstream::run(Config::new("fill"), async move { fill(&image).await }).unwrap();
        spirula_xstream::run(Config::new("test"), async move { test(path).await }).unwrap();
    }

    #[test]
    fn a_crashed_store_is_shown_and_not_touched() {
        with_store(async |device: PathBuf| {
            let before = std::fs::read(&device).unwrap();
            let (code, text) = print(Command::Check { device: device.clone() }).await.unwrap();
            assert_eq!(code, ExitCode::SUCCESS, "{text}");
            assert!(text.ends_with("the store is sound\n"), "{text}");
            let (_, text) = print(Command::Stat { device: device.clone() }).await.unwrap();
            assert!(text.contains("transaction 6, 6 of them only in the WAL"), "{text}");
            assert!(text.contains(" bytes, 8192.0 for each object"), "{text}");
            assert!(text.contains(&format!("container   {} 1 objects", hex(&CID))), "{text}");
            assert!(text.contains("prepared    1 transactions\n"), "{text}");
            let list = Command::Transactions { device: device.clone() };
            let (_, text) = print(list).await.unwrap();
            let (one, two) = (hex(&[1; 16]), hex(&[2; 16]));
            assert!(text.starts_with(&format!("{one} prepared at 40, horizon 40: 2 blocks, ")));
            let line = format!("  write {} a\\\\\\xff\n", hex(&CID));
            assert!(text.contains(&line), "{line}: {text}");
            assert!(text.ends_with(&format!("{two} aborted\n")), "{text}");
            let dump = |object: Option<&str>| Command::Dump {
                device: device.clone(),
                container: CID,
                object: object.map(str::to_owned),
            };
            let (_, text) = print(dump(None)).await.unwrap();
            assert_eq!(text, "a\\\\\\xff\n");
            let (_, text) = print(dump(Some(text.trim_end()))).await.unwrap();
            for line in ["created 10.1", "retained 10", "30.1 8 bytes \"value 30\""] {
                assert!(text.contains(line), "{line}: {text}");
            }
            assert!(text.contains("10.1 8 bytes \"value 10\"") && !text.contains("value 20"));
            assert!(text.contains("[0, 5000) 10.2 to ") && text.contains("[0, 5000) 30.2 to now"));
            let error = print(dump(Some("b"))).await.unwrap_err();
            assert_eq!(error.to_string(), "no object b");
            assert!(std::fs::read(&device).unwrap() == before, "the device was written to");
        });
    }

    #[test]
    fn damage_is_named() {
        with_store(async |device: PathBuf| {
            let object = Some("a\\\\\\xff".to_owned());
            let dump = Command::Dump { device: device.clone(), container: CID, object };
            let (_, text) = print(dump).await.unwrap();
            let byte = text.split("(byte ").nth(1).and_then(|t| t.split(' ').next()).unwrap();
            let mut image = std::fs::read(&device).unwrap();
            // Block 0: a copy of the superblock. The oldest data: replay has no look at it.
            for (at, problem) in [(100, "superblock"), (byte.parse().unwrap(), "data block")] {
                image[at] ^= 1;
                std::fs::write(&device, &image).unwrap();
                let (code, text) = print(Command::Check { device: device.clone() }).await.unwrap();
                assert_eq!(code, ExitCode::FAILURE);
                assert!(text.contains(problem), "{text}");
                image[at] ^= 1;
            }
        });
    }

    #[test]
    fn names_are_read_as_they_are_printed() {
        for name in [&b"plain"[..], b"\\x41", b"\0\xff\t\n\"'", "\u{e9}".as_bytes()] {
            assert_eq!(unescape(&name.escape_ascii().to_string()).unwrap().0, name);
        }
        assert!(unescape("\\q").is_err() && unescape("\\x4").is_err());
        assert_eq!(parse_container(&hex(&CID)), Ok(CID));
        assert!(parse_container("07").is_err());
    }
}
