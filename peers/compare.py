#!/usr/bin/env python3
"""Heapwright's plans and their peers on the same workloads, side by side in one run.

Each cell is a workload in a heap of a certain size, which is a factor times the smallest heap in which the workload lives;
the table SMALLEST below has those, in bytes, and --measure finds them anew. In each cell all contestants take turns, RUNS
times. The Markdown table has medians and, for each pair, the ratios first / second: below 1, the first is better. CPU time is
that of all threads, in user mode and in the kernel, while the workload runs.

A contestant is a plan of Heapwright (marksweep) or a peer (mmtk-marksweep, boehm, jemalloc, mimalloc, malloc; `peers --list`). Build
both first:

    cargo build --release
    cargo build --release --manifest-path peers/Cargo.toml

Examples:

    peers/compare.py                                            everything; takes hours
    peers/compare.py --only graph --runs 5 --json graph.json    one workload
    peers/compare.py --pairs immix:mmtk-immix,genimmix:mimalloc --factors 1.5,3
    peers/compare.py --pairs mmtk-immix:boehm                   the peers among themselves
    peers/compare.py --only lru --live lru=50m                  with a smallest heap that you know better
    peers/compare.py --measure mmtk-marksweep --only lru        prints the smallest heap
"""
import argparse, json, math, os, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MIB = 1 << 20

# The smallest heaps in bytes at scale 1 with one mutator, found by `--measure mmtk-marksweep`. (fragment
# by mmtk-immix: free lists need twice that, which is what it is about.)
SMALLEST = {
    "gcbench": 85983232,
    "binarytrees": 51380224,
    "mtgcbench": 42991616,
    "graph": 171966464,
    "graphseq": 171966464,
    "lru": 293601280,
    "alloc": 262144,
    "large": 34603008,
    "list": 247463936,
    "fragment": 260046848,
    "churn": 18350080,
    "strings": 25165824,
    "weak": 13369344,
}

# Where the smallest heap is tiny, its multiples say nothing.
LEAST_HEAP = 16 * MIB

PAIRS = [
    "marksweep:mmtk-marksweep", "semispace:mmtk-semispace", "immix:mmtk-immix", "gencopy:mmtk-gencopy",
    "genimmix:mmtk-genimmix", "stickyimmix:mmtk-stickyimmix", "concurrentimmix:mmtk-concurrentimmix",
    "marksweep:boehm", "immix:boehm", "genimmix:boehm", "genimmix:mimalloc", "genimmix:malloc",
]

# Workloads that run with as many mutators as --mutators says; all others have one thread.
THREADED = ("mtgcbench", "churn")


def size(text):
    """Bytes."""
    shift = {"k": 10, "m": 20, "g": 30}.get(text[-1:].lower())
    return int(text[:-1]) << shift if shift is not None else int(text)


