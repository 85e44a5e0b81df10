"""What a device, a link and a system are: frozen records in bare SI units.

The annotations are the file format. A `Figure` is annotated with its unit, and the reader takes
keys, units and what may be absent from here. Absent (None, or no such key) means unknown, never
zero.
"""

from typing import Annotated

from msgspec import Struct

from roofcast.hwdb.figure import Figure, Table

FORMATS = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8")
KINDS = ("gpu", "tpu", "npu", "cpu")

Number = Annotated[Figure, "1"]
Bytes = Annotated[Figure, "B"]
Rate = Annotated[Figure, "B/s"]
Flops = Annotated[Figure, "FLOP/s"]
Hertz = Annotated[Figure, "Hz"]
Seconds = Annotated[Figure, "s"]
Watts = Annotated[Figure, "W"]
Dollars = Annotated[Figure, "USD"]
DollarsPerHour = Annotated[Figure, "USD/h"]


class Rates(Struct, frozen=True, kw_only=True):
    """Keys a table of rates may hold: the number formats."""

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
    """Keys [achieved] may hold: what was measured on this very device. Fractions are of the printed
    rate.
    """

    matmul_fp32: Number | None = None  # best measured matrix product / peak_flops of the format
    matmul_tf32: Number | None = None
    matmul_fp16: Number | None = None
    matmul_bf16: Number | None = None
    matmul_fp8: Number | None = None
    matmul_fp4: Number | None = None
    # the same held by a long product, where clocks have settled
    sustained_fp32: Number | None = None
    sustained_tf32: Number | None = None
    sustained_bf16: Number | None = None  # fp16 too
    sustained_fp8: Number | None = None
    sustained_fp4: Number | None = None
    # the same in products that go on for seconds, where the board's heat bounds them
    settled_fp32: Number | None = None
    stream: Number | None = None  # triad / memory.bandwidth
    stream_scale: Number | None = None  # one read, one write
    stream_read: Number | None = None  # reads only
    stream_write: Number | None = None  # writes only
    fill_l1: Rate | None = None  # writes only, through each cache
    fill_l2: Rate | None = None
    fill_l3: Rate | None = None
    read_32mib: Rate | None = None  # through sets between the last cache and memory
    read_64mib: Rate | None = None
    read_128mib: Rate | None = None
    fill_32mib: Rate | None = None
    fill_64mib: Rate | None = None
    fill_128mib: Rate | None = None
    weight_streaming: Number | None = None  # matrix times thin matrix, read-only traffic
    exp: Hertz | None = None  # results a second of a vectorised loop over numbers in L1
    erf: Hertz | None = None
    tanh: Hertz | None = None
    division: Hertz | None = None
    loop: Seconds | None = None  # entering and leaving an inner loop
    call: Seconds | None = None  # a compiled kernel of three arrays called from Python
    fork_join: Seconds | None = None  # a parallel loop that does nothing
    kernel_floor: Seconds | None = None  # the shortest matrix kernel on the device
    kernel_interval: Seconds | None = None  # start to start of tiny kernels in a stream
    kernel_interval_graph: Seconds | None = None
    latency_l1: Seconds | None = None  # pointer chase
    latency_l2: Seconds | None = None
    host_copy: Rate | None = None  # pinned host to device
    pair_copy: Rate | None = None  # one device to one other, one direction
    all_reduce_2: Rate | None = None  # bus bandwidth at the largest message, by number of devices
    all_reduce_4: Rate | None = None
    all_reduce_8: Rate | None = None
    all_reduce_latency_2: Seconds | None = None
    all_reduce_latency_4: Seconds | None = None
    all_reduce_latency_8: Seconds | None = None


class Memory(Struct, frozen=True, kw_only=True):
    """Main memory of the device. A server CPU has no capacity of its own: that is the machine's."""

    bandwidth: Rate
    capacity: Bytes | None = None
    type: str = ""


class Level(Struct, frozen=True, kw_only=True):
    """One cache level, totalled over the device. `bandwidth` is for reads; its status says if it
    was measured.
    """

    capacity: Bytes
    bandwidth: Rate | None = None


