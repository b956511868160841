#!/usr/bin/env python3
"""Suites of clients on the system's libgc and on ours, compared by the name of each test.

For source trees that Debian does not hand out; give one of the version that is installed:

  by_hand.py guile SOURCE        Guile's test-suite/tests/*.test, each in a process of its own
  by_hand.py crystal SOURCE      Crystal's spec/std_spec.cr, built by a compiler on the same library, and run
  by_hand.py nix SOURCE          Nix's tests/lang
  by_hand.py asymptote SOURCE    Asymptote's tests, by its own Makefile
  by_hand.py macaulay2 SOURCE    Macaulay2's tests/normal/*.m2, each in a process of its own

Exit status 1 if a test passes on the system's library and not on ours; what differs is tried again on both, up to three times, for
tests that depend on timing. Modes: plain, verify (the heap is checked at each collection, two workers), stress (a collection at
every 1,000th allocation), workers1, workers2, workers4.
"""
import argparse, glob, os, re, shutil, subprocess, sys, tempfile
import xml.etree.ElementTree as xml

MODES = {
    "plain": {},
    "verify": {"HEAPWRIGHT_VERIFY": "1", "HEAPWRIGHT_WORKERS": "2"},
    "stress": {"HEAPWRIGHT_STRESS": "1000"},
    "workers1": {"HEAPWRIGHT_WORKERS": "1"},
    "workers2": {"HEAPWRIGHT_WORKERS": "2"},
    "workers4": {"HEAPWRIGHT_WORKERS": "4"},
}
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run(command, env, limit, **more):
    """Exit status (124 if it took longer than `limit` seconds) and what was printed."""
    try:
        done = subprocess.run(command, env=env, timeout=limit, stdin=more.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **more)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return 124, ""


class Guile:
    """A unit is a file of tests."""

    def __init__(self, source, work, limit):
        self.suite, self.work, self.limit = os.path.join(source, "test-suite"), work, limit
        self.units = sorted(os.path.basename(f) for f in glob.glob(f"{self.suite}/tests/*.test"))

    def run(self, unit, env):
        log = os.path.join(self.work, "guile.log")
        if os.path.exists(log):
            os.remove(log)
        env = dict(env, GUILE_AUTO_COMPILE="0", LANG="C.UTF-8")
        status, _ = run(["guile", "--debug", "-L", self.suite, "-e", "main", "-s", f"{self.suite}/guile-test", "--test-suite",
                         f"{self.suite}/tests", "--log-file", log, unit], env, self.limit, cwd=self.work)
        results = {f"{unit} (exit)": "pass" if status == 0 else f"exit {status}"}
        if os.path.exists(log):
            for line in open(log, errors="replace"):
                # The name of a test may occur several times: numbered from the second on.
                if match := re.match(r"(PASS|FAIL|XFAIL|UPASS|UNRESOLVED|UNTESTED|UNSUPPORTED|ERROR): (.*)", line.rstrip()):
                    name, times = f"{unit}: {match[2]}", 1
                    while f"{name} #{times}" in results:
                        times += 1
                    results[f"{name} #{times}"] = "pass" if match[1] in ("PASS", "XFAIL") else match[1].lower()
        return results


class Crystal:
    """One unit: the whole of std_spec, which the compiler builds on the same library."""

    units = ["std_spec"]

    def __init__(self, source, work, limit):
        self.source, self.work, self.limit = source, work, max(limit, 3600)

    def run(self, unit, env):
        config = shutil.which("llvm-config-14") or shutil.which("llvm-config") or "llvm-config"
        env = dict(env, CRYSTAL_PATH=f"lib:{self.source}/src", LLVM_CONFIG=config, TZ="UTC", CRYSTAL_CACHE_DIR=os.path.join(self.work, "cache"))
        ext = os.path.join(self.source, "src/llvm/ext/llvm_ext")
        if not os.path.exists(ext + ".o"):
            flags = subprocess.run([config, "--cxxflags"], capture_output=True, text=True).stdout.split()
            subprocess.run(["g++", "-c", "-o", ext + ".o", ext + ".cc", *flags], check=True)
        program, reports = os.path.join(self.work, "std_spec"), os.path.join(self.work, "reports")
        shutil.rmtree(reports, ignore_errors=True)
        status, said = run(["crystal", "build", "spec/std_spec.cr", "-o", program, "--exclude-warnings", "spec/std"], env, self.limit,
                           cwd=self.source)
        results = {"build": "pass" if status == 0 else f"exit {status}"}
        if status:
            print(said[-2000:], file=sys.stderr)
            return results
        status, _ = run([program, "--junit_output", reports], env, self.limit, cwd=self.source)
        results["run (exit)"] = f"exit {status}"
        for report in glob.glob(f"{reports}/*.xml"):
            for case in xml.parse(report).getroot().iter("testcase"):
                name, times = f'{case.get("classname")}: {case.get("name")}', 1
                while f"{name} #{times}" in results:
                    times += 1
                kind = next((c.tag for c in case if c.tag in ("failure", "error", "skipped")), "pass")
                results[f"{name} #{times}"] = kind
        return results


