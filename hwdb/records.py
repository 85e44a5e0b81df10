"""What a device, a link and a system are: frozen records in bare SI units.

The annotations are the file format: the reader takes from them the keys, the units and which keys
may be absent. A `Figure` is annotated with its unit. Absent (None, or no such key) means unknown,
never zero. A rate is a peak that the vendor publishes unless it stands in [achieved].
"""

from typing import Annotated

from msgspec import Struct

from roofcast.hwdb.figure import Figure, Table

FORMATS = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8")
KINDS = ("gpu", "tpu", "npu", "cpu")

Number = Annotated[Figure, "1"]
# fractions of a published rate, with the largest that can be: a product may run at a boost clock
# above the printed one (8 % measured on an RTX 4090)
OfPeak = Annotated[Figure, "1", 1.125]
Share = Annotated[Figure, "1", 1.0]
Bytes = Annotated[Figure, "B"]
Rate = Annotated[Figure, "B/s"]
Flops = Annotated[Figure, "FLOP/s"]
Hertz = Annotated[Figure, "Hz"]
Seconds = Annotated[Figure, "s"]
Watts = Annotated[Figure, "W"]
Dollars = Annotated[Figure, "USD"]
DollarsPerHour = Annotated[Figure, "USD/h"]


class Rates(Struct, frozen=True, kw_only=True):
    """Keys of a table of rates: number formats [FLOP/s]; int8 counts integer operations."""

    fp64: Flops | None = None
    fp32: Flops | None = None
    tf32: Flops | None = None
    fp16: Flops | None = None
    bf16: Flops | None = None
    fp8: Flops | None = None
    fp6: Flops | None = None
    fp4: Flops | None = None
    int8: Flops | None = None


class Achieved(Struct, frozen=True, kw_only=True):
    """Keys of [achieved]: measured on this device. Fractions [1] are of the published rate."""

    # fastest matrix product measured, as a fraction of peak_flops of the format [1]
    matmul_fp32: OfPeak | None = None
    matmul_tf32: OfPeak | None = None
    matmul_fp16: OfPeak | None = None
    matmul_bf16: OfPeak | None = None
    matmul_fp8: OfPeak | None = None
    matmul_fp4: OfPeak | None = None
    # the same for one long product, after clocks have settled [1]
    sustained_fp32: OfPeak | None = None
    sustained_tf32: OfPeak | None = None
    sustained_bf16: OfPeak | None = None  # fp16 too
    sustained_fp8: OfPeak | None = None
    sustained_fp4: OfPeak | None = None
    # streaming bandwidth, as a fraction of memory.bandwidth [1]
    stream: Share | None = None  # triad: two reads, one write
    stream_scale: Share | None = None  # one read, one write
    stream_read: Share | None = None  # reads only
    stream_write: Share | None = None  # writes only
    weight_streaming: Share | None = None  # product of a matrix and a thin one, reads counted
    # CPU: bandwidth of writes to each cache level, all cores together [B/s]
    fill_l1: Rate | None = None
    fill_l2: Rate | None = None
    fill_l3: Rate | None = None
    # CPU: bandwidth over working sets that exceed the last cache [B/s]
    read_32mib: Rate | None = None
    read_64mib: Rate | None = None
    read_128mib: Rate | None = None
    fill_32mib: Rate | None = None
    fill_64mib: Rate | None = None
    fill_128mib: Rate | None = None
    # CPU: results per second of a vectorized loop over data in L1 [1/s]
    exp: Hertz | None = None
    erf: Hertz | None = None
    tanh: Hertz | None = None
    division: Hertz | None = None
    # CPU: fixed costs [s]
    loop: Seconds | None = None  # entering and leaving an inner loop
    call: Seconds | None = None  # calling a compiled kernel with three arrays from Python
    fork_join: Seconds | None = None  # an empty parallel loop
    # GPU: fixed costs [s]
    kernel_floor: Seconds | None = None  # duration of the shortest matrix kernel
    kernel_interval: Seconds | None = None  # start to start of tiny kernels in one stream
    kernel_interval_graph: Seconds | None = None  # the same inside a CUDA graph
    latency_l1: Seconds | None = None  # load-to-use latency, by pointer chasing
    latency_l2: Seconds | None = None
    host_copy: Rate | None = None  # copy from pinned host memory to the device [B/s]
    pair_copy: Rate | None = None  # copy from one device to another, one direction [B/s]
    # NCCL or RCCL all-reduce over 2, 4, 8 devices: bus bandwidth at the largest message [B/s]
    all_reduce_2: Rate | None = None
    all_reduce_4: Rate | None = None
    all_reduce_8: Rate | None = None
    # ... and time of a small message [s]
    all_reduce_latency_2: Seconds | None = None
    all_reduce_latency_4: Seconds | None = None
    all_reduce_latency_8: Seconds | None = None


