"""linear for 1 to 24 rows of x: what a row more costs, and how far that is from the least.

    python benches/rows.py [--formats "4 bit" bfloat16] [--rows 1 2 3 4] [--cpu-time] [--json FILE]

Weights have the sizes of Voxtral 4B's decoder: all of a layer, one after the other, and the logits.
Both are larger than any cache. The least is one read of the weights by all threads, measured
beforehand, or, where that takes longer, the products of all rows at the processor's peak: rows
times weights / (float32 products per second of FMAs in registers, times the products of one
instruction in units of an FMA's). These are 2 where packed weights are dot products of bytes (four
times as many, but x has two digits) or pairs (madd), 2 where bfloat16 are pairs; such instructions
issue as often as FMAs. Activations are bfloat16.

Columns: milliseconds (the least of some calls), the ratio to one row, and the ratio to the least,
with what bounds it. ``--cpu-time``: the mean processor time per thread instead of the clock's, for
a machine that is busy with something else; the read is by the clock all the same.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
from bench_linear import FORMATS, Product, Shape
from roofline import peak_rate, products_per_float, read_seconds

from voxfast._native import _ext
from voxfast.ops import linear

ROWS = (*range(1, 9), 12, 16, 20, 24)
DIM, HIDDEN, HEADS, KV_HEADS, HEAD_SIZE, VOCABULARY = 3072, 9216, 32, 8, 128, 131072
# (outputs, inputs)
PARTS = {
    "layer": [
        (HEADS * HEAD_SIZE, DIM),
        (KV_HEADS * HEAD_SIZE, DIM),
        (KV_HEADS * HEAD_SIZE, DIM),
        (DIM, HEADS * HEAD_SIZE),
        (HIDDEN, DIM),
        (HIDDEN, DIM),
        (DIM, HIDDEN),
    ],
    "logits": [(VOCABULARY, DIM)],
}
SECONDS = 0.4  # how long a line is measured, at least three calls


@dataclass(frozen=True)
class Line:
    """One measurement; times in milliseconds."""

    part: str
    form: str
    rows: int
    taken: float
    one_row: float
    read: float
    multiply: float

    @property
    def least(self) -> float:
        return max(self.read, self.multiply)

    def __str__(self) -> str:
        bound = "memory" if self.read >= self.multiply else "products"
        return (
            f"{self.part:<7} {self.form:<9} {self.rows:>4} {self.taken:>9.2f} "
            f"{self.taken / self.one_row:>8.2f} {self.taken / self.least:>8.2f}  {bound}"
        )


Clock = Callable[[], float]  # seconds


def cpu_time() -> float:
    """Processor time, per thread."""
    return time.process_time() / _ext.num_threads()


def seconds_of(products: list[Product], rows: int, clock: Clock) -> float:
    """Time of a call of each product with so many rows."""
    inputs = [product.x[:rows] for product in products]
    mx.eval(inputs)
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        begin = clock()
        mx.eval([linear(x, *p.arrays, **p.options) for x, p in zip(inputs, products, strict=True)])
        taken.append(clock() - begin)
    # Processor time of running threads is brought up to date at every tick only.
    return sum(taken) / len(taken) if clock is cpu_time else min(taken)


def measure(part: str, form: str, rows: tuple[int, ...], clock: Clock) -> Iterator[Line]:
    products = [Product(Shape(max(rows), n, k), form) for n, k in PARTS[part]]
    read = 1e3 * read_seconds(sum(w.nbytes for product in products for w in product.arrays))
    weights = sum(n * k for n, k in PARTS[part])
    multiply = 1e3 * weights / (peak_rate() * products_per_float(FORMATS[form]))
    one_row = 1e3 * seconds_of(products, 1, clock)
    for count in rows:
        taken = 1e3 * seconds_of(products, count, clock)
        yield Line(part, form, count, taken, one_row, read, count * multiply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--cpu-time", action="store_true", help="not the clock's")
    parser.add_argument("--json", type=Path, help="writes the measurements to this file")
    arguments = parser.parse_args()
    mx.set_default_device(mx.cpu)
    clock = cpu_time if arguments.cpu_time else time.perf_counter
    print(f"{_ext.isa()}, {_ext.num_threads()} threads")
    print("part    format    rows        ms  x 1 row  x least  bound")
    lines = []
    for part in arguments.parts:
        for form in arguments.formats:
            for line in measure(part, form, tuple(arguments.rows), clock):
                print(line, flush=True)
                lines.append(line)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(line) for line in lines], indent=1))


if __name__ == "__main__":
    main()
