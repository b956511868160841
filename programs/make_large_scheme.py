#!/usr/bin/env python3
"""Writes a large Scheme module, for `guild compile`. Usage: make_large_scheme.py [DEFINITIONS] > large.scm

The text depends on the number alone. It has what a compiler works on: closures, named lets, pattern matching by
macros, records, quasi-quotations, long literals, and calls between all of them.
"""

import sys


class Numbers:
    """A small generator of our own, so that every version of Python writes the same text."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def definition(i, r):
    callee = f"f{r.below(i)}" if i else "list"
    shape = i % 6
    if shape == 0:
        body = f"(let loop ((k n) (acc '()))\n    (if (<= k {r.below(9)}) (reverse acc)\n        (loop (- k 1) (cons ({callee} (quotient k 2)) acc))))"
    elif shape == 1:
        cases = "\n    ".join(f"(({160 * j + r.below(80)} {160 * j + 80 + r.below(80)}) '(case {j} of {i}))" for j in range(6))
        body = f"(case (modulo (* n {r.below(97) + 3}) 1000)\n    {cases}\n    (else ({callee} (quotient n 3))))"
    elif shape == 2:
        body = (
            f"(let* ((a (make-item n {i} \"item-{i}\")) (b (item-value a)))\n"
            f"    (when-positive b (set-item-value! a (+ b {r.below(50)})))\n"
            f"    (map (lambda (x) (+ x (item-value a))) (iota (modulo (abs b) 7))))"
        )
    elif shape == 3:
        body = f"`(node ,n (left ,({callee} (quotient n 2))) (right ,@(map (lambda (x) (* x {r.below(9)})) (list 1 2 3)))\n    \"{'text ' * r.below(12)}\")"
    elif shape == 4:
        body = f"(define (inner a b) (if (> a b) (- a b) (+ (* a {r.below(7)}) b)))\n  (call-with-values (lambda () (values n (inner n {r.below(90)})))\n    (lambda (x y) (do ((j 0 (+ j 1)) (s 0 (+ s (inner j y)))) ((= j 3) (list x s)))))"
    else:
        body = f"(swap-args ((x ({callee} (quotient n 4))) (y (lambda (z) (cons z '{list_of(r)}))))\n    (y x))"
    return f"(define (f{i} n)\n  {body})\n"


def list_of(r):
    return "(" + " ".join(str(r.below(10000)) for _ in range(8)) + ")"


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    r = Numbers(count)
    out = [
        "(define-module (large) #:use-module (srfi srfi-1) #:use-module (srfi srfi-9) #:export (main))\n",
        "(define-record-type item (make-item value number name) item?\n"
        "  (value item-value set-item-value!) (number item-number) (name item-name))\n",
        "(define-syntax when-positive (syntax-rules () ((_ x body ...) (if (> x 0) (begin body ...) #f))))\n",
        "(define-syntax swap-args (syntax-rules () ((_ ((a x) (b y)) body ...) (let ((b y) (a x)) body ...))))\n",
    ]
    out += [definition(i, r) for i in range(count)]
    out.append(f"(define (main n) (list {' '.join(f'(f{i} n)' for i in range(0, count, 8))}))\n")
    sys.stdout.write("".join(out))


if __name__ == "__main__":
    main()