class Nix:
    """A unit is an expression, each also with a small first heap, so that there are collections."""

    def __init__(self, source, work, limit):
        self.tests, self.work, self.limit = os.path.join(source, "tests"), work, limit
        self.units = sorted(os.path.basename(f)[:-4] for f in glob.glob(f"{self.tests}/lang/*-*-*.nix"))

    def run(self, unit, env):
        results = {}
        for heap in ("", "500000"):
            more = dict(env, TEST_VAR="foo", NIX_REMOTE="dummy://", NIX_STORE_DIR="/nix/store", HOME=self.work)
            if heap:
                more["GC_INITIAL_HEAP_SIZE"] = heap
            results[f"{unit} ({heap or 'default'} heap)"] = self.one(unit, more)
        return results

    def one(self, unit, env):
        file, expected = f"lang/{unit}.nix", f"{self.tests}/lang/{unit}"
        if unit.startswith("parse"):
            with open(f"{self.tests}/{file}", "rb") as text:
                status, _ = run(["nix-instantiate", "--parse", "-"], env, self.limit, cwd=self.tests, stdin=text)
            return "pass" if status == (0 if "okay" in unit else 1) else f"exit {status}"
        if unit.startswith("eval-fail"):
            status, _ = run(["nix-instantiate", "--eval", file], env, self.limit, cwd=self.tests)
            return "pass" if status == 1 else f"exit {status}"
        results = []
        for suffix, flags in ((".exp", []), (".exp.xml", ["--xml", "--no-location"])):
            if os.path.exists(expected + suffix):
                if suffix == ".exp" and os.path.exists(expected + ".flags"):
                    flags = open(expected + ".flags").read().split()
                done = subprocess.run(["nix-instantiate", *flags, "--eval", "--strict", file], cwd=self.tests, capture_output=True,
                                      env=dict(env, NIX_PATH="lang/dir3:lang/dir4"), timeout=self.limit)
                right = done.stdout == open(expected + suffix, "rb").read()
                results.append("pass" if done.returncode == 0 and right else f"exit {done.returncode}" if done.returncode else "wrong")
        return next((r for r in results if r != "pass"), "pass")


class Asymptote:
    """A unit is a directory of tests; a test is a line that its Makefile prints."""

    def __init__(self, source, work, limit):
        self.tests, self.limit = os.path.join(work, "asymptote"), limit
        shutil.copytree(os.path.join(source, "tests"), self.tests)
        makefile = os.path.join(self.tests, "Makefile")
        text = open(makefile).read()
        # The installed program with its own modules, in place of one that was built here.
        open(makefile, "w").write(text.replace("../asy -dir ../base", "asy -dir ."))
        named = re.search(r"^TESTDIRS\s*=\s*(.*)", text, re.M)
        found = sorted(os.path.basename(os.path.dirname(f)) for f in glob.glob(f"{self.tests}/*/"))
        # The directory gc has endless loops, output has files to look at.
        self.units = [u for u in (named[1].split() if named else found) if u not in ("gc", "output", "bench", "cpp-plugins")]

    def run(self, unit, env):
        status, said = run(["make", "-s", unit], env, self.limit, cwd=self.tests)
        results = {f"{unit} (exit)": "pass" if status == 0 else f"exit {status}"}
        for line in said.splitlines():
            if match := re.match(r"(.*?)\.*\s*(PASSED|FAILED)\.?$", line.strip()):
                results[f"{unit}: {match[1]}"] = "pass" if match[2] == "PASSED" else "fail"
        return results


