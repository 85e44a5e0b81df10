"""Damage inputs of every kind and look for answers that are not right.

    python benchmarks/fuzz.py [N] [SEED] [KIND,KIND..]      # 20000 inputs of seed 1

Prints each fault that is new by its class and cause, with the number that makes the same input
again (`python benchmarks/fuzz.py --show NUMBER SEED`), and at the end how many inputs had a fault,
by class. Exit code 1 where there was one. Kinds of input, damages and what is right: tests/fuzz.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fuzz"))

from fuzzing.cases import EVERY, case, onnx_is_here  # noqa: E402
from fuzzing.judge import Fault, judged  # noqa: E402


def run(number: int, seed: int, kinds: tuple[str, ...]) -> list[Fault]:
    """The faults of one input."""
    with tempfile.TemporaryDirectory() as folder:
        return judged(case(seed, number, kinds), Path(folder))


def show(number: int, seed: int, kinds: tuple[str, ...]) -> None:
    """Write the files of one input here, and print its command line and its faults."""
    made = case(seed, number, kinds)
    for name, data in made.files.items():
        path = Path(f"fuzz-{seed}-{number}") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"fuzz-{seed}-{number}/:", *(repr(word)[:200] for word in made.args))
    for fault in run(number, seed, kinds):
        print(f"  {fault.kind}: {fault.detail}")


def main(words: list[str]) -> int:
    """Run the inputs; the exit code."""
    single = words[:1] == ["--show"]
    words = words[single:]
    count, seed = (int(word) for word in (words + ["20000", "1"][len(words) :])[:2])
    known = [kind for kind in EVERY if kind != "onnx" or onnx_is_here()]
    kinds = tuple(words[2].split(",")) if len(words) > 2 else tuple(known)
    if single:
        show(count, seed, kinds)
        return 0
    begin, seen, faulty, by_class = time.monotonic(), Counter[Fault](), 0, Counter[str]()
    for number in range(count):
        found = run(number, seed, kinds)
        faulty += bool(found)
        by_class.update({fault.kind for fault in found})
        for fault in set(found):
            seen[fault] += 1
            if seen[fault] == 1:
                print(f"{number}: {fault.kind}: {fault.detail}", flush=True)
    seconds = time.monotonic() - begin
    print(f"{count} inputs of seed {seed} in {seconds:.0f} s: {faulty} with faults")
    for kind, times in by_class.most_common():
        causes = sum(fault.kind == kind for fault in seen)
        print(f"  {kind}: {times} inputs, {causes} causes")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
