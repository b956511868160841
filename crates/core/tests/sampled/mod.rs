//! Sampled objects: estimates are right for each site by itself, however sites alternate; and it is the object at hand that is sampled.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use crate::lists::{self, Lists};
use crate::toy::{KEPT, KINDS, LEAF, NODE, Toy, WORDS};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use heapwright::{Builder, Heap, Kind, Options, PlanName, Sample, Sampler, WordHeap};
use std::sync::{Arc, Mutex};

/// What is allocated where.
#[derive(Clone, Copy, Debug)]
struct Site {
    bytes: usize,
    kind: Kind,
    allocated: f64,
    estimated: f64,
    samples: u32,
    /// The variance of the estimate.
    variance: f64,
}

struct Sites {
    mean: AtomicUsize,
    seeds: AtomicU64,
    /// The site that allocates.
    at: AtomicUsize,
    all: Mutex<Vec<Site>>,
}

#[derive(Clone)]
struct Shared(Arc<Sites>);

impl Sampler for Shared {
    fn mean_bytes(&self) -> usize {
        self.0.mean.load(Relaxed)
    }

    fn seed(&self) -> u64 {
        self.0.seeds.fetch_add(1, Relaxed)
    }

    fn sample(&self, sample: Sample) {
        let mut sites = self.0.all.lock().unwrap();
        let site = &mut sites[self.0.at.load(Relaxed)];
        // Size classes are at most a quarter larger, pages at most a page.
        let most = site.bytes
            + (site.bytes / 3).clamp(32, 4096)
            + if site.bytes > 4096 { 4096 } else { 0 };
        assert!(
            (site.bytes..=most).contains(&sample.bytes),
            "{sample:?} at {site:?}"
        );
        site.estimated += sample.weight() * sample.bytes as f64;
        site.samples += 1;
    }
}

impl Shared {
    fn new(mean: usize, seed: u64, sites: &[(usize, Kind)]) -> Self {
        let site = |&(bytes, kind)| Site {
            bytes,
            kind,
            allocated: 0.0,
            estimated: 0.0,
            samples: 0,
            variance: 0.0,
        };
        Self(Arc::new(Sites {
            mean: AtomicUsize::new(mean),
            seeds: AtomicU64::new(seed),
            at: AtomicUsize::new(0),
            all: Mutex::new(sites.iter().map(site).collect()),
        }))
    }

    /// The site that is to allocate: what, and how much.
    fn enter(&self, site: usize) -> (usize, Kind) {
        self.0.at.store(site, Relaxed);
        let site = self.0.all.lock().unwrap()[site];
        (site.bytes, site.kind)
    }

    /// It got an object of so many bytes.
    fn got(&self, site: usize, bytes: usize) {
        let bytes = bytes as f64;
        let mut sites = self.0.all.lock().unwrap();
        let p = -(-bytes / self.mean_bytes() as f64).exp_m1();
        sites[site].allocated += bytes;
        sites[site].variance += bytes * bytes * (1.0 - p) / p;
    }

    fn check(&self, what: &str) {
        let mut chi = 0.0;
        let sites = self.0.all.lock().unwrap();
        for site in sites.iter() {
            let off = (site.estimated - site.allocated) / site.variance.sqrt().max(1.0);
            chi += off * off;
            assert!(off.abs() < 4.5, "{what}: off by {off} sigma: {site:?}");
            assert!(site.samples >= 10, "{what}: {site:?}");
        }
        // Each is about 1 on average; with so many degrees of freedom it is rarely so much.
        let n = sites.len() as f64;
        assert!(
            chi < n + 8.0 * (2.0 * n).sqrt(),
            "{what}: chi square {chi} of {n}"
        );
    }
}

/// In which order sites allocate.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// In turn, which favours whoever comes right behind another's refill, if anything does.
    InTurn,
    /// Dozens of the first, one of each other.
    Mostly,
    AtRandom,
}

fn next(order: Order, step: usize, sites: usize, dice: &mut u64) -> usize {
    match order {
        Order::InTurn => step % sites,
        Order::Mostly => (step % (30 + sites)).saturating_sub(30),
        Order::AtRandom => {
            *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (*dice >> 33) as usize % sites
        }
    }
}

const ORDERS: [Order; 3] = [Order::InTurn, Order::Mostly, Order::AtRandom];

