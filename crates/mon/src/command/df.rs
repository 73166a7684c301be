//! `df`: space by device class and by pool, from the manager's statistics.

use spirula_maps::PgPool;
use spirula_wire::types::{PoolStat, StoreStatfs};

use super::{Answer, Args, Context, Format, Outcome};
use crate::json::Json;
use crate::obj;
use crate::text::{Align, TextTable, bytes_iec, count_si};

pub(super) fn df(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let detail = args.str_opt("detail")? == Some("detail");
    let usages: Vec<Usage> = usages(ctx);
    if ctx.format == Format::Plain {
        let pools = pools_table(&usages, detail);
        return Ok(Answer::text(format!(
            "--- RAW STORAGE ---\n{} \n--- POOLS ---\n{pools}",
            raw_table(ctx)
        )));
    }
    let digest = &ctx.live.digest;
    let classes =
        digest.osd_sum_by_class.iter().map(|(name, s)| (name.clone(), statfs_json(&s.statfs)));
    let json = obj! {
        "stats" => statfs_json(&digest.osd_sum.statfs)
            .with("num_osds", digest.osd_sum.num_osds)
            .with("num_per_pool_osds", digest.osd_sum.num_per_pool_osds)
            .with("num_per_pool_omap_osds", digest.osd_sum.num_per_pool_omap_osds),
        "stats_by_class" => Json::obj(classes),
        "pools" => usages.iter().map(|u| u.json(detail)).collect::<Vec<_>>(),
    };
    Ok(ctx.json_nl(&json))
}

fn used_ratio(statfs: &StoreStatfs) -> f32 {
    if statfs.total == 0 { 0.0 } else { (statfs.used_raw() as f64 / statfs.total as f64) as f32 }
}

fn statfs_json(statfs: &StoreStatfs) -> Json {
    obj! {
        "total_bytes" => statfs.total,
        "total_avail_bytes" => statfs.available,
        "total_used_bytes" => statfs.used_raw().saturating_sub(statfs.internally_reserved),
        "total_used_raw_bytes" => statfs.used_raw(),
        "total_used_raw_ratio" => used_ratio(statfs),
    }
}

/// Ceph's `percentify`: of a fraction times hundred.
fn percent(fraction: f32) -> String {
    let percent = fraction * 100.0;
    if percent < 0.01 { "0".into() } else { format!("{percent:.2}") }
}

fn raw_table(ctx: &Context<'_>) -> String {
    let mut table = TextTable::default();
    table.column("CLASS", Align::Left, Align::Left);
    for heading in ["SIZE", "AVAIL", "USED", "RAW USED", "%RAW USED"] {
        table.column(heading, Align::Right, Align::Right);
    }
    let digest = &ctx.live.digest;
    let classes = digest.osd_sum_by_class.iter().map(|(name, s)| (name.as_str(), &s.statfs));
    for (name, s) in classes.chain([("TOTAL", &digest.osd_sum.statfs)]) {
        table.row(vec![
            name.to_owned(),
            bytes_iec(s.total),
            bytes_iec(s.available),
            bytes_iec(s.used_raw().saturating_sub(s.internally_reserved)),
            bytes_iec(s.used_raw()),
            percent(used_ratio(s)),
        ]);
    }
    table.render()
}

/// What one pool holds and could hold.
struct Usage {
    id: i64,
    name: String,
    pool: PgPool,
    stat: PoolStat,
    /// Bytes free for the pool's rule, all copies together.
    avail_raw: u64,
}

fn usages(ctx: &Context<'_>) -> Vec<Usage> {
    let (map, digest) = (ctx.state.osd.map(), &ctx.live.digest);
    let one = |(&id, pool): (&i64, &PgPool)| Usage {
        id,
        name: map.pool_name(id).unwrap_or_default().to_owned(),
        pool: pool.clone(),
        stat: i32::try_from(id)
            .ok()
            .and_then(|id| digest.pg_pool_sum.get(&id))
            .cloned()
            .unwrap_or_default(),
        avail_raw: digest
            .avail_space_by_rule
            .get(&i32::from(pool.crush_rule))
            .map_or(0, |b| (*b).max(0) as u64),
    };
    map.pools.iter().map(one).collect()
}

impl Usage {
    fn copies(&self) -> f64 {
        f64::from(self.pool.size.max(1))
    }

    fn used_data(&self) -> u64 {
        self.stat.store_stats.allocated.max(0) as u64
    }

    fn used_omap(&self) -> u64 {
        self.stat.store_stats.omap_allocated.max(0) as u64
    }

