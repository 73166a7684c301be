//! An engine with a device in memory: a map of blocks. A crash keeps the last checkpoint and replays the
//! records after it.

use std::collections::HashMap;
use std::ops::Bound;
use std::rc::Rc;

use spirula_vos::{
    BLOCK_SIZE, BlockAddr, CheckError, Checker, Config, ContainerId, Cursor, Extent, Keys, Loader,
    PAGE_SIZE, ReadError, Record, ReplayError, Root, StageError, Tx, Vos,
};

use crate::ops::{Content, Items, Objects, State, Value};

const FIRST: u64 = 16;
const END: u64 = 16 + 8 * 1024;

/// An engine with its device.
pub(crate) struct Rig {
    pub(crate) vos: Vos,
    disk: HashMap<u64, Vec<u8>>,
    root: Root,
    /// Records since the last checkpoint.
    log: Vec<Vec<u8>>,
    config: Config,
    uncheckpointed: Vec<spirula_vos::Run>,
}

impl Rig {
    pub(crate) fn new(config: Config) -> Rig {
        let vos = Vos::format(config, FIRST, END, 0);
        let mut rig = Rig {
            vos,
            disk: HashMap::new(),
            root: Root::default(),
            log: Vec::new(),
            config,
            uncheckpointed: Vec::new(),
        };
        rig.checkpoint();
        rig
    }

    pub(crate) fn load(&mut self, pages: &[spirula_vos::PageId]) {
        for &id in pages {
            let Some(addr) = self.vos.location(id) else {
                continue;
            };
            let bytes = read(&self.disk, addr, PAGE_SIZE);
            self.vos.install(id, addr, &bytes).unwrap();
        }
    }

    pub(crate) fn read<T>(&mut self, f: impl Fn(&Vos) -> Result<T, ReadError>) -> T {
        loop {
            match f(&self.vos) {
                Ok(out) => return out,
                Err(ReadError::Missing(pages)) => self.load(&pages),
                Err(e) => panic!("{e}"),
            }
        }
    }

    pub(crate) fn submit(&mut self, tx: &Tx) -> Result<Option<Cursor>, StageError> {
        let staged = loop {
            match self.vos.stage(tx) {
                Ok(staged) => break staged,
                Err(StageError::Missing(pages)) => self.load(&pages),
                Err(e) => return Err(e),
            }
        };
        for write in staged.writes {
            for (i, block) in write.data.chunks(BLOCK_SIZE as usize).enumerate() {
                let mut block = block.to_vec();
                block.resize(BLOCK_SIZE as usize, 0);
                self.disk.insert(write.addr.0 + i as u64, block);
            }
        }
        self.log.push(staged.record);
        self.vos.release(&staged.freed);
        Ok(staged.aggregated)
    }

    pub(crate) fn checkpoint(&mut self) {
        let checkpoint = loop {
            match self.vos.begin_checkpoint() {
                Ok(checkpoint) => break checkpoint,
                Err(StageError::Missing(pages)) => self.load(&pages),
                Err(e) => panic!("{e}"),
            }
        };
        let freed = std::mem::take(&mut self.uncheckpointed);
        for write in &checkpoint.writes {
            let mut bytes = vec![0; PAGE_SIZE];
            write.seal(&mut bytes);
            let (a, b) = bytes.split_at(BLOCK_SIZE as usize);
            self.disk.insert(write.addr.0, a.to_vec());
            self.disk.insert(write.addr.0 + 1, b.to_vec());
        }
        self.root = checkpoint.root.clone();
        let unneeded = self.vos.finish_checkpoint(checkpoint);
        self.vos.release(&unneeded);
        self.vos.release(&freed);
        self.log.clear();
    }

    pub(crate) fn collect(&mut self, budget: usize) {
        match self.vos.collect(budget) {
            Ok(freed) => self.uncheckpointed.extend(freed),
            Err(StageError::Missing(pages)) => self.load(&pages),
            Err(StageError::NoSpace) => self.checkpoint(),
            Err(e) => panic!("{e}"),
        }
    }

