"""Constants that stand in the code, with meaning, unit, kind and source.

CONSTANTS lists every module-level number of the simulator that steers a forecast, and those that
steer the comparison with measured kernels; NO_CONSTANTS lists the other numbers of the same
modules, with the reason. tests/reports/test_constants.py finds numbers that are in neither.
Numbers inside a formula (the 36 products of a Winograd block, the 8/3 passes of a split product)
are part of its algebra and are not listed.
"""

from __future__ import annotations

from typing import NamedTuple


class InCode(NamedTuple):
    """A constant of a module. A dict, a tuple or an array counts once per entry in `per_entry`."""

    module: str  # below roofcast
    name: str
    unit: str
    kind: str  # measured | printed | chosen | assumed
    meaning: str
    source: str
    per_entry: bool = False


TIMES, PARALLEL = "simulator.times", "simulator.parallel"
CALLS = "scenarios.measured.kernel_errors"
MENU = "assumed: tile sizes as in GEMM libraries; source not recorded"
SEEN = "assumed: no measured step depends on it"
SHOWN = "assumed; decides which bound a forecast names, and changes no time"

# fmt: off
CONSTANTS = (
    InCode(f"{TIMES}.attention", "BLOCK", "rows", "assumed",
           "query rows of one block of fused attention", "assumed; source not recorded"),
    InCode(f"{TIMES}.attention", "SHORT", "rows", "assumed",
           "up to so many query rows the columns are split over all cores, as in decoding",
           "assumed; source not recorded"),
    InCode(f"{TIMES}.attention", "UNEVEN", "1", "chosen",
           "work of the busiest core beyond the mean, as a fraction of the longest block",
           "chosen: half of the bound of list scheduling [graham1969]"),
    InCode(f"{TIMES}.attention", "PADDED", "elements", "assumed",
           "head_dim is padded to a multiple of it",
           "assumed: the depth of one matrix instruction"),
    InCode(f"{TIMES}.peak", "GRADIENTS", "1", "chosen",
           "share of fused attention's backward that MFU counts: the scores are computed again",
           "four of the five products of the backward [dao2022]"),
    InCode(f"{TIMES}.attention", "NORM", "1", "chosen",
           "p of (compute^p + memory^p)^(1/p) in attention",
           "chosen: a block's first load and last store overlap with nothing"),
    InCode(f"{TIMES}.conv", "WINOGRAD", "1", "printed",
           "multiplications saved by Winograd for a 3x3 filter, by edge of the output block",
           "[lavin2016]: 16 products for 36, 36 for 144", per_entry=True),
    InCode(f"{TIMES}.conv", "CPU_BLOCK", "channels", "chosen",
           "channels in and out that a CPU library computes at once",
           "chosen: steps of nets with 1 to 6 channels on a two-core Xeon", per_entry=True),
    InCode(f"{TIMES}.conv", "TRANSFORMS", "kernels", "printed",
           "transformation kernels beside the product of Winograd F(4x4, 3x3)",
           "[lavin2016]: x, w and y are transformed"),
    InCode(f"{TIMES}.dispatch", "MANY_LAYERS", "layers", "assumed",
           "fewest layers of one kind in a run whose launches count as repeated", SEEN),
    InCode(f"{TIMES}.dispatch", "MOST_LAUNCHES", "1", "assumed",
           "share of repeated launches above which a step is timed layer by layer", SEEN),
    InCode(f"{TIMES}.dispatch", "CPU_LAUNCH", "s", "assumed",
           "most host time per kernel where the host is the device",
           "assumed; source not recorded"),
    InCode(f"{TIMES}.host", "OLDEST", "year", "assumed",
           "hosts of earlier years are not slower still", "assumed: their clocks were the same"),
    InCode(f"{TIMES}.matmul", "TILE_M", "elements", "assumed",
           "rows of the tiles on matrix units", MENU),
    InCode(f"{TIMES}.matmul", "TILE_N", "elements", "assumed",
           "columns of the tiles on matrix units", MENU),
    InCode(f"{TIMES}.matmul", "THIN_M", "elements", "assumed",
           "rows of the tiles on vector units", MENU),
    InCode(f"{TIMES}.matmul", "THIN_N", "elements", "assumed",
           "columns of the tiles on vector units", MENU),
    InCode(f"{TIMES}.matmul", "SPLIT", "1", "assumed", "parts that k may be split into", MENU),
    InCode(f"{TIMES}.matmul", "SLICE", "elements", "chosen",
           "shortest slice of k that is split off",
           "chosen: bf16 products of A100 and H100; the depth of a tile in shared memory"),
    InCode(f"{TIMES}.matmul", "WHOLE_WAVES", "1", "chosen",
           "weight of whole waves of tiles against fractional ones, by kind of kernel",
           "chosen: bf16 products of A100, H100, L40S and B200", per_entry=True),
    InCode(f"{TIMES}.offload", "PINNED", "1", "measured",
           "bandwidth of a copy from pinned memory, as a fraction of the link's printed one",
           "measured: 24 to 26 of 31.5 GB/s on PCIe 4.0 x16 (hwdb/links)"),
    InCode(f"{TIMES}.offload", "HOST_BANDWIDTH", "B/s", "assumed",
           "host memory bandwidth per device for an optimizer on the host",
           "assumed: two sockets of eight DDR5-4800 channels for eight devices, half reached"),
    InCode(f"{TIMES}.rates", "SPECIAL_PER_CLOCK", "results", "printed",
           "special-function results per clock and core where a device prints none",
           "printed: NVIDIA SM, AMD CU"),
    InCode(f"{TIMES}.rates", "READ_ONLY", "1", "measured",
           "triad bandwidth as a fraction of the bandwidth of streamed weights",
           "measured: A100 0.99, H200 0.82"),
    InCode(f"{TIMES}.rates", "AT_PRINTED_CLOCK", "1", "measured",
           "best 16-bit product on half-rate matrix units, where the board keeps to its clock",
           "measured: L40, 0.94 of its peak"),
    InCode(f"{TIMES}.rates", "HALF_RATE", "1", "chosen",
           "16-bit peak over vector peak up to which matrix units count as held at half rate",
           "chosen: tells GeForce boards and L40 from others"),
    InCode(f"{TIMES}.rates", "VECTOR_FEED", "1", "assumed",
           "head-room of operand paths over the vector rate",
           "assumed: paths built for matrix units never hold up vector tiles"),
    InCode(f"{TIMES}.rates", "DEFAULT_CORES", "1", "assumed",
           "cores of a device that prints none, by kind", "assumed", per_entry=True),
    InCode(f"{TIMES}.rates", "DEFAULT_CLOCK", "Hz", "assumed",
           "clock of a device that prints none, by kind", "assumed", per_entry=True),
    InCode(f"{TIMES}.rates", "VECTOR_SHARE", "1", "assumed",
           "16-bit matrix rate over vector rate of a device that prints no vector rate",
           "assumed; source not recorded"),
    InCode(f"{TIMES}.rates", "EXP_SHARE", "1", "assumed",
           "vector rate over rate of special functions, except on GPUs",
           "assumed; source not recorded"),
    InCode(f"{TIMES}.rates", "TILE_ELEMENTS", "elements", "assumed",
           "elements of C per core in a wave of tiles", "assumed: a tile of 256 x 128"),
    InCode(f"{TIMES}.roofline", "EXPLAINED", "1", "assumed",
           "share of a kernel's time under any roof below which latency bounds it", SHOWN),
    InCode(f"{TIMES}.roofline", "SMALL_KERNEL", "s", "assumed",
           "time below which latency can bound a kernel", SHOWN),
    InCode(f"{TIMES}.stream", "CORE", "B/cycle", "measured",
           "bytes per clock that main memory feeds a core with, where [issue] was measured",
           "measured: A100, 0.87 of its printed bandwidth", per_entry=True),
    InCode(f"{TIMES}.stream", "RTX_3090", "B/cycle", "measured",
           "the same on the device of the other classes of [issue]",
           "measured: RTX 3090, triad bandwidth"),
    InCode(f"{PARALLEL}.step", "WEIGHT_GRADIENTS", "1", "assumed",
           "share of weight gradients in the backward of a transformer layer",
           "assumed: half of its products, little else"),
    InCode(f"{PARALLEL}.networks", "CHIPS_PER_HOST", "1", "assumed",
           "chips of a TPU slice that share a host's part of the datacenter network",
           "assumed; source not recorded"),
    InCode(f"{PARALLEL}.networks", "DEFAULT_NIC", "B/s", "assumed",
           "NIC bandwidth of a node of which nothing is known", "assumed: one NIC of 100 Gb/s"),
    InCode(f"{PARALLEL}.holdings", "GATHERED", "units", "printed",
           "units of weights that ZeRO-3 holds gathered",
           "one in use, one being gathered"),
    InCode("simulator.memory", "MASTER", "B", "printed",
           "bytes per weight of the fp32 copy, and of each fp32 moment", "fp32 is four bytes"),
    InCode("simulator.memory", "WIDENED", "B", "printed",
           "of the fp32 copy of a 16-bit gradient that an update reads, per weight",
           "github NVIDIA/Megatron-LM, distrib_optimizer.py: shards of gradients as fp32"),
    InCode("simulator.memory", "IN_FLIGHT", "layers", "assumed",
           "layers whose offloaded activations are on the device at once",
           "assumed: one computes while one is copied"),
    InCode("simulator.work.step", "FOREACH_GROUP", "tensors", "assumed",
           "tensors that a multi-tensor kernel of PyTorch takes per launch",
           "assumed: about 30; source not recorded"),
    InCode(CALLS, "CALL_ATTENTION", "cycles", "chosen",
           "start of an attention call of a serving framework", "chosen: attention of serving"),
    InCode(CALLS, "WARM_COST", "1", "chosen",
           "time of operands in a large L2 beside GDDR memory, as a fraction of DRAM time",
           "chosen: products of L40S"),
    InCode(CALLS, "WARM_STREAM", "1", "chosen",
           "the same of memory-bound kernels timed in a loop", "chosen: kernels of A100"),
    InCode(CALLS, "COPIES", "1", "printed",
           "copies of the weights that a replayed call cycles through", "aiconfigurator-core 0.12"),
    InCode(CALLS, "HEURISTIC", "1", "chosen",
           "rate of a library's heuristic choice, of the algorithm that a search finds",
           "chosen: fp32 convolutions of NeuSight"),
    InCode(CALLS, "BURST", "1", "chosen",
           "most that a board exceeds its power-limited rate at first",
           "chosen: fp32 products of T4 and P4"),
    InCode(CALLS, "REACTION", "s", "chosen",
           "time until the power limit acts", "chosen: fp32 products of T4 and P4"),
    InCode(CALLS, "EVENT_GAP", "1", "chosen",
           "part of the host time that shows beside a long kernel between two events",
           "chosen: fp32 kernels of NeuSight"),
)  # fmt: skip
# fmt: on

