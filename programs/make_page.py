#!/usr/bin/env python3
"""Prints a page of five megabytes, the same each time: make_page.py > big.html"""
import random
random.seed(1)
print("<html><body><h1>Rows</h1>")
size = row = 0
while size < 5_000_000:
    words = " ".join(random.choice(["heap", "mark", "sweep", "<b>root</b>", "&eacute;t&eacute;", "cell"]) for _ in range(12))
    line = f"<p>{row}: {words}</p>" if row % 50 else f"<table border=1><tr><td>{row}<td>{words}</table>"
    print(line)
    size += len(line)
    row += 1
print("</body></html>")
