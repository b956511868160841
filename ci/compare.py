#!/usr/bin/env python3
"""Programs on the system's libgc and on ours, side by side in one run.

Each program runs on both libraries in turn; the table has medians of CPU time (user + system), of wall time, of peak
resident memory and of pauses, and the ratios ours / stock; where `perf` is installed, one more run of each tells the CPU time
that is spent inside the library. Below it, what an empty collection takes, and what the front end
adds to the start of a program. Takes the clients that are installed (guile, crystal, ecl, nix-instantiate, w3m); needs a C compiler and the system's libgc with its headers; builds nothing of
ours: cargo build --release first.
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# Runs a program and writes what it used. A process of its own, since a child's peak memory starts at its parent's.
LAUNCHER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words) {
  struct timespec from, to;
  struct rusage used;
  int status;
  (void)count;
  clock_gettime(CLOCK_MONOTONIC, &from);
  pid_t child = fork();
  if (child == 0) {
    execvp(words[2], words + 2);
    _exit(127);
  }
  wait4(child, &status, 0, &used);
  clock_gettime(CLOCK_MONOTONIC, &to);
  FILE *out = fopen(words[1], "w");
  fprintf(out, "%f %f %ld", used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
          to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9, used.ru_maxrss);
  fclose(out);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
"""


# Collects as often as its argument says, with nothing in the heap.
EMPTY = r"""
#include <gc.h>
#include <stdlib.h>
int main(int count, char **words) {
  GC_INIT();
  for (int n = count > 1 ? atoi(words[1]) : 0; n > 0; n--) GC_gcollect();
}
"""


def small_things(lib, work):
    """Milliseconds: the median pause of an empty collection, stock and ours; what the front end adds to a program's start."""
    empty = compile_c(EMPTY, "empty", work, "-lgc")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HEAPWRIGHT_", "GC_"))}
    run([empty, "1000"], dict(env, GC_PRINT_STATS="1"), work)
    pauses = {"stock": statistics.median(stock_pauses(work))}
    stats = os.path.join(work, "stats-empty")
    os.mkdir(stats)
    run([empty, "1000"], dict(env, LD_LIBRARY_PATH=work, HEAPWRIGHT_STATS_DIR=stats), work)
    made = [json.load(open(os.path.join(stats, f))) for f in os.listdir(stats)]
    pauses["ours"] = made[0]["pause_ns"]["p50"] / 1e6
    front = os.path.join(os.path.dirname(os.path.abspath(lib)), "heapwright")
    if not os.path.exists(front):
        return pauses, None
    added = []
    for _ in range(50):
        bare = run([empty], dict(env, LD_LIBRARY_PATH=work), work)[1]
        added.append((run([front, "run", "--", empty], env, work)[1] - bare) * 1e3)
    return pauses, statistics.median(added)


def compile_c(text, name, work, *flags):
    """The path of the program."""
    source, out = os.path.join(work, name + ".c"), os.path.join(work, name)
    with open(source, "w") as f:
        f.write(text)
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-o", out, source, *flags], check=True)
    return out


