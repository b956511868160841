#!/usr/bin/env python3
"""Programs on the system's libgc and on ours, side by side in one run.

Each program runs on both libraries in turn; the table has medians of CPU time (user + system), of peak resident memory
and of pauses, and the ratios ours / stock. Needs guile, crystal and the system's libgc; builds nothing of ours:
cargo build --release first.
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def programs(work):
    """Name -> command; prepares what has to be compiled."""
    table = {}
    p = os.path.join(ROOT, "programs")
    if shutil.which("crystal"):
        for name, args in [("binary_trees", ["18"]), ("gcbench", ["6"]), ("strings", ["2000000"]), ("fibers", ["4000", "200"])]:
            out = os.path.join(work, name)
            subprocess.run(["crystal", "build", "--release", "-o", out, f"{p}/{name}.cr"], check=True, capture_output=True)
            table[f"crystal {name}"] = [out, *args]
        table["crystal compiler"] = ["crystal", "build", "--no-codegen", "-o", os.path.join(work, "x"), f"{p}/strings.cr"]
    if shutil.which("guild"):
        for name, arg in [("gcbench", "5"), ("weak", "2000000")]:
            out = os.path.join(work, name + ".go")
            subprocess.run(["guild", "compile", "-O2", "-o", out, f"{p}/{name}.scm"], check=True, capture_output=True)
            table[f"guile {name}"] = ["guile", "-c", f"(set-program-arguments '(\"x\" \"{arg}\")) (load-compiled \"{out}\")"]
    return table


def run(command, env, log):
    with open(log, "wb") as err:
        child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command[0]} ended with {child.returncode}; see {log}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each program on each library (default: 5)")
    parser.add_argument("--only", default="", help="only programs whose name contains this")
    parser.add_argument("--lib", default=os.path.join(ROOT, "target", "release", "libgc.so"), help="our library")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    if not os.path.exists(options.lib):
        sys.exit(f"there is no {options.lib}: cargo build --release first")
    work = tempfile.mkdtemp()
    try:
        os.symlink(os.path.abspath(options.lib), os.path.join(work, "libgc.so.1"))
        stats = os.path.join(work, "stats")
        rows = []
        for name, command in programs(work).items():
            if options.only not in name:
                continue
            got = {"stock": [], "ours": []}
            for turn in range(options.runs):
                print(f"\r{name}: {turn + 1} of {options.runs}   ", end="", file=sys.stderr, flush=True)
                for side in got:
                    env = {k: v for k, v in os.environ.items() if not k.startswith(("HEAPWRIGHT_", "GC_"))}
                    if side == "ours":
                        shutil.rmtree(stats, ignore_errors=True)
                        os.mkdir(stats)
                        env.update(LD_LIBRARY_PATH=work, HEAPWRIGHT_STATS_DIR=stats)
                    cpu, rss = run(command, env, os.path.join(work, "log"))
                    pause = longest = None
                    if side == "ours":
                        made = [json.load(open(os.path.join(stats, f))) for f in os.listdir(stats)]
                        main_one = max(made, key=lambda m: m["collections"])
                        pause, longest = main_one["pause_ns"]["p50"] / 1e6, main_one["pause_ns"]["max"] / 1e6
                    got[side].append((cpu, rss, pause, longest))
            env = dict(os.environ, GC_PRINT_STATS="1")
            run(command, env, os.path.join(work, "log"))
            text = open(os.path.join(work, "log"), errors="replace").read()
            pauses = [int(a) + int(b) / 1e6 for a, b in re.findall(r"World-stopped marking took (\d+) ms (\d+) ns", text)]
            rows.append({
                "program": name,
                "runs": options.runs,
                "cpu_s": {s: [g[0] for g in got[s]] for s in got},
                "peak_mb": {s: [g[1] for g in got[s]] for s in got},
                "pause_ms": {
                    "stock": [statistics.median(pauses), max(pauses)] if pauses else None,
                    "ours": [statistics.median(g[2] for g in got["ours"]), max(g[3] for g in got["ours"])],
                },
            })
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
        print("| program | CPU s stock | ours | ratio | peak MB stock | ours | ratio | median / longest pause ms stock | ours |")
        print("|---|---|---|---|---|---|---|---|---|")
        for r in rows:
            m = {k: {s: statistics.median(r[k][s]) for s in ("stock", "ours")} for k in ("cpu_s", "peak_mb")}
            p = {s: "-" if not r["pause_ms"][s] else "{:.2f} / {:.2f}".format(*r["pause_ms"][s]) for s in ("stock", "ours")}
            print("| {} | {:.2f} | {:.2f} | {:.2f} | {:.0f} | {:.0f} | {:.2f} | {} | {} |".format(
                r["program"], m["cpu_s"]["stock"], m["cpu_s"]["ours"], m["cpu_s"]["ours"] / m["cpu_s"]["stock"],
                m["peak_mb"]["stock"], m["peak_mb"]["ours"], m["peak_mb"]["ours"] / m["peak_mb"]["stock"], p["stock"], p["ours"]))
        if options.json:
            with open(options.json, "w") as f:
                json.dump(rows, f, indent=1)
    finally:
        shutil.rmtree(work)


main()
