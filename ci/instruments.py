#!/usr/bin/env python3
"""What each instrument costs: CPU time with it over CPU time without.

    ci/instruments.py [--pairs N] [NAME...]
    ci/instruments.py --instructions [NAME...]

Instruments: log (the log line to a file), record (a recording, of which reports and timelines are made), listen (a socket that nobody asks),
watched (the same, asked twice a second for status), dumps (ready to dump, and none is asked for). The profile has a script of its own, ci/profile_cost.py.

Runs each program without any and with each in turn; the table has the medians of the pairs' ratios of CPU time (user + system), with the quartiles.
Programs on libgc: a C program that makes trees, and gcbench on Guile if that is installed; of the embedded machine, binarytrees on immix and
genimmix, for the log line and the recording. With --instructions, the instructions of the C program in user mode instead, one run each
under valgrind, and the profile as well. Builds nothing of ours: cargo build --release first. Needs a C compiler.
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile, threading, time

from profile_cost import GUILE, RELEASE, TREES


class Watcher:
    """Asks a process for its status twice a second."""

    def __init__(self, pid):
        self.going = True
        self.pid = pid
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while self.going:
            time.sleep(0.5)
            if self.going:
                subprocess.run([os.path.join(RELEASE, "heapwright"), "top", "--once", "--json", str(self.pid)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self):
        self.going = False
        self.thread.join()


def cpu_of(command, env, watched):
    """CPU seconds of a program, without what watches it."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execvpe(command[0], command, env)
    watcher = Watcher(pid) if watched else None
    _, status, used = os.wait4(pid, 0)
    if watcher:
        watcher.end()
    if status != 0:
        sys.exit(f"{command[0]}: status {status}")
    return used.ru_utime + used.ru_stime


def instructions(program, env, variables):
    """The table of instructions of a C program, in millions."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, "4"]

    def count(more):
        done = subprocess.run(command, env={**env, **more}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return int(re.search(r"refs:\s+([\d,]+)", done.stderr)[1].replace(",", ""))

    without = count({})
    print(f"| instrument | instructions, millions | ratio |\n|---|---|---|\n| none | {without / 1e6:.0f} | |")
    for name, more in variables.items():
        there = count(more)
        print(f"| {name} | {there / 1e6:.0f} | {there / without:.4f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("names", nargs="*", default=[])
    asked = parser.parse_args()
    work = tempfile.mkdtemp(prefix="heapwright-instruments-")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HEAPWRIGHT_", "GC_", "LD_"))}
    env["LD_LIBRARY_PATH"] = RELEASE
    path = lambda name: os.path.join(work, name)
    variables = {
        "log": {"HEAPWRIGHT_LOG": f"gc,phases={path('log')}"},
        "record": {"HEAPWRIGHT_RECORD": path("record.%p")},
        "listen": {"HEAPWRIGHT_LISTEN": "1"},
        "watched": {"HEAPWRIGHT_LISTEN": "1"},
        "dumps": {"HEAPWRIGHT_DUMP": f"oom={path('heap-%p.hprof')}"},
    }
    if asked.instructions:
        del variables["watched"]
        variables["profile"] = {"HEAPWRIGHT_PROFILE": path("samples")}
    flags = {"log": [f"--log=gc,phases={path('log')}"], "record": ["--record", path("recordings")]}
    wrong = [name for name in asked.names if name not in variables]
    if wrong:
        sys.exit(f"there is no instrument {', '.join(wrong)}; there are {', '.join(variables)}")
    instruments = asked.names or list(variables)

    with open(path("trees.c"), "w") as out:
        out.write(TREES)
    subprocess.run(["cc", "-O2", path("trees.c"), "-o", path("trees"), os.path.join(RELEASE, "libgc.so")], check=True)

    if asked.instructions:
        instructions(path("trees"), env, {name: variables[name] for name in instruments})
        shutil.rmtree(work)
        return

    def on_libgc(command):
        return lambda name: cpu_of(command, {**env, **variables.get(name, {})}, name == "watched")

    def workload(name, plan):
        words = [os.path.join(RELEASE, "heapwright"), "bench", name, "--plan", plan, "--heap", "192m", "--workers", "2", "--scale", "2", "--json"]

        def run(instrument):
            if instrument is not None and instrument not in flags:
                return None
            done = subprocess.run(words + flags.get(instrument, []), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            record = json.loads(done.stdout)
            return record["user_s"] + record["sys_s"]

        return run

    runs = {"C, binary trees": on_libgc([path("trees")])}
    if shutil.which("guile"):
        runs["Guile, binary trees"] = on_libgc(["guile", "--no-auto-compile", "-c", GUILE])
    runs["binarytrees on immix"] = workload("binarytrees", "immix")
    runs["binarytrees on genimmix"] = workload("binarytrees", "genimmix")
    print("| program | instrument | CPU s without | ratio | quartiles |\n|---|---|---|---|---|")
    try:
        for program, run in runs.items():
            run(None)
            for instrument in instruments:
                pairs = []
                for pair in range(asked.pairs):
                    order = [None, instrument] if pair % 2 == 0 else [instrument, None]
                    seconds = {name: run(name) for name in order}
                    if seconds[instrument] is None:
                        break
                    pairs.append((seconds[None], seconds[instrument]))
                if not pairs:
                    continue
                ratios = sorted(b / a for a, b in pairs)
                low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
                print(f"| {program} | {instrument} | {statistics.median(a for a, _ in pairs):.2f} | {middle:.3f} | {low:.3f} to {high:.3f} |", flush=True)
    finally:
        shutil.rmtree(work)


main()