def programs(work):
    """Name -> command; prepares what has to be compiled."""
    table = {}
    p = os.path.join(ROOT, "programs")
    if shutil.which("crystal"):
        for name, args in [("binary_trees", ["18"]), ("gcbench", ["6"]), ("strings", ["2000000"]), ("fibers", ["4000", "200"])]:
            out = os.path.join(work, name)
            subprocess.run(["crystal", "build", "--release", "-o", out, f"{p}/{name}.cr"], check=True, capture_output=True)
            table[f"crystal {name}"] = [out, *args]
        # Without the code generator, which is LLVM and does not allocate on the heap.
        front = ["crystal", "build", "--no-codegen", "-o", os.path.join(work, "x")]
        table["crystal compiler, small"] = [*front, f"{p}/strings.cr"]
        table["crystal compiler, large"] = [*front, f"{p}/large.cr"]
    if shutil.which("guild"):
        for name, arg in [("gcbench", "5"), ("weak", "2000000")]:
            out = os.path.join(work, name + ".go")
            subprocess.run(["guild", "compile", "-O2", "-o", out, f"{p}/{name}.scm"], check=True, capture_output=True)
            table[f"guile {name}"] = ["guile", "-c", f"(set-program-arguments '(\"x\" \"{arg}\")) (load-compiled \"{out}\")"]
        large = os.path.join(work, "large.scm")
        with open(large, "w") as f:
            subprocess.run([sys.executable, f"{p}/make_large_scheme.py", "150"], check=True, stdout=f)
        table["guild compile"] = ["guild", "compile", "-O2", "-o", os.path.join(work, "large.go"), large]
    if shutil.which("ecl"):
        out = os.path.join(work, "gcbench.fas")
        subprocess.run(["ecl", "-norc", "-eval", f'(compile-file "{p}/gcbench.lisp" :output-file "{out}")', "-eval", "(ext:quit)"],
                       check=True, capture_output=True)
        table["ecl gcbench"] = ["ecl", "-norc", "-load", out, "-eval", "(main)", "-eval", "(ext:quit)"]
    if shutil.which("nix-instantiate"):
        evaluate = ["nix-instantiate", "--eval", "--strict", "--store", "dummy://", f"{p}/alloc.nix", "--arg", "n"]
        table["nix alloc"] = [*evaluate, "200000"]
        # Without the 384 MB that Nix asks for at its start, which hide most collections.
        table["nix alloc, 4 MB at first"] = ["env", "GC_INITIAL_HEAP_SIZE=4000000", *evaluate, "100000"]
    if shutil.which("w3m"):
        page = os.path.join(work, "page.html")
        with open(page, "w") as f:
            subprocess.run([sys.executable, f"{p}/make_page.py"], check=True, stdout=f)
        table["w3m, 5 MB"] = ["w3m", "-config", "/dev/null", "-T", "text/html", "-dump", page]
    return table


def run(command, env, work):
    """CPU seconds, wall seconds and peak MB of one run; what it wrote to standard error is in the file `log`."""
    log, used = os.path.join(work, "log"), os.path.join(work, "used")
    with open(log, "wb") as err:
        status = subprocess.call([os.path.join(work, "launch"), used, *command], env=env, stdout=subprocess.DEVNULL, stderr=err)
    if status:
        sys.exit(f"{command[0]} ended with {status}: {open(log, errors='replace').read()[-500:]}")
    cpu, wall, peak = open(used).read().split()
    return float(cpu), float(wall), int(peak) / 1024


