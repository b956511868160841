#!/usr/bin/env python3
"""What an allocation profile costs at the default rate: CPU time with it over CPU time without.

    ci/profile_cost.py [--pairs N]

Runs each program with and without in turn; the table has the medians of the CPU time (user + system) and the median of the pairs'
ratios, with the quartiles of those. Programs on libgc: a C program that makes binary trees and one that makes strings, and gcbench on
Guile if that is installed; workloads of the embedded machine: binarytrees and strings. Builds nothing of ours: cargo build --release
first. Needs a C compiler.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELEASE = os.path.join(ROOT, "target", "release")

TREES = r"""
#include <stdio.h>
#include <stdlib.h>
void *GC_malloc(size_t);
typedef struct node { struct node *left, *right; } node;
static node *make(int depth) {
  node *n = GC_malloc(sizeof(node));
  if (depth > 0) { n->left = make(depth - 1); n->right = make(depth - 1); }
  return n;
}
static int count(node *n) { return n->left ? 1 + count(n->left) + count(n->right) : 1; }
int main(int argc, char **argv) {
  int depth = 18, more = argc > 1 ? atoi(argv[1]) : 6;
  long total = 0;
  node *kept = make(depth);
  for (int d = 4; d <= depth; d += 4)
    for (int i = 0; i < 1 << (depth - d + more); i++) total += count(make(d));
  printf("%ld %d\n", total, count(kept));
}
"""

STRINGS = r"""
#include <stdio.h>
#include <string.h>
void *GC_malloc(size_t);
void *GC_malloc_atomic(size_t);
int main(void) {
  char **table = GC_malloc(50000 * sizeof(char *));
  unsigned long seed = 1, sum = 0;
  for (int i = 0; i < 20000000; i++) {
    seed = seed * 6364136223846793005UL + 1442695040888963407UL;
    size_t length = 16 + (seed >> 40) % 200;
    char *text = GC_malloc_atomic(length);
    memset(text, (int)(seed >> 33), length);
    table[(seed >> 20) % 50000] = text;
    sum += (unsigned char)text[length / 2];
  }
  printf("%lu\n", sum);
}
"""

GUILE = "(define (make n) (if (= n 0) '() (cons (make (- n 1)) (make (- n 1))))) (do ((i 0 (+ i 1))) ((= i 150)) (make 16))"


def cpu_of(command, env):
    """CPU seconds of a program and what it starts."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execvpe(command[0], command, env)
    _, status, used = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{command[0]}: status {status}")
    return used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    work = tempfile.mkdtemp(prefix="heapwright-cost-")
    raw = os.path.join(work, "samples")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HEAPWRIGHT_", "GC_", "LD_"))}
    env["LD_LIBRARY_PATH"] = RELEASE

    def compiled(name, text):
        source, program = os.path.join(work, name + ".c"), os.path.join(work, name)
        with open(source, "w") as out:
            out.write(text)
        library = os.path.join(RELEASE, "libgc.so")
        subprocess.run(["cc", "-O2", source, "-o", program, library], check=True)
        return [program]

    def on_libgc(command):
        with_profile = dict(env, HEAPWRIGHT_PROFILE=raw)
        return lambda on: cpu_of(command, with_profile if on else env)

    def workload(name, plan):
        words = [os.path.join(RELEASE, "heapwright"), "bench", name, "--plan", plan, "--heap", "256m", "--workers", "1", "--scale", "2", "--json"]

        def run(on):
            more = ["--profile", os.path.join(work, "out.pb.gz")] if on else []
            done = subprocess.run(words + more, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            record = json.loads(done.stdout)
            return record["user_s"] + record["sys_s"]

        return run

    runs = {
        "C, binary trees": on_libgc(compiled("trees", TREES)),
        "C, strings": on_libgc(compiled("strings", STRINGS)),
        "binarytrees on immix": workload("binarytrees", "immix"),
        "strings on immix": workload("strings", "immix"),
        "strings on marksweep": workload("strings", "marksweep"),
    }
    if shutil.which("guile"):
        runs["Guile, binary trees"] = on_libgc(["guile", "--no-auto-compile", "-c", GUILE])
    print(f"{'':24} without s  with s   ratio  quartiles     ({pairs} pairs)")
    try:
        for name, run in runs.items():
            run(False)
            both = []
            for pair in range(pairs):
                # Who comes first takes turns, too.
                order = [False, True] if pair % 2 == 0 else [True, False]
                times = {on: run(on) for on in order}
                both.append((times[False], times[True]))
            ratios = [on / off for off, on in both]
            low, _, high = statistics.quantiles(ratios, n=4)
            off, on = (statistics.median(column) for column in zip(*both))
            print(f"{name:24} {off:9.3f} {on:7.3f} {statistics.median(ratios):7.3f}  {low:.3f} {high:.3f}", flush=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