class Memory(Struct, frozen=True, kw_only=True):
    """Main memory of the device."""

    bandwidth: Rate  # peak, reads and writes together [B/s]
    capacity: Bytes | None = None  # [B]; absent for server CPUs, whose machine decides it
    # of it, what programs can allocate: less by what the driver keeps, and by the check bits of
    # GDDR with ECC on (1/16) [B]
    usable: Bytes | None = None
    type: str = ""  # HBM3, GDDR6X, DDR5-4800 x8 ...

    @property
    def limit(self) -> float | None:
        """Bytes that programs can allocate, where that is known; else the capacity."""
        return self.capacity if self.usable is None else self.usable


class Level(Struct, frozen=True, kw_only=True):
    """One cache level, summed over the device."""

    capacity: Bytes  # [B]
    bandwidth: Rate | None = None  # of reads [B/s]; the figure's status tells if it was measured


class Caches(Struct, frozen=True, kw_only=True):
    """Keys of [cache], nearest level first."""

    l1: Level | None = None
    l2: Level | None = None
    l3: Level | None = None
    sram: Level | None = None  # on-chip memory that software manages


class ScaleUp(Struct, frozen=True, kw_only=True):
    """The fast network between neighbouring devices: NVLink, xGMI, ICI ..."""

    bandwidth: Rate | None = None  # all links of one device, one direction [B/s]
    link: str = ""  # name of a file in links/
    links: Number | None = None  # links per device [1]
    domain: str = ""  # devices that it joins; the first number is read: "8 (NVSwitch) / 16"


class Power(Struct, frozen=True, kw_only=True):
    """Electric power of one device [W]."""

    tdp: Watts | None = None  # design power: the limit under load
    cap: Watts | None = None  # a lower limit that the user sets, as nvidia-smi -pl does
    chip_tdp: Watts | None = None  # of the largest board with the same chip, where it is another
    idle: Watts | None = None


class Price(Struct, frozen=True, kw_only=True):
    """Price of one device."""

    launch_usd: Dollars | None = None  # list price at launch [USD]
    cloud_usd_per_hour: DollarsPerHour | None = None  # on demand, per device [USD/h]


class Device(Struct, frozen=True, kw_only=True):
    """One device, as the runtime counts it; `scope` tells where a die or a card is meant instead.

    peak_flops: dense rate of a matrix product with inputs of the format, accumulated in fp32
    (int32 for int8), on the fastest unit [FLOP/s]; absent where the hardware lacks the format.
    vector_flops: rate of the units that are not for matrices [FLOP/s].
    """

    id: str  # name of the file
    name: str  # the vendor's name
    vendor: str = ""
    kind: str = "gpu"  # one of KINDS; chooses the time formulas
    architecture: str = ""
    family: str = ""  # name of a file in families/: defaults of the achieved fractions
    year: int | None = None  # of release; hosts of older devices launch kernels more slowly
    process: str = ""  # manufacturing process
    scope: str = "device"  # device, die or card
    matrix_unit: str = ""  # name and shape of the matrix unit
    core: str = ""  # what `cores` counts: SM, CU, core ...
    cores: Number | None = None  # [1]
    clock: Hertz | None = None  # advertised maximum [Hz]
    base_clock: Hertz | None = None  # [Hz]
    matrix_flop_per_clock_per_core: Number | None = None  # 16-bit inputs [FLOP]
    vector_flop_per_clock_per_core: Number | None = None  # fp32, CPUs [FLOP]
    special_per_clock_per_core: Number | None = None  # exponentials [1]
    shared_memory_per_core: Bytes | None = None  # [B]
    registers_per_core: Bytes | None = None  # [B]
    peak_flops: Annotated[Table[Figure], Rates]  # [FLOP/s]
    vector_flops: Annotated[Table[Figure], Rates] = Table()  # [FLOP/s]
    memory: Memory
    cache: Annotated[Table[Level], Caches] = Table()
    scale_up: ScaleUp = ScaleUp()
    host_interface: str = ""  # link to the host: "PCIe5 x16", "NVLink-C2C 450 GB/s", "unified"
    # launch time on the processor it is sold with, over that of an x86 host of the same age [1]
    host_launch: Number | None = None
    power: Power = Power()
    price: Price = Price()
    achieved: Annotated[Table[Figure], Achieved] = Table()
    notes: tuple[str, ...] = ()
    sources: Table[str] = Table()  # key that figures cite -> citation
    base: str = ""  # the shipped device that this one was derived from
    edits: tuple[str, ...] = ()  # what differs: "memory.bandwidth 3.35 TB/s -> 8 TB/s"
    read_as: tuple[str, ...] = ()  # what figures of a user's file were taken to mean
    given: str = ""  # the path, or this-machine, of a device that is not shipped

    @property
    def typed(self) -> str:
        """What a user types to mean this device: its name, or the file that it was read from."""
        return self.given or self.id