    fn used(&self) -> u64 {
        self.used_data() + self.used_omap()
    }

    fn stored_data(&self) -> u64 {
        (self.stat.store_stats.data_stored.max(0) as f64 / self.copies()) as u64
    }

    fn stored_omap(&self) -> u64 {
        (self.used_omap() as f64 / self.copies()) as u64
    }

    fn stored(&self) -> u64 {
        self.stored_data() + self.stored_omap()
    }

    fn objects(&self) -> u64 {
        self.stat.stats.sum.num_objects.max(0) as u64
    }

    fn max_avail(&self) -> u64 {
        (self.avail_raw as f64 / self.copies()) as u64
    }

    fn fraction(&self) -> f32 {
        let used = self.used() as f64;
        if self.avail_raw > 0 {
            (used / (used + self.avail_raw as f64)) as f32
        } else {
            f32::from(used > 0.0)
        }
    }

    fn json(&self, detail: bool) -> Json {
        let mut stats = obj! { "stored" => self.stored() };
        if detail {
            stats = stats
                .with("stored_data", self.stored_data())
                .with("stored_omap", self.stored_omap());
        }
        stats = stats
            .with("objects", self.objects())
            .with("kb_used", self.used().div_ceil(1024))
            .with("bytes_used", self.used());
        if detail {
            stats = stats
                .with("data_bytes_used", self.used_data())
                .with("omap_bytes_used", self.used_omap());
        }
        stats = stats.with("percent_used", self.fraction()).with("max_avail", self.max_avail());
        if detail {
            let (sum, store) = (&self.stat.stats.sum, &self.stat.store_stats);
            stats = stats
                .with("quota_objects", self.pool.quota_max_objects)
                .with("quota_bytes", self.pool.quota_max_bytes)
                .with("dirty", sum.num_objects_dirty)
                .with("rd", sum.num_rd)
                .with("rd_bytes", sum.num_rd_kb.saturating_mul(1024))
                .with("wr", sum.num_wr)
                .with("wr_bytes", sum.num_wr_kb.saturating_mul(1024))
                .with("compress_bytes_used", store.data_compressed_allocated)
                .with("compress_under_bytes", store.data_compressed_original)
                .with("stored_raw", store.data_stored)
                .with("avail_raw", self.avail_raw);
        }
        obj! { "name" => &self.name, "id" => self.id, "stats" => stats }
    }

    fn cells(&self, detail: bool) -> Vec<String> {
        let mut cells = vec![self.name.clone(), self.id.to_string(), self.pool.pg_num.to_string()];
        cells.push(bytes_iec(self.stored()));
        if detail {
            cells.extend([bytes_iec(self.stored_data()), bytes_iec(self.stored_omap())]);
        }
        cells.extend([count_si(self.objects()), bytes_iec(self.used())]);
        if detail {
            cells.extend([bytes_iec(self.used_data()), bytes_iec(self.used_omap())]);
        }
        cells.extend([percent(self.fraction()), bytes_iec(self.max_avail())]);
        if detail {
            let quota =
                |n: u64, show: fn(u64) -> String| if n == 0 { "N/A".to_owned() } else { show(n) };
            let store = &self.stat.store_stats;
            cells.extend([
                quota(self.pool.quota_max_objects, count_si),
                quota(self.pool.quota_max_bytes, bytes_iec),
                // Only a cache tier has dirty objects.
                "N/A".to_owned(),
                bytes_iec(store.data_compressed_allocated.max(0) as u64),
                bytes_iec(store.data_compressed_original.max(0) as u64),
            ]);
        }
        cells
    }
}

fn pools_table(usages: &[Usage], detail: bool) -> String {
    let mut table = TextTable::default();
    table.column("POOL", Align::Left, Align::Left);
    let mut right = |headings: &[&str]| {
        for heading in headings {
            table.column(heading, Align::Right, Align::Right);
        }
    };
    right(&["ID", "PGS", "STORED"]);
    if detail {
        right(&["(DATA)", "(OMAP)"]);
    }
    right(&["OBJECTS", "USED"]);
    if detail {
        right(&["(DATA)", "(OMAP)"]);
    }
    right(&["%USED", "MAX AVAIL"]);
    if detail {
        right(&["QUOTA OBJECTS", "QUOTA BYTES", "DIRTY", "USED COMPR", "UNDER COMPR"]);
    }
    for usage in usages {
        table.row(usage.cells(detail));
    }
    table.render()
}