def share_inside(command, env, work):
    """The share of CPU time inside the library, of one run under perf; None if there is no perf."""
    if not shutil.which("perf"):
        return None
    data = os.path.join(work, "perf.data")
    record = ["perf", "record", "-q", "-o", data, "-e", "cpu-clock", "-F", "1999", "--"]
    try:
        subprocess.run(record + command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        text = subprocess.run(["perf", "report", "-i", data, "--sort", "dso", "--stdio"], capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError:
        return None
    return sum(float(x) for x in re.findall(r"([\d.]+)%\s+libgc\.so", text)) / 100


def stock_pauses(work):
    """Of the last run, which had GC_PRINT_STATS: milliseconds."""
    text = open(os.path.join(work, "log"), errors="replace").read()
    return [int(a) + int(b) / 1e6 for a, b in re.findall(r"World-stopped marking took (\d+) ms (\d+) ns", text)]


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
        compile_c(LAUNCHER, "launch", work)
        rows = []
        for name, command in programs(work).items():
            if options.only not in name:
                continue
            got = {"stock": [], "ours": []}
            inside = {}
            for turn in range(options.runs):
                print(f"\r{name}: {turn + 1} of {options.runs}   ", end="", file=sys.stderr, flush=True)
                for side in got:
                    env = {k: v for k, v in os.environ.items() if not k.startswith(("HEAPWRIGHT_", "GC_"))}
                    env.update(GUILE_AUTO_COMPILE="0", CRYSTAL_CACHE_DIR=os.path.join(work, "cache-" + side))
                    if side == "ours":
                        shutil.rmtree(stats, ignore_errors=True)
                        os.mkdir(stats)
                        env.update(LD_LIBRARY_PATH=work, HEAPWRIGHT_STATS_DIR=stats)
                    if turn == 0:
                        run(command, env, work)  # Fills caches.
                        if side == "ours":
                            shutil.rmtree(stats)
                            os.mkdir(stats)
                    cpu, wall, peak = run(command, env, work)
                    if side == "ours":
                        made = [json.load(open(os.path.join(stats, f))) for f in os.listdir(stats)]
                        main_one = max(made, key=lambda m: m["collections"])
                        pause, longest = main_one["pause_ns"]["p50"] / 1e6, main_one["pause_ns"]["max"] / 1e6
                    else:
                        # In a run of its own: to print costs time.
                        run(command, dict(env, GC_PRINT_STATS="1"), work)
                        pauses = stock_pauses(work) or [0]
                        pause, longest = statistics.median(pauses), max(pauses)
                    got[side].append((cpu, wall, peak, pause, longest))
                    if turn == options.runs - 1:
                        inside[side] = share_inside(command, env, work)
            rows.append({
                "program": name,
                "runs": options.runs,
                "share_inside": inside,
                "cpu_s": {s: [g[0] for g in got[s]] for s in got},
                "wall_s": {s: [g[1] for g in got[s]] for s in got},
                "peak_mb": {s: [g[2] for g in got[s]] for s in got},
                "median_pause_ms": {s: [g[3] for g in got[s]] for s in got},
                "longest_pause_ms": {s: [g[4] for g in got[s]] for s in got},
            })
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
        print("| program | CPU s stock | ours | ratio | wall ratio | inside libgc, s stock | ours | ratio "
              "| peak MB stock | ours | ratio | median / longest pause ms stock | ours |")
        print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
        ratios, inside_ratios = [], []
        for r in rows:
            m = {k: {s: statistics.median(v[s]) for s in v} for k, v in r.items() if isinstance(v, dict) and k != "share_inside"}
            ratio = {k: v["ours"] / v["stock"] for k, v in m.items() if v["stock"]}
            ratios.append(ratio["cpu_s"])
            pause = {s: f"{m['median_pause_ms'][s]:.2f} / {m['longest_pause_ms'][s]:.2f}" for s in ("stock", "ours")}
            part = "| | |"
            if all(r["share_inside"].values()):
                seconds = {s: r["share_inside"][s] * m["cpu_s"][s] for s in ("stock", "ours")}
                inside_ratios.append(seconds["ours"] / seconds["stock"])
                part = "| {:.2f} | {:.2f} | {:.2f}".format(seconds["stock"], seconds["ours"], inside_ratios[-1])
            print("| {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} {} | {:.1f} | {:.1f} | {:.2f} | {} | {} |".format(
                r["program"], m["cpu_s"]["stock"], m["cpu_s"]["ours"], ratio["cpu_s"], ratio["wall_s"], part,
                m["peak_mb"]["stock"], m["peak_mb"]["ours"], ratio["peak_mb"], pause["stock"], pause["ours"]))
        if ratios:
            print(f"\nGeometric mean of the CPU ratios: {statistics.geometric_mean(ratios):.2f}; medians of {options.runs} runs, interleaved.")
            if inside_ratios:
                print(f"Of the time inside the library: {statistics.geometric_mean(inside_ratios):.2f}.")
        if not options.only:
            empty, added = small_things(options.lib, work)
            print(f"Median pause of an empty collection: {empty['stock']:.3f} ms stock, {empty['ours']:.3f} ms ours.")
            if added is not None:
                print(f"The front end adds {added:.1f} ms to the start of a program (median of 50).")
            rows.append({"empty_collection_ms": empty, "front_end_ms": added})
        if options.json:
            with open(options.json, "w") as f:
                json.dump(rows, f, indent=1)
    finally:
        shutil.rmtree(work)


main()