class Caches(Struct, frozen=True, kw_only=True):
    """Keys [cache] may hold, nearest first. `sram` is memory on the chip that software fills."""

    l1: Level | None = None
    l2: Level | None = None
    l3: Level | None = None
    sram: Level | None = None


class ScaleUp(Struct, frozen=True, kw_only=True):
    """The fast network between neighbouring devices. `bandwidth`: all links of one device, one
    direction.
    """

    bandwidth: Rate | None = None
    link: str = ""
    links: Number | None = None
    domain: str = ""


class Power(Struct, frozen=True, kw_only=True):
    """Electric power of one device [W]."""

    tdp: Watts | None = None
    idle: Watts | None = None


class Price(Struct, frozen=True, kw_only=True):
    """What one device costs, to buy and by the hour [USD]."""

    launch_usd: Dollars | None = None
    cloud_usd_per_hour: DollarsPerHour | None = None


class Device(Struct, frozen=True, kw_only=True):
    """One device, as the runtime counts it (`scope` says when a die or a card is meant instead).

    peak_flops: dense rate of a matrix product with inputs of that format, accumulated in fp32
    (int32 for int8), on the best unit that does it; a format the hardware lacks is absent.
    vector_flops: the units that are not for matrices.
    """

    id: str
    name: str
    vendor: str = ""
    kind: str = "gpu"
    architecture: str = ""
    family: str = ""  # key of the defaults for what is achieved
    year: int | None = None
    process: str = ""
    scope: str = "device"  # device, die or card
    matrix_unit: str = ""
    core: str = ""  # what `cores` counts: SM, CU, core ...
    cores: Number | None = None
    clock: Hertz | None = None  # advertised maximum
    base_clock: Hertz | None = None
    matrix_flop_per_clock_per_core: Number | None = None  # 16-bit inputs
    vector_flop_per_clock_per_core: Number | None = None  # fp32; CPUs
    special_per_clock_per_core: Number | None = None  # exponentials
    shared_memory_per_core: Bytes | None = None
    registers_per_core: Bytes | None = None
    peak_flops: Annotated[Table, Rates]
    vector_flops: Annotated[Table, Rates] = Table()
    memory: Memory
    cache: Annotated[Table, Caches] = Table()
    scale_up: ScaleUp = ScaleUp()
    host_interface: str = ""
    power: Power = Power()
    price: Price = Price()
    achieved: Annotated[Table, Achieved] = Table()
    notes: tuple[str, ...] = ()
    sources: Annotated[Table, str] = Table()
    base: str = ""  # the shipped device this one was made from
    edits: tuple[str, ...] = ()  # "memory.bandwidth 3.35 TB/s -> 8 TB/s"


class Link(Struct, frozen=True, kw_only=True):
    """One kind of connection. Bandwidths are bytes per second in one direction."""

    id: str
    name: str
    role: str = ""  # scale-up, scale-out, host, switch
    bandwidth: Rate  # all links or lanes together
    bandwidth_per_link: Rate | None = None
    links: Number | None = None
    latency: Seconds | None = None
    efficiency: Number | None = None  # measured / bandwidth
    topology: str = ""
    notes: tuple[str, ...] = ()
    sources: Annotated[Table, str] = Table()


class Tier(Struct, frozen=True, kw_only=True):
    """One level of a system: `size` devices reach each other at `bandwidth` per device and
    direction.
    """

    name: str
    link: str
    size: Number
    bandwidth: Rate
    topology: str = ""


class Nics(Struct, frozen=True, kw_only=True):
    """What leaves the system for the next one."""

    link: str
    count: Number
    bandwidth: Rate  # of one, one direction


class System(Struct, frozen=True, kw_only=True):
    """A node, pod or rack: `count` devices of one kind and the levels that join them, innermost
    first.
    """

    id: str
    name: str
    vendor: str = ""
    year: int | None = None
    device: str
    count: Number
    levels: tuple[Tier, ...] = ()
    nics: Nics | None = None
    host: str = ""
    memory: Bytes | None = None  # of the host processors
    power: Watts | None = None  # maximum
    price_usd: Dollars | None = None
    price_usd_per_hour: DollarsPerHour | None = None
    notes: tuple[str, ...] = ()
    sources: Annotated[Table, str] = Table()