class Link(Struct, frozen=True, kw_only=True):
    """One kind of connection. Bandwidths are in one direction [B/s]."""

    id: str  # name of the file
    name: str
    role: str = ""  # scale-up, scale-out, host or switch
    bandwidth: Rate  # all links or lanes together [B/s]
    bandwidth_per_link: Rate | None = None  # [B/s]
    links: Number | None = None  # links or lanes [1]
    latency: Seconds | None = None  # one way [s]
    efficiency: Number | None = None  # measured bandwidth as a fraction of `bandwidth` [1]
    topology: str = ""
    notes: tuple[str, ...] = ()
    sources: Table[str] = Table()  # key that figures cite -> citation


class Tier(Struct, frozen=True, kw_only=True):
    """One level of a system's network: `size` devices exchange data over `link`."""

    name: str  # node, rack, pod ...
    link: str  # name of a file in links/
    size: Number  # devices, those of the levels inside included [1]
    bandwidth: Rate  # per device, one direction [B/s]
    topology: str = ""  # "full mesh", "3D torus 16x20x28", "6 NVSwitch" ...


class Nics(Struct, frozen=True, kw_only=True):
    """Network interfaces that join one system to the next."""

    link: str  # name of a file in links/
    count: Number  # per system [1]
    bandwidth: Rate  # of one interface, one direction [B/s]


class System(Struct, frozen=True, kw_only=True):
    """A node, rack or pod: `count` devices of one kind, and the levels of their network."""

    id: str  # name of the file
    name: str
    vendor: str = ""
    year: int | None = None  # of release
    device: str  # name of a device, or path of a device file
    count: Number  # devices [1]
    levels: tuple[Tier, ...] = ()  # innermost first
    nics: Nics | None = None
    host: str = ""  # the host processors
    memory: Bytes | None = None  # of the hosts [B]
    power: Watts | None = None  # maximum [W]
    price_usd: Dollars | None = None  # of the whole system [USD]
    price_usd_per_hour: DollarsPerHour | None = None  # of the whole system [USD/h]
    notes: tuple[str, ...] = ()
    sources: Table[str] = Table()  # key that figures cite -> citation


SHOWN_ONLY: dict[type[Struct], frozenset[str]] = {
    Device: frozenset((
        "architecture", "process", "scope", "matrix_unit", "vector_flop_per_clock_per_core",
        "shared_memory_per_core", "registers_per_core", "vector_flops.fp64", "vector_flops.tf32",
        "vector_flops.fp16", "vector_flops.bf16", "vector_flops.fp8", "vector_flops.fp6",
        "vector_flops.fp4", "vector_flops.int8", "cache.sram.capacity", "cache.sram.bandwidth",
        "scale_up.links", "power.idle", "price.launch_usd", "achieved.stream_scale",
        "achieved.erf", "achieved.tanh", "achieved.division", "achieved.kernel_floor",
        "achieved.kernel_interval", "achieved.kernel_interval_graph", "achieved.latency_l1",
        "achieved.latency_l2", "achieved.host_copy", "achieved.pair_copy",
        "achieved.all_reduce_2", "achieved.all_reduce_4", "achieved.all_reduce_8",
        "achieved.all_reduce_latency_2", "achieved.all_reduce_latency_4",
        "achieved.all_reduce_latency_8",
    )),
    Link: frozenset((
        "role", "bandwidth_per_link", "links", "latency", "efficiency", "topology",
    )),
    System: frozenset((
        "vendor", "year", "power", "price_usd", "price_usd_per_hour",
    )),
}  # fmt: skip
"""Record: dotted keys that no formula reads. They document the hardware; changing one changes no
forecast. tests/hwdb/test_shown_only.py compares the list with the keys that simulator/ reads.
"""

CROSSCHECK_ONLY = frozenset((
    "cache.l1.capacity", "cache.l1.bandwidth", "cache.l3.capacity", "cache.l3.bandwidth",
    "achieved.stream_read", "achieved.stream_write",
    "achieved.fill_l1", "achieved.fill_l2", "achieved.fill_l3", "achieved.read_32mib",
    "achieved.read_64mib", "achieved.read_128mib", "achieved.fill_32mib", "achieved.fill_64mib",
    "achieved.fill_128mib", "achieved.loop", "achieved.call", "achieved.fork_join",
))  # fmt: skip
"""Keys of a Device that no forecast reads, but the formulas of `roofcast crosscheck` do, for CPU
kernels. (Forecasts on a measured CPU read its L2.)
"""