def output_of(command, timeout):
    """Standard output, and None or why there is none that counts."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "", f"longer than {timeout:.0f} s"
    return done.stdout, None if done.stdout.strip() else (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]


class Runner:
    """Runs a workload on a contestant, in a process of its own."""

    def __init__(self, options):
        self.options = options
        listed = output_of([options.peers, "--list"], 60)[0] if os.path.exists(options.peers) else ""
        peers, _, workloads = listed.partition("workloads:\n")
        self.peers = {line.strip() for line in peers.splitlines() if line.startswith("  ")}
        self.workloads = [line.split()[0] for line in workloads.splitlines() if line.strip()]

    def command(self, contestant, workload, heap):
        o = self.options
        common = ["--workers", str(o.workers), "--mutators", str(o.mutators), "--scale", str(o.scale), "--seed", str(o.seed)]
        if contestant in self.peers:
            return [o.peers, workload, "--peer", contestant, "--heap", str(heap), *common]
        return [o.heapwright, "bench", workload, "--plan", contestant, "--heap", str(heap), "--json",
                "--timeout", str(math.ceil(o.timeout)), *common]

    def run(self, contestant, workload, heap, timeout=None):
        """What the last line of JSON says; a status is always in it."""
        command = self.command(contestant, workload, heap)
        text, why = output_of(command, timeout or self.options.timeout + 10)
        if why is None:
            try:
                return json.loads(text.strip().splitlines()[-1])
            except ValueError:
                why = text.strip()[-200:]
        return {"workload": workload, "plan": contestant, "status": "failed", "why": why}


def measure(runner, contestant, workload):
    """The smallest heap in which the workload lives, up to 3 %: in which it ends within ten times the time of a large one."""
    free = runner.run(contestant, workload, 8 << 30)
    if free["status"] != "ok":
        return None
    limit = min(free["wall_s"] * 10 + 1, runner.options.timeout)

    def lives(heap):
        return runner.run(contestant, workload, heap, limit)["status"] == "ok"

    high = 4 * MIB
    while not lives(high):
        high *= 2
        if high > 8 << 30:
            return None
    low = high // 2 if high > 4 * MIB else 0
    while high - low > max(high * 0.03, MIB / 4):
        middle = (low + high) // 2
        if middle > 0 and lives(middle):
            high = middle
        else:
            low = middle
    return high


def cpu(r):
    return r["user_s"] + r["sys_s"]


COLUMNS = [  # Title, how it is read, format.
    ("CPU s", cpu, "{:.2f}"),
    ("wall s", lambda r: r["wall_s"], "{:.2f}"),
    ("peak MB", lambda r: r["peak_rss_bytes"] / MIB, "{:.1f}"),
    ("trace ns/object", lambda r: r.get("trace_ns_per_object"), "{:.1f}"),
]


def median(results, read):
    values = [v for v in map(read, results) if v is not None]
    return statistics.median(values) if values else None


def show(value, form):
    return "" if value is None else form.format(value)


def ratio(a, b):
    return a / b if a is not None and b else None


def cell_rows(cell, pairs):
    """The Markdown rows of a cell, and the CPU ratio of each pair in it."""
    rows, ratios = [], {}
    for first, second in pairs:
        sides = [cell["results"].get(first, []), cell["results"].get(second, [])]
        states = [next((r["status"] for r in side if r["status"] != "ok"), "ok" if side else "not run") for side in sides]
        words = [cell["workload"], f"{cell['heap_bytes'] / MIB:.0f} ({cell['factor']:g}x)", f"{first} : {second}"]
        for title, read, form in COLUMNS:
            if any(state != "ok" for state in states):
                words.append(" : ".join(states) if title == "CPU s" else "")
                continue
            a, b = (median(side, read) for side in sides)
            if a is None and b is None:
                words.append("")
                continue
            quotient = ratio(a, b)
            words.append(f"{show(a, form)} : {show(b, form)}" + (f" = **{quotient:.2f}**" if quotient is not None else ""))
            if title == "CPU s" and quotient is not None:
                ratios[(first, second)] = quotient
        rows.append("| " + " | ".join(words) + " |")
    return rows, ratios


def judge(results):
    """Checksums must agree: marks the runs whose checksum is not that of most."""
    ended = [r for runs in results.values() for r in runs if r["status"] == "ok"]
    if not ended:
        return
    sums = [r["checksum"] for r in ended]
    most = max(set(sums), key=sums.count)
    for r in ended:
        if r["checksum"] != most:
            r["status"] = "wrong"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each contestant in each cell (default: 5)")
    parser.add_argument("--only", default="", metavar="W,...", help="only these workloads")
    parser.add_argument("--factors", default="1.5,3", metavar="F,...", help="heaps, times the smallest one (default: 1.5,3)")
    parser.add_argument("--pairs", default=",".join(PAIRS), metavar="A:B,...", help="what is compared (default: %(default)s)")
    parser.add_argument("--live", action="append", default=[], metavar="W=BYTES", help="the smallest heap of a workload; repeats")
    parser.add_argument("--measure", metavar="CONTESTANT", help="find the smallest heaps with this one, print them, and end")
    parser.add_argument("--workers", type=int, default=1, help="threads that collect (default: 1)")
    parser.add_argument("--mutators", type=int, default=1, help="threads that run the workload, where it has several (default: 1)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the amount of work, and the smallest heaps (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed of what is random (default: 1)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds after which a run has failed (default: 300)")
    parser.add_argument("--heapwright", default=os.path.join(ROOT, "target", "release", "heapwright"), metavar="FILE", help="the command")
    parser.add_argument("--peers", default=os.path.join(HERE, "target", "release", "peers"), metavar="FILE", help="the other command")
    parser.add_argument("--json", metavar="FILE", help="write all runs there")
    options = parser.parse_args()

    runner = Runner(options)
    if not runner.peers:
        sys.exit(f"there is no {options.peers} that lists peers: cargo build --release --manifest-path peers/Cargo.toml")
    only = [w for w in options.only.split(",") if w]
    unknown = set(only) - set(runner.workloads)
    if unknown:
        sys.exit(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(runner.workloads)}")
    workloads = only or runner.workloads
    if options.measure:
        for workload in workloads:
            print(f'    "{workload}": {measure(runner, options.measure, workload)},', flush=True)
        return
    pairs = []
    for pair in options.pairs.split(","):
        first, colon, second = pair.partition(":")
        if not (first and colon and second):
            sys.exit(f"--pairs {pair}: two contestants are wanted, like immix:mmtk-immix")
        pairs.append((first, second))
    contestants = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not set(contestants) <= runner.peers and not os.path.exists(options.heapwright):
        sys.exit(f"there is no {options.heapwright}: cargo build --release")
    smallest = {w: n * options.scale for w, n in SMALLEST.items()}
    # Each thread of these has its own data.
    smallest.update({w: smallest[w] * options.mutators for w in THREADED if w in smallest})
    for word in options.live:
        workload, _, bytes_ = word.partition("=")
        smallest[workload] = size(bytes_)
    missing = [w for w in workloads if w not in smallest]
    if missing:
        sys.exit(f"no smallest heap is known for {', '.join(missing)}: --measure finds it, --live takes it")

    cells = []
    begin = time.monotonic()
    for workload in workloads:
        done = set()
        for factor in map(float, options.factors.split(",")):
            heap = max(int(smallest[workload] * factor), LEAST_HEAP) // 4096 * 4096
            if heap in done:
                continue
            done.add(heap)
            cell = {"workload": workload, "factor": factor, "heap_bytes": heap, "results": {name: [] for name in contestants}}
            for turn in range(options.runs):
                for name in contestants:
                    told = f"{workload} {factor:g}x: {turn + 1} of {options.runs}, {name}"
                    print(f"\r{told:<78}", end="", file=sys.stderr, flush=True)
                    runs = cell["results"][name]
                    # What did not work once does not get better.
                    if not runs or runs[-1]["status"] == "ok":
                        runs.append(runner.run(name, workload, heap))
            judge(cell["results"])
            cells.append(cell)
            if options.json:
                with open(options.json, "w") as f:
                    json.dump({"options": vars(options), "cells": cells}, f, indent=1)
    print("\r" + " " * 78 + "\r", end="", file=sys.stderr)

    print("| workload | heap MiB | pair | " + " | ".join(title for title, _, _ in COLUMNS) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    ratios = {}
    for cell in cells:
        rows, found = cell_rows(cell, pairs)
        print("\n".join(rows))
        for pair, quotient in found.items():
            ratios.setdefault(pair, []).append(quotient)
    print()
    for (first, second), list_ in ratios.items():
        mean = statistics.geometric_mean(list_)
        print(f"{first} : {second}: geometric mean of {len(list_)} CPU ratios {mean:.2f}.")
    print(f"\nMedians of {options.runs} runs, interleaved; {options.workers} worker(s), {options.mutators} mutator(s) where the "
          f"workload has several, scale {options.scale:g}; {(time.monotonic() - begin) / 60:.0f} minutes.")
    reasons = {
        f"{cell['workload']} {cell['factor']:g}x on {name}: {r['status']}: {r.get('why')}"
        for cell in cells for name, runs in cell["results"].items() for r in runs if r["status"] not in ("ok", "out-of-memory")
    }
    if reasons:
        sys.exit("\n".join(sorted(reasons)))


main()
