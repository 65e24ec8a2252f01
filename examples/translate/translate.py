"""Translate standard input on a device, line by line, to standard output.

python translate.py BUNDLE.epk [--from en] [--to fr] [--beams 4]
"""

import argparse
import sys
import time
from functools import cache

import edgepack_runtime as er


def main() -> None:
    """Translate until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--from", dest="source", help="language, for models that know several")
    parser.add_argument("--to", dest="target", help="language, for models that know several")
    parser.add_argument("--beams", type=int, help="more are slower, and often better")
    args = parser.parse_args()
    model = er.load(args.bundle)
    wanted = {"src_lang": args.source, "tgt_lang": args.target, "num_beams": args.beams}
    options = {name: value for name, value in wanted.items() if value}

    @cache
    def translated(line: str) -> str:
        return str(model(line, **options)[0]["translation_text"]) if line else ""

    start, count = time.perf_counter(), 0
    for line in sys.stdin:
        print(translated(line.strip()), flush=True)
        count += 1
    seconds = time.perf_counter() - start
    print(f"{count} lines in {seconds:.1f} s on {model.provider}", file=sys.stderr)


main()
