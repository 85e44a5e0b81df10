"""Kernels older than the device: the rate of products and attention whose code was written for an
earlier generation of matrix instructions. And the software of a CPU.
"""

from __future__ import annotations

from roofcast.hwdb import constants
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.software import kernels
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.times.on_cpu import Software
from roofcast.simulator.times.rates import Rates, as_built, family_name, resolve
from roofcast.simulator.work.traced import Kernel

SIXTEEN_BIT = ("bf16", "fp16")


class Aged(NamedTuple):
    """Rates of a kernel, its speed as a fraction of what the formula then says, and assumptions."""

    rates: Rates
    share: float = 1.0
    assumptions: tuple[str, ...] = ()


def aged(formula: str, odd: bool, rates: Rates, device: Device, stack: Stack) -> Aged:
    """What the stack's kernels reach on the device.

    formula: "matmul" or "attention", others are as they were; odd: whether a matrix of a 16-bit
    product has rows of an odd length.
    """
    if device.kind != "gpu" or not rates.tensor:
        return Aged(rates)
    family = family_name(device)
    if formula == "attention" and "attention" in stack.kernels:
        name = stack.kernels["attention"]
        kernel = kernels.attention_kernel(name)
        generation = kernels.written_for(kernel, family)
        said = f"{device.id}: attention {name} runs at the rate per core of {generation}, the"
        said += " newest instructions that it is written for"
        older = generation not in (None, kernels.generation_of(family))
        at = _attention(rates, family, kernel)
        share = _share(_rates_as_built(at, device), kernel, family)
        return Aged(at, share, (said,) if older else ())
    if formula == "matmul" and odd and not stack.padding:
        slowed = _unaligned(rates, family)
        said = f"{device.id}: 16-bit products of matrices with rows of an odd length run without"
        said += " asynchronous copies, on kernels of the generation before these"
        return Aged(slowed, assumptions=(said,) if slowed is not rates else ())
    return Aged(rates)


def older_rate(generation: str, rates: Rates) -> float:
    """16-bit matrix rate of a device under the instructions of a generation [FLOP/s]: as many FLOP
    per core and clock as the cores of that generation, and at most its own rate.

        rate = min(FLOP per clock of the generation x cores x clock, matrix)
    """
    per_clock = kernels.table().generations[generation].flop_per_clock
    return min(per_clock * rates.cores * rates.clock, rates.matrix)


def _at_home(generation: str) -> float:
    """Fraction of the rate of a generation's instructions that attention holds, at the clock of
    which a 16-bit peak is printed: published speeds of FlashAttention 2 on H100 do not show the
    higher clock that kernels of Hopper's own run at (scenarios/fits/ages.py).
    """
    first = constants.family(kernels.table().generations[generation].families[0])
    return first.attention.value if first.attention else constants.kernels().attention.sustained


def _attention(rates: Rates, family: str, kernel: kernels.Kernel) -> Rates:
    """On a later generation the kernel holds the fraction that it holds at home."""
    generation = kernels.written_for(kernel, family)
    if generation is None or generation == kernels.generation_of(family):
        return rates
    older = _at_home(generation) * older_rate(generation, rates) / rates.matrix
    return rates._replace(attention=min(older, rates.attention))


def _rates_as_built(rates: Rates, device: Device) -> Rates:
    """The rates that the share of a kernel is of: an imagined peak inherits the share that the
    kernel reaches of the real one, else a faster matrix unit would make it slower.
    """
    built = as_built(device)
    if built is device:
        return rates
    whole = resolve(built, rates.format).rates
    if whole.format != rates.format:  # one that the device as built lacks
        return rates
    return rates._replace(matrix=whole.matrix, cores=whole.cores, clock=whole.clock)


def _share(rates: Rates, kernel: kernels.Kernel, family: str) -> float:
    """Speed of the kernel, as a fraction of the attention formula at `rates`.

    On another family of its own generation it does as many FLOP per core and clock as at home, and
    no more than the best kernel there: matrix units at half rate hide what slows an early kernel.
    """
    generation = kernels.written_for(kernel, family)
    if generation is None:  # AMD, and devices older than the kernel
        return min(*kernel.rates.values(), 1.0)
    table, rate = kernels.table(), kernel.rates[generation]
    of = table.generations[generation]
    if family == of.families[0] or family not in of.families:
        return rate
    rivals = [k for k in table.attention.values() if generation in k.rates]
    fitted = any(family in k.fitted_with for k in rivals)
    best = 1.0 if fitted else max(k.rates[generation] for k in rivals)
    at_home = rate * of.flop_per_clock * rates.cores * rates.clock
    at_home *= _at_home(generation)
    return min(best, at_home / (rates.attention * rates.matrix))


def _unaligned(rates: Rates, family: str) -> Rates:
    """Products without asynchronous copies, by the kernels of the generation before these."""
    kernel = kernels.table().products["unaligned"]
    generation = kernels.written_for(kernel, family)
    if generation is None or generation == kernels.generation_of(family):
        return rates
    share = kernel.rates[generation] * older_rate(generation, rates) / rates.matrix
    return rates._replace(sustained=share * rates.sustained, feed=share * rates.feed)


def widens(k: Kernel) -> bool:
    """Does a kernel multiply in 16 bits or more a weight that it reads in fewer?"""
    return len(k.inputs) > 1 and WIDTH[k.inputs[1].dtype] < 2.0 <= WIDTH.get(k.product, 4)


def odd_rows(k: Kernel, product: str, tokens: float | None = None) -> bool:
    """Whether a product of 16 bits reads or writes a matrix whose rows have an odd length.

    Rows lie along n and k; in the products of the backward, which are transposed, along any axis,
    but never along the tokens that a linear layer multiplies (`tokens`, rows m of its forward), nor
    along those of an expert: of a batch of products two axes are odd, or none counts. A row of one
    element is a vector.
    """
    if product not in SIXTEEN_BIT:
        return False
    backward = k.phase == "backward"
    axes = k.shape[1:] if backward else k.shape[2:]
    odd = [length for length in axes if length % 2 == 1 and length > 1]
    if backward and k.shape[0] == 1 and tokens in odd:
        odd.remove(tokens)
    return len(odd) >= (2 if backward and k.shape[0] > 1 else 1)


def cpu_software(stack: Stack, device: Device) -> Software | None:
    """The software of a measured CPU; None for other devices: on CPUs known by their printed
    figures, other software may run.
    """
    if device.kind != "cpu" or not getattr(device.memory.bandwidth, "measured", False):
        return None
    columns = stack.implementations.get("conv") == "columns"
    return Software(stack.scalar, stack.serial, stack.row_s, stack.packs, columns)