pub fn words_are_sampled_without_bias() {
    let sites = [
        (16, NODE),
        (16, LEAF),
        (48, NODE),
        (2000, NODE),
        (3500, WORDS),
        (30, KEPT),
        (90, Kind(4)),
        (9000, NODE),
    ];
    for (seed, order) in ORDERS.into_iter().enumerate() {
        let sampler = Shared::new(400, seed as u64 * 1000 + more_seeds(), &sites);
        let mut options = Options::default();
        options.set("nursery", "1m").unwrap();
        let mut kinds = KINDS.to_vec();
        kinds.push(KINDS[1]);
        let heap = WordHeap::<Toy>::builder()
            .options(options)
            .kinds(&kinds)
            .sampler(Box::new(sampler.clone()))
            .build(Toy::default())
            .unwrap();
        let mut dice = 7;
        for step in 0..200_000 {
            let site = next(order, step, sites.len(), &mut dice);
            let (bytes, kind) = sampler.enter(site);
            let cell = heap.alloc(&heap.vm().runs, kind, bytes).unwrap();
            let rounded = heap
                .cell(heapwright::WildWord::new(cell.as_usize()))
                .unwrap();
            sampler.got(site, rounded.bytes);
            // Blocks become fragmented: every third small one lives on.
            if step % 3 == 0 && bytes < 100 && step < 60_000 {
                heap.vm().roots.lock().unwrap().push(cell.as_usize());
            }
            if kind == KEPT && step % 2 == 0 {
                heap.free(cell).unwrap();
            }
        }
        assert!(heap.collections() > 5);
        sampler.check(&format!("{order:?}"));
    }
}

pub fn lists_of_cells_are_sampled_without_bias() {
    let sites = [(16, NODE), (64, NODE), (400, NODE)];
    let sampler = Shared::new(2000, 5 + more_seeds(), &sites);
    let heap = WordHeap::<Toy>::builder()
        .kinds(&KINDS)
        .sampler(Box::new(sampler.clone()))
        .build(Toy::default())
        .unwrap();
    for step in 0..3000 {
        let (bytes, kind) = sampler.enter(step % 3);
        let mut list = 0;
        // SAFETY: a local.
        let cells = unsafe { heap.alloc_many(&heap.vm().runs, kind, bytes, &raw mut list) };
        for _ in 0..cells.unwrap() {
            sampler.got(step % 3, heapwright::alloc::Small::of(bytes).bytes());
        }
    }
    sampler.check("lists");
}

pub fn objects_are_sampled_without_bias_on_every_plan() {
    let sites = [16usize, 24, 64, 320, 2000, 7000, 20_000].map(|b| (b, Kind(0)));
    for (number, plan) in PlanName::ALL.into_iter().enumerate() {
        // It gives whole pages to every object.
        let rounds = match plan {
            PlanName::PageProtect => 15_000,
            _ => 40_000,
        };
        let order = ORDERS[number % 3];
        let sampler = Shared::new(400, number as u64 * 100 + more_seeds(), &sites);
        let mut options = Options {
            plan,
            ..Options::default()
        };
        if !matches!(plan, PlanName::NoGc | PlanName::PageProtect) {
            options.set("max", "64m").unwrap();
        }
        let heap = Builder::default()
            .options(options)
            .sampler(Box::new(sampler.clone()))
            .build(Lists)
            .unwrap();
        let mut mutator = heap.attach(vec![0; 64]).unwrap();
        let mut dice = 11;
        for step in 0..rounds {
            let site = next(order, step, sites.len(), &mut dice);
            let (bytes, _) = sampler.enter(site);
            let object = lists::array(&mut mutator, bytes / 8 - 1).unwrap();
            if step % 5 == 0 {
                mutator.thread()[step % 64] = object.to_address().as_usize();
            }
            sampler.got(site, rounded(plan, bytes));
        }
        sampler.check(&format!("{plan} {order:?}"));
    }
}

/// What an object of `bytes` gets.
fn rounded(plan: PlanName, bytes: usize) -> usize {
    let cells = matches!(plan, PlanName::MarkSweep | PlanName::StickyMarkSweep);
    if cells && bytes <= heapwright::alloc::MAX_SMALL {
        let class = heapwright::alloc::Small::of_words(bytes).class();
        heapwright::alloc::CLASSES[class].bytes as usize
    } else {
        bytes
    }
}

pub fn each_thread_has_a_sequence_of_its_own_and_the_rate_may_change() {
    let sites = [(64, Kind(0))];
    let sampler = Shared::new(1 << 20, 3, &sites);
    let options = Options {
        plan: PlanName::Immix,
        ..Options::default()
    };
    let heap = Builder::default()
        .options(options)
        .sampler(Box::new(sampler.clone()))
        .build(Lists)
        .unwrap();
    let objects = 100_000;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut mutator = heap.attach(vec![0; 1]).unwrap();
                for step in 0..objects {
                    // From the next point on.
                    if step == objects / 4 {
                        sampler.0.mean.store(2000, Relaxed);
                    }
                    lists::array(&mut mutator, 7).unwrap();
                }
            });
        }
    });
    let site = sampler.0.all.lock().unwrap()[0];
    let truth = f64::from(3 * objects) * 64.0;
    let ratio = site.estimated / truth;
    // The first points of the three threads are far, and stand for much.
    assert!((0.7..1.6).contains(&ratio), "{ratio} {site:?}");
    assert!(site.samples > 4000, "{site:?}");
}