    /// Forgets memory and starts from the last checkpoint.
    pub(crate) fn reopen(&mut self) {
        let root = Root::decode(&self.root.encode()).unwrap();
        let mut loader = Loader::new(self.config, root, (FIRST, END)).unwrap();
        for (i, addr) in loader.directories().into_iter().enumerate() {
            loader.directory(i, &read(&self.disk, addr, PAGE_SIZE)).unwrap();
        }
        for (i, addr) in loader.maps().into_iter().enumerate() {
            let page = (addr.0 != 0).then(|| read(&self.disk, addr, PAGE_SIZE));
            loader.map(i, page.as_deref()).unwrap();
        }
        for (i, addr) in loader.space().unwrap().into_iter().enumerate() {
            if addr.0 != 0 {
                loader.group(i, &read(&self.disk, addr, PAGE_SIZE)).unwrap();
            }
        }
        self.vos = loader.finish();
        while let Err(ReadError::Missing(pages)) = self.vos.load_containers() {
            self.load(&pages);
        }
        for record in std::mem::take(&mut self.log) {
            let record = Record::decode(record.into()).unwrap();
            while let Err(e) = self.vos.replay(&record) {
                match e {
                    ReplayError::Stage(StageError::Missing(pages)) => self.load(&pages),
                    e => panic!("{e}"),
                }
            }
        }
        self.uncheckpointed.clear();
        self.checkpoint();
    }

    pub(crate) fn check(&mut self) {
        let mut checker = Checker::new(&self.vos);
        loop {
            match checker.step(&self.vos) {
                Ok(true) => {}
                Ok(false) => break,
                Err(CheckError::Read(ReadError::Missing(pages))) => self.load(&pages),
                Err(e) => panic!("{e}"),
            }
        }
        // Blocks that wait for a checkpoint are not data any more: `aging` accounts for them.
        checker.finish(&self.vos).unwrap();
    }

    pub(crate) fn observe(&mut self, cid: ContainerId) -> State {
        if !self.vos.container_exists(cid) {
            return None;
        }
        let all = Bound::Unbounded;
        let mut objects = Objects::new();
        for oid in self.read(|vos| vos.list_objects(cid, all, None, usize::MAX)) {
            let mut items = Items::new();
            let every = Keys::default();
            for dkey in self.read(|vos| vos.at(u64::MAX).dkeys(cid, &oid, &every, usize::MAX)) {
                let list = self.read(|vos| vos.list_akeys(cid, &oid, &dkey, all, usize::MAX));
                for (akey, value) in list {
                    let size = self.read(|vos| vos.array_size(cid, &oid, &dkey, &akey));
                    let value = match size {
                        None => Value::Single(value),
                        Some(_) => {
                            let found =
                                self.read(|vos| vos.extents(cid, &oid, &dkey, &akey, 0, u64::MAX));
                            Value::Array(Rc::new(
                                found.iter().flat_map(|e| self.bytes(e)).collect(),
                            ))
                        }
                    };
                    items.insert((dkey.to_vec(), akey.to_vec()), value);
                }
            }
            objects.insert(oid.0.to_vec(), items);
        }
        let (from, to) = self.vos.container_range(cid).unwrap();
        Some(Content { objects, from: from.to_vec(), to: to.map(|to| to.to_vec()) })
    }

    pub(crate) fn bytes(&self, extent: &Extent) -> Vec<u8> {
        match extent {
            Extent::Hole { len, .. } => vec![0; *len as usize],
            Extent::Inline { data, .. } => data.to_vec(),
            Extent::Device(d) => {
                let len = (d.block_count() * BLOCK_SIZE) as usize;
                let bytes = read(&self.disk, d.addr, len);
                for (i, block) in bytes.chunks(BLOCK_SIZE as usize).enumerate() {
                    let last = i + 1 == d.crcs.len();
                    let covered = if last { usize::from(d.tail) } else { block.len() };
                    assert_eq!(crc32c::crc32c(&block[..covered]), d.crcs[i], "checksum");
                }
                bytes[usize::from(d.skip)..][..d.len as usize].to_vec()
            }
        }
    }

    pub(crate) fn forget_ended(&mut self) {
        loop {
            match self.vos.forget_ended(u64::MAX, 64) {
                Ok(true) => {}
                Ok(false) => break,
                Err(StageError::Missing(pages)) => self.load(&pages),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// With everything destroyed, forgotten and collected, all space is back.
    pub(crate) fn drain(&mut self, containers: &[ContainerId]) {
        let mut tx = Tx::new(0);
        containers.iter().for_each(|&cid| tx.destroy_container(cid));
        self.submit(&tx).unwrap();
        self.forget_ended();
        while self.vos.has_garbage() {
            self.collect(64);
        }
        self.checkpoint();
        self.checkpoint();
        self.check();
        let s = self.vos.stats();
        assert_eq!((s.data_blocks, s.aging_blocks, s.objects, s.pages), (0, 0, 0, 1));
    }
}

fn read(disk: &HashMap<u64, Vec<u8>>, addr: BlockAddr, len: usize) -> Vec<u8> {
    let blocks = (len as u64).div_ceil(BLOCK_SIZE);
    (addr.0..addr.0 + blocks).flat_map(|b| disk.get(&b).cloned().unwrap_or(vec![0; 4096])).collect()
}