class Macaulay2:
    """A unit is a file; it passes if it ends with 0."""

    def __init__(self, source, work, limit):
        found = [d for d in (f"{source}/M2/Macaulay2/tests/normal", f"{source}/Macaulay2/tests/normal", f"{source}/tests/normal") if os.path.isdir(d)]
        self.tests, self.limit = (found or [source])[0], limit
        self.units = sorted(os.path.basename(f) for f in glob.glob(f"{self.tests}/*.m2"))

    def run(self, unit, env):
        status, _ = run(["M2", "-q", "--silent", "--stop", "-e", f'input "{unit}"; exit 0'], env, self.limit, cwd=self.tests)
        return {unit: "pass" if status == 0 else f"exit {status}"}


SUITES = {"guile": (Guile, "guile"), "crystal": (Crystal, "crystal"), "nix": (Nix, "nix-instantiate"), "asymptote": (Asymptote, "asy"),
          "macaulay2": (Macaulay2, "M2")}


def all_units(suite, env, units, label):
    results = {}
    for at, unit in enumerate(units):
        if sys.stderr.isatty():
            print(f"\r\033[K{label}: {at + 1} of {len(units)}, {unit}", end="", file=sys.stderr, flush=True)
        results[unit] = suite.run(unit, env)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return results


def flat(results):
    return {name: result for unit in results.values() for name, result in unit.items()}


def counts(results):
    kinds = {}
    for result in flat(results).values():
        kinds[result] = kinds.get(result, 0) + 1
    return ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items(), key=lambda k: -k[1])) or "nothing"


def worse(stock, ours):
    """Units, and names of tests, that passed on the system's library and did not on ours. A test that is missing did not pass."""
    return {unit: names for unit in stock
            if (names := [n for n, r in stock[unit].items() if r == "pass" and ours.get(unit, {}).get(n) != "pass"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("source", help="the source tree")
    parser.add_argument("--mode", action="append", choices=MODES, help="may be given several times (default: plain and verify)")
    parser.add_argument("--all-modes", action="store_true", help="every mode")
    parser.add_argument("--only", default="", help="only units whose name contains this")
    parser.add_argument("--limit", type=int, default=600, help="seconds that a unit may take (default: 600)")
    parser.add_argument("--lib", default=os.path.join(ROOT, "target", "release", "libgc.so"), help="our library")
    options = parser.parse_args()
    make, program = SUITES[options.suite]
    if not os.path.exists(options.lib):
        sys.exit(f"there is no {options.lib}: cargo build --release first")
    if not shutil.which(program):
        sys.exit(f"{program} is not installed")
    source = os.path.abspath(options.source)
    if not os.path.isdir(source):
        sys.exit(f"{source} is no directory")
    work = tempfile.mkdtemp()
    failed = False
    try:
        os.symlink(os.path.abspath(options.lib), os.path.join(work, "libgc.so.1"))
        suite = make(source, work, options.limit)
        units = [u for u in suite.units if options.only in u]
        if not units:
            sys.exit(f"there are no tests of {options.suite} in {source}")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HEAPWRIGHT_", "GC_", "LD_"))}
        stock = all_units(suite, clean, units, "the system's library")
        print(f"the system's library: {counts(stock)}", flush=True)
        for mode in list(MODES) if options.all_modes else options.mode or ["plain", "verify"]:
            env = dict(clean, LD_LIBRARY_PATH=work, **MODES[mode])
            ours = all_units(suite, env, units, f"ours, {mode}")
            print(f"ours, {mode}: {counts(ours)}", flush=True)
            better = worse(ours, stock)
            if better:
                print("  passes on ours only: " + "; ".join(n for names in better.values() for n in names))
            left = worse(stock, ours)
            for _ in range(3):
                if not left:
                    break
                again_stock = all_units(suite, clean, left, "again, the system's library")
                again_ours = all_units(suite, env, left, f"again, ours, {mode}")
                still = worse(again_stock, again_ours)
                left = {u: both for u, names in left.items() if (both := [n for n in names if n in still.get(u, [])])}
            for names in left.values():
                for name in names:
                    failed = True
                    print(f"  FAILED on ours ({mode}) and not on the system's library: {name}")
    finally:
        shutil.rmtree(work)
    print("something passes on the system's library and fails on ours" if failed else "nothing that passes on the system's library fails on ours")
    sys.exit(failed)


main()