/// To try others by hand: HEAPWRIGHT_TEST_SEED.
fn more_seeds() -> u64 {
    std::env::var("HEAPWRIGHT_TEST_SEED").map_or(0, |s| s.parse::<u64>().unwrap() * 1_000_000)
}

/// All samples.
#[derive(Clone, Default)]
struct Samples {
    mean: usize,
    seeds: Arc<AtomicU64>,
    all: Arc<Mutex<Vec<Sample>>>,
}

impl Sampler for Samples {
    fn mean_bytes(&self) -> usize {
        self.mean
    }

    fn seed(&self) -> u64 {
        self.seeds.fetch_add(1, Relaxed)
    }

    fn sample(&self, sample: Sample) {
        self.all.lock().unwrap().push(sample);
    }
}

impl Samples {
    /// A heap whose objects are sampled at a mean distance.
    fn of(plan: PlanName, mean: usize) -> (Self, Heap<Lists>) {
        let samples = Self {
            mean,
            seeds: Arc::new(AtomicU64::new(more_seeds() + 1)),
            ..Self::default()
        };
        let options = Options {
            plan,
            ..Options::default()
        };
        let heap = Builder::default()
            .options(options)
            .sampler(Box::new(samples.clone()))
            .build(Lists)
            .unwrap();
        (samples, heap)
    }

    /// Of so many objects, of which each is in the sample by the law of Poisson, the samples tell the right number: within 4.5 times the
    /// standard deviation of the estimate.
    fn check_count(&self, objects: usize, what: &str) {
        let all = self.all.lock().unwrap();
        let bytes = all.first().map_or(0, |sample| sample.bytes);
        assert!(all.iter().all(|sample| sample.bytes == bytes), "{what}");
        let estimate: f64 = all.iter().map(Sample::weight).sum();
        let p = -(-(bytes as f64) / self.mean as f64).exp_m1();
        let sigma = (objects as f64 * (1.0 - p) / p).sqrt();
        let off = (estimate - objects as f64) / sigma;
        assert!(
            off.abs() < 4.5,
            "{what}: off by {off} sigma, {estimate} of {objects}"
        );
        assert!(all.len() > 100, "{what}: {}", all.len());
    }
}

/// Cells are left out between objects that have to lie at a multiple of something: their points are nobody's.
pub fn aligned_objects_are_sampled_without_bias() {
    for plan in [PlanName::MarkSweep, PlanName::Immix] {
        for (bytes, align) in [(24, 32), (24, 64), (40, 128), (96, 1024)] {
            let (samples, heap) = Samples::of(plan, 300);
            let mut mutator = heap.attach(vec![0]).unwrap();
            let objects = 20_000;
            for _ in 0..objects {
                let object = mutator.alloc_aligned(bytes, align, 8).unwrap();
                // SAFETY: a new object of that length.
                unsafe { object.to_address().store(bytes / 8 - 1) };
            }
            samples.check_count(objects, &format!("{plan}, {bytes} at {align}"));
        }
    }
}

/// Mutators that live so shortly that most have no point at all.
pub fn mutators_that_come_and_go_are_sampled_without_bias() {
    for plan in PlanName::ALL {
        let each = if plan == PlanName::PageProtect { 2 } else { 9 };
        let (samples, heap) = Samples::of(plan, 2000);
        for _ in 0..3000 {
            let mut mutator = heap.attach(vec![0]).unwrap();
            for _ in 0..each {
                lists::array(&mut mutator, 7).unwrap();
            }
        }
        samples.check_count(3000 * each, &format!("{plan}"));
    }
}

/// Most stretches of memory that a mutator is handed have no point.
pub fn points_that_are_far_from_each_other_are_not_lost() {
    for plan in PlanName::ALL {
        if plan == PlanName::PageProtect {
            continue;
        }
        let (samples, heap) = Samples::of(plan, 50_000);
        let mut mutator = heap.attach(vec![0]).unwrap();
        for _ in 0..40_000 {
            lists::array(&mut mutator, 31).unwrap();
        }
        samples.check_count(40_000, &format!("{plan}"));
    }
}

/// Where points are so close to each other that one lies in each object, each is told once, also when its mutator detaches.
pub fn each_object_is_told_once() {
    for plan in PlanName::ALL {
        let (samples, heap) = Samples::of(plan, 1);
        let mut told = 0;
        let mut dice = 3;
        for _ in 0..20 {
            let mut mutator = heap.attach(vec![0]).unwrap();
            for step in 0..40 {
                let words = [3, 5, 30, 700, 6000][next(Order::AtRandom, step, 5, &mut dice)];
                lists::array(&mut mutator, words).unwrap();
                told += 1;
                let all = samples.all.lock().unwrap();
                assert_eq!(all.len(), told, "{plan}");
                assert_eq!(all[told - 1].bytes, rounded(plan, 8 + words * 8), "{plan}");
            }
            if plan != PlanName::NoGc {
                mutator.collect();
            }
            drop(mutator);
            assert_eq!(samples.all.lock().unwrap().len(), told, "{plan}");
        }
    }
}