ALGORITHM = "operation counts of an algorithm, from its definition"
KEPT = "bytes that PyTorch keeps, counted by tests/simulator/oracle"
NO_CONSTANTS = {
    "simulator.parallel.traffic.HIDE": "listed with the stacks, as overlap",
    "simulator.parallel.traffic.NOTHING": "zero seconds and bytes",
    "simulator.parallel.pipeline.orders.SAME": "tolerance of a comparison",
    "simulator.parallel.pipeline.trace.MICRO": "microseconds per second",
    "simulator.software.stack.MOST": "limit on the values of a profile",
    "simulator.forecast.interval.LEVELS": "percentages of the printed intervals",
    "simulator.forecast.interval.SHOWN": "how many nearest runs are listed",
    "simulator.forecast.interval.CANDIDATES": "nearest runs among which the listed ones are found",
    "simulator.parallel.pipeline.schedule.ENDS": "no passes at the ends of a pipeline",
    "simulator.parallel.pipeline.replay.ARRIVAL": "order of events of one moment",
    "simulator.parallel.pipeline.replay.START": "order of events of one moment",
    "simulator.work.value.LARGEST": "elements above which a tensor is refused",
    "simulator.work.traced.ALONE": "the layout of one device",
    "simulator.work.precision.RANK": "order in which PyTorch promotes formats",
    "simulator.work.ops.attention.LSE": KEPT,
    "simulator.work.ops.attention.MASK_ALIGNED": KEPT,
    "simulator.work.ops.attention.FLASH_ALIGNED": KEPT,
    "simulator.work.ops.attention.FLASH_LARGEST": "widest head of PyTorch's flash kernel",
    "simulator.work.ops.conv.INDEX": KEPT,
    "simulator.work.ops.embedding.INDEX": KEPT,
    "simulator.work.ops.norm.STATISTICS": KEPT,
    "simulator.work.ops.optimizer.OPTIMIZERS": ALGORITHM,
    "simulator.work.ops.pointwise.UNARY": ALGORITHM,
    "simulator.work.ops.recurrent.CELLS": ALGORITHM,
    "simulator.work.ops.region.SAMPLES": ALGORITHM,
}
