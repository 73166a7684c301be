//! A real Ceph cluster on loopback from Debian's packages: the peer to compare with and to measure
//! against. One mon, one mgr, N BlueStore OSDs on files, cephx on, pools of size 1.
//!
//! Invariant: daemons run in the foreground as children and are ended by their own handles when the
//! value is dropped; nothing is found or ended by name.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::packages;

const START_SECONDS_MAX: u64 = 60;
const DEVICE_BYTES: u64 = 10 << 30;

/// A running real cluster; its daemons end with this value.
pub(crate) struct RealCeph {
    dir: PathBuf,
    daemons: Vec<(String, Child)>,
    /// From the first daemon to all PGs active and the first object stored.
    pub(crate) start_up: Duration,
}

impl RealCeph {
    pub(crate) fn start(dir: &Path, osds: u32, port: u16) -> Result<Self> {
        packages::ensure(packages::GATE)?;
        packages::ensure(packages::REAL_CEPH)?;
        for sub in ["mon", "mgr", "run", "out"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let mut this = Self { dir: dir.into(), daemons: Vec::new(), start_up: Duration::ZERO };
        this.write_conf(port)?;
        this.mkfs_mon(port)?;
        let begin = Instant::now();
        this.spawn("mon.a", "ceph-mon", "a")?;
        this.spawn("mgr.x", "ceph-mgr", "x")?;
        for id in 0..osds {
            this.add_osd(id)?;
        }
        this.wait_up(osds)?;
        this.ceph(&["osd", "pool", "create", "rbd", "32"])?;
        this.ceph(&["osd", "pool", "application", "enable", "rbd", "rbd"])?;
        this.tool("rados", &["-p", "rbd", "put", "first", "/etc/hostname"])?;
        this.start_up = begin.elapsed();
        Ok(this)
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.dir.join("ceph.conf")
    }

    /// `(name, pid)` of every daemon.
    pub(crate) fn pids(&self) -> Vec<(String, u32)> {
        self.daemons.iter().map(|(name, child)| (name.clone(), child.id())).collect()
    }

    /// Ends an OSD without a warning.
    pub(crate) fn kill_osd(&mut self, id: u32) -> Result<()> {
        let name = format!("osd.{id}");
        let at = self.daemons.iter().position(|(known, _)| *known == name);
        let (_, mut osd) = self.daemons.remove(at.with_context(|| format!("{name} runs not"))?);
        osd.kill()?;
        osd.wait()?;
        Ok(())
    }

    /// Starts an OSD that was killed.
    pub(crate) fn restart_osd(&mut self, id: u32) -> Result<()> {
        self.spawn(&format!("osd.{id}"), "ceph-osd", &id.to_string())
    }

    fn write_conf(&self, port: u16) -> Result<()> {
        let d = self.dir.display();
        let fsid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let conf = format!(
            "[global]\nfsid = {}\nmon host = [v2:127.0.0.1:{port}]\npublic addr = 127.0.0.1\n\
             ms bind ipv6 = false\nrun dir = {d}/run\nadmin socket =\nlog file = {d}/out/$name.log\n\
             keyring = {d}/keyring\nosd pool default size = 1\nosd pool default min size = 1\n\
             osd pool default pg num = 32\nosd pool default pgp num = 32\n\
             osd pool default pg autoscale mode = off\nosd crush chooseleaf type = 0\n\
             osd memory target = 2147483648\nbluestore block size = {DEVICE_BYTES}\n\
             mon allow pool size one = true\nmon allow pool delete = true\n\
             mon warn on pool no redundancy = false\nmon data avail warn = 1\nmon data avail crit = 1\n\
             mgr initial modules =\n[mon.a]\nmon data = {d}/mon/a\n[mgr.x]\nmgr data = {d}/mgr/x\n\
             [osd]\nosd data = {d}/osd/$id\n",
            fsid.trim()
        );
        std::fs::write(self.conf(), conf).context("ceph.conf of the real cluster")
    }

    fn mkfs_mon(&self, port: u16) -> Result<()> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let (keyring, monmap) = (path("keyring"), path("monmap"));
        let fsid = self.conf_value("fsid")?;
        let addr = format!("[v2:127.0.0.1:{port}]");
        let all = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        self.tool(
            "ceph-authtool",
            &["--create-keyring", &keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"],
        )?;
        self.tool(
            "ceph-authtool",
            &[&[&keyring, "--gen-key", "-n", "client.admin"][..], &all].concat(),
        )?;
        self.tool("ceph-authtool", &[&[&keyring, "--gen-key", "-n", "mgr.x"][..], &all].concat())?;
        self.tool(
            "monmaptool",
            &["--create", "--clobber", "--fsid", &fsid, "--addv", "a", &addr, &monmap],
        )?;
        std::fs::create_dir_all(self.dir.join("mgr/x"))?;
        self.tool("ceph-mon", &["-i", "a", "--mkfs", "--monmap", &monmap, "--keyring", &keyring])
    }

    fn add_osd(&mut self, id: u32) -> Result<()> {
        let name = id.to_string();
        std::fs::create_dir_all(self.dir.join("osd").join(&name))?;
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        let key = self.read("ceph-authtool", &["--gen-print-key"])?.trim().to_owned();
        let secret = self.dir.join(format!("osd.{id}.json"));
        std::fs::write(&secret, format!("{{\"cephx_secret\": \"{key}\"}}"))?;
        self.ceph(&["osd", "new", &uuid, "-i", &secret.display().to_string()])?;
        self.tool("ceph-osd", &["-i", &name, "--mkfs", "--key", &key, "--osd-uuid", &uuid])?;
        let keyring = self.dir.join("keyring");
        let text = std::fs::read_to_string(&keyring)?;
        std::fs::write(&keyring, format!("{text}[osd.{id}]\n\tkey = {key}\n"))?;
        self.spawn(&format!("osd.{id}"), "ceph-osd", &name)
    }

    fn wait_up(&self, osds: u32) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while Instant::now() < deadline {
            let stat = self.read("ceph", &["osd", "stat", "-f", "json"])?;
            let stat: serde_json::Value = serde_json::from_str(&stat)?;
            if stat["num_up_osds"].as_u64() == Some(osds.into()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the real cluster was not up after {START_SECONDS_MAX} s; see {}", self.dir.display())
    }

    fn spawn(&mut self, name: &str, program: &str, id: &str) -> Result<()> {
        let log = std::fs::File::create(self.dir.join("out").join(format!("{name}.out")))?;
        let child = Command::new(program)
            .args(["-f", "-i", id, "-c"])
            .arg(self.conf())
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {program}"))?;
        self.daemons.push((name.into(), child));
        Ok(())
    }

    fn conf_value(&self, key: &str) -> Result<String> {
        let conf = std::fs::read_to_string(self.conf())?;
        let prefix = format!("{key} = ");
        let found = conf.lines().find_map(|l| l.strip_prefix(&prefix));
        Ok(found.context("key absent from ceph.conf")?.to_owned())
    }

    fn ceph(&self, args: &[&str]) -> Result<()> {
        self.tool("ceph", args)
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<()> {
        self.read(program, args).map(drop)
    }

    fn read(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = Command::new(program).args(args).env("CEPH_CONF", self.conf()).output()?;
        if !out.status.success() {
            bail!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

impl Drop for RealCeph {
    fn drop(&mut self) {
        for (_, child) in self.daemons.iter_mut().rev() {
            // Already ended is fine; there is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
