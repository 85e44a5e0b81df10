"""The answer: a frozen Forecast, in SI units, that can be saved and read back."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.campaign.result import Campaign
from roofcast.simulator.parallel.layout import Layout


class LayerForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One named op of the model, summed over its `count` repetitions, per step."""

    name: str  # path in the model, "layers.self_attn.q_proj"
    op: str  # kind: "linear", "attention", "rms_norm" ...
    count: int
    parameters: int
    flops: float  # forward + backward + recomputation, all units [FLOP]
    bytes: float  # main-memory traffic, forward + backward + recomputation
    saved_bytes: float  # kept from forward to backward
    parameters_bytes: float = 0.0  # of its weights, in the formats in which they are held
    time_s: float
    forward_s: float
    backward_s: float
    update_s: float
    lower_bound_s: float  # printed roofline
    # sent to other devices by tensor, context and expert parallelism, per device and step
    sent_bytes: float = 0.0
    # limit of the estimate: matrix | vector | memory | latency | host; "fused" into a neighbour
    bound: str


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One op in one phase, as a roofline draws it: all its kernels, all repetitions.

    FLOPs are those executed: a causal attention kernel skips half of the counted ones.
    """

    name: str
    op: str
    phase: str  # forward | backward | update
    unit: str  # matrix | vector
    precision: str  # roof that limits it: "bf16", "fp32" ...
    flops: float
    bytes: float
    time_s: float


class MemoryForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device at peak, by kind, and the device's capacity."""

    parameters_bytes: float
    gradients_bytes: float
    optimizer_bytes: float  # states and master weights
    activations_bytes: float  # kept for backward, with inputs and weight copies
    transient_bytes: float  # gradients of activations, loss, recomputed blocks
    framework_bytes: float  # context, workspaces, allocator slack
    peak_bytes: float
    peak_moment: str  # "backward of lm_head", "optimizer step" ...
    capacity_bytes: float | None  # what programs can allocate
    fits: bool | None  # None where the capacity is unknown
    installed_bytes: float | None = None  # on the device, where programs can allocate less
    # between which 80 % of the measured runs lie that are forecast to need peak_bytes; None where
    # no measured run tells
    low_bytes: float | None = None
    high_bytes: float | None = None
    # largest batch that fits, all else equal; None where not computed or unknown
    largest_batch: int | None = None
    # largest batch that fits even where the peak is high_bytes / peak_bytes times its forecast
    largest_batch_surely: int | None = None
    # keys and values that generation would keep, in no other figure: of all layers, and of those
    # without an attention window; None in training and where nothing is generated
    kv_cache_bytes_per_token: float | None = None
    kv_cache_bytes_per_token_past_windows: float | None = None
    # of one sequence of the forecast's length; of all sequences of a device, where it is counted in
    # the peak (roofcast memory --mode infer)
    kv_cache_bytes_per_sequence: float | None = None
    kv_cache_bytes: float | None = None
    # of what a forward pass returns, on one device: in training the logits that the loss reads. A
    # loop that keeps one result while it makes the next holds them once more, which no other figure
    # counts
    output_bytes: float | None = None
    # of the encoder's output, for the decoder's attention to it; None without an encoder
    cross_cache_bytes_per_sequence: float | None = None


class RankForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a device of one pipeline stage holds at peak."""

    stage: int
    layers: int
    parameters_bytes: float
    gradients_bytes: float
    optimizer_bytes: float
    activations_bytes: float  # of all micro-batches in flight
    transient_bytes: float
    buffers_bytes: float  # communication: gathered weights, gradient buckets
    framework_bytes: float
    peak_bytes: float


class Near(msgspec.Struct, frozen=True, kw_only=True):
    """A measured run that resembles a forecast, and the error of its own forecast."""

    name: str
    device: str
    stack: str
    source: str
    devices: int = 1
    measured_s: float
    error: float  # predicted / measured - 1
    unread: bool = False  # whether it stands in a table that no fit reads


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A rent [USD per device-hour], and what it is the rent of."""

    usd_per_hour: float  # median over providers
    low: float
    high: float
    contract: str  # on-demand
    # specialised | hyperscaler | marketplace; "yours": given; "listed": of the file of a device
    of_class: str
    providers: int
    newest: str  # date of the newest quote; empty where none is dated
    source: str  # where it was read


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a step. None where a fraction is unknown or has no meaning."""

    # compute | memory bandwidth | kernel latency | network | host | pipeline | memory capacity |
    # input
    name: str
    share: float | None = None  # of the step's time that it bounds; those of a step sum to 1
    # time that the resource would need alone, at its printed rate, over the step's time; of the
    # capacity: bytes at peak over bytes there are
    used: float | None = None
    headroom: float | None = None  # 1 - used, at least 0
    note: str = ""


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """What a change is worth, by a forecast with it. Seconds of as many samples as one step has."""

    name: str
    options: dict[str, Any] = {}  # of the scenario, as predict takes them; empty for a free limit
    limit: str = ""  # the limit that is made free
    saved_s: float  # negative where it costs time
    step_time_s: float  # then
    fits: bool | None = None
    peak_bytes: float | None = None  # of memory then
    note: str = ""


class Fitting(msgspec.Struct, frozen=True, kw_only=True):
    """The nearest layout that fits, of a forecast that does not: same devices, same batch."""

    options: str  # as predict takes them
    verdict: str  # fits | may fit
    batch: int
    step_time_s: float
    samples_per_s: float
    tokens_per_s: float | None
    peak_bytes: float  # per device
    time_to_train_s: float | None  # of the steps of the run
    also: str = ""  # what fits beside it, in words: adapters on weights in 4 bits


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """A teacher on other devices, which works on the next batch while the student trains."""

    model: str
    device: str
    devices: int
    tp: int  # of them, that share a copy
    pass_s: float  # its pass over the batch of a step
    handover_s: float  # its logits, over the network
    sent_bytes: float
    waited_s: float  # of a step, that the student waits
    peak_bytes: float  # per device
    capacity_bytes: float | None  # per device; None where it is unknown
    fits: bool | None
    price_usd_per_hour: float | None  # per device
    cost_usd: float | None  # of the run, in the forecast's cost_usd


class WholeRun(NamedTuple):
    """What a run takes from its first step to its last; None: not known, or no end is given."""

    time_s: float | None
    cost_usd: float | None
    energy_j: float | None
    energy_scope: str


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast of one step. SI units; None where a question was not asked or has no answer."""

    # what was asked
    model: str
    device: str
    mode: str  # train | infer
    batch: int
    sequence: int | None
    image: int | None
    precision: str
    optimizer: str | None
    recompute: str
    attention: str  # how it runs: flash, efficient or eager
    stack: str

    # time
    step_time_s: float
    lower_bound_s: float  # roofline at printed peaks
    forward_s: float
    backward_s: float
    update_s: float
    host_s: float  # host time to launch the step; overlapped as far as the device takes longer
    # host time per step that nothing overlaps: a session's call, input, logging, and what the step
    # does not hide of the launch of a compiled program
    between_steps_s: float = 0.0
    samples_per_s: float
    tokens_per_s: float | None
    # where samples differ in length: the share of a step's tokens that is padding; samples, and
    # tokens of them, that a step reads (packed: more samples than sequences in the batch)
    padded_share: float | None = None
    samples_per_step: float | None = None
    tokens_per_step: float | None = None
    mfu: float | None  # model FLOPs / (time x printed peak of the precision)
    hfu: float | None  # executed FLOPs, recomputation included, over the same

    # counts
    parameters: int
    trainable_parameters: int | None = None  # adapters among them; None in inference
    lora: int | None = None  # rank of the adapters
    adapted: tuple[str, ...] = ()  # names of the layers with adapters
    weights: str | None = None  # format of frozen weights, where it was asked for
    student_alone_s: float | None = None  # a step without the teacher; None without one
    teacher: Elsewhere | None = None  # on other devices
    flops_forward: float  # matrix products, convolutions and attention, per step [FLOP]
    flops_backward: float
    flops_recompute: float
    flops_other: float  # vector operations and special functions [FLOP]
    bytes_forward: float
    bytes_backward: float
    saved_bytes: float  # activations kept for backward, without inputs and weight copies
    saved_input_bytes: float
    saved_weight_copy_bytes: float

    memory: MemoryForecast
    layers: tuple[LayerForecast, ...]
    points: tuple[Point, ...]

    # the whole run, where its length, a price, a power is known
    steps: float | None = None
    time_to_train_s: float | None = None
    cost_usd: float | None = None
    energy_j: float | None = None  # of all devices
    # of one device, the mean over a step, without hosts, fans and networks: "board", by the joules
    # of its kernels, or "share of TDP" where the device's power is not modelled
    power_w: float | None = None
    power_scope: str = ""
    step_energy_j: float | None = None  # of all devices
    clock_share: float | None = None  # mean clock of the kernels / highest clock
    price_usd_per_hour: float | None = None
    price: Price | None = None
    # by scope: board, accelerator (with its share of the host), node (at the plug), site
    power_by_scope_w: dict[str, float] = {}  # of one device
    step_energy_by_scope_j: dict[str, float] = {}  # of all devices
    energy_by_scope_j: dict[str, float] = {}  # of all devices, the run
    node_devices: int | None = None
    node_power_w: float | None = None  # of a whole node
    pue: float | None = None
    site: str = ""  # kind of site that the PUE is of; "given"
    region: str = ""
    carbon_g_per_kwh: float | None = None
    carbon_kg: float | None = None  # of the run's electricity at the site [CO2e]
    embodied_kg: float | None = None  # of making the hardware, the run's share [CO2e]
    # weights, master weights and optimizer states of the whole model, once: a checkpoint
    state_bytes: float | None = None
    # of a forecast that does not fit: the nearest layout that does, on the same devices
    fitting: Fitting | None = None
    # a training run of known length with what else it takes; the figures above are steps alone
    campaign: Campaign | None = None

    # Several devices. FLOPs, parameters, moved and kept bytes above are those of the whole model
    # and step. Layers and points are those of one device, the mean over pipeline stages (kept
    # bytes: of one micro-batch over all stages). Memory is that of the most loaded device.
    devices: int = 1
    layout: Layout | None = None
    system: str | None = None
    tokens_per_s_per_device: float | None = None
    bubble_fraction: float | None = None  # fraction of the step that pipeline stages wait
    uneven_stages_s: float | None = None  # time of the slowest stage beyond the mean of the stages
    # of a device, beyond the times of its layers: for launches, for token counts of experts
    waiting_for_host_s: float | None = None
    exposed_communication_s: dict[str, float] = {}  # by kind of traffic
    # by kind of traffic, per device and step; offload: between device and host
    communication_bytes: dict[str, float] = {}
    ranks: tuple[RankForecast, ...] = ()
    # of the most loaded device, by where it lies: host, nvme
    offloaded_bytes: dict[str, float] = {}
    host_memory_bytes: float | None = None  # of the system's hosts, for each device

    # how sure, from measured runs that resemble this one
    low_s: float | None = None  # the 80 % interval
    high_s: float | None = None
    interval_s: dict[str, tuple[float, float]] = {}  # by level in percent: "50", "80", "95"
    interval_class: str = ""  # how far the forecast is from what was measured
    nearest: tuple[Near, ...] = ()
    # the user's own measured steps: how many are like this one, and the factor they put on its
    # times
    own_runs: int = 0
    own_factor: float = 1.0

    limits: tuple[Limit, ...] = ()
    remedies: tuple[Remedy, ...] | None = None  # None where not asked for
    diagnosis: str = ""
    assumptions: tuple[str, ...] = ()

    @property
    def samples_read(self) -> float:
        """Samples of the data that a step reads."""
        return self.samples_per_step or float(self.batch)

    @property
    def tokens_read(self) -> float | None:
        """Tokens of these samples, without padding; None where they are no sequences."""
        whole = float(self.batch * self.sequence) if self.sequence else None
        return self.tokens_per_step or whole

    @property
    def whole_run(self) -> WholeRun:
        """Time, cost and energy of the whole training where it is forecast, else of its steps."""
        c = self.campaign
        if c is not None:
            return WholeRun(c.time_s, c.cost_usd, c.energy_j, c.energy_scope)
        scope = "site" if "site" in self.energy_by_scope_j else self.power_scope
        joules = self.energy_by_scope_j.get("site", self.energy_j)
        return WholeRun(self.time_to_train_s, self.cost_usd, joules, scope)

    def to_json(self) -> bytes:
        """The forecast as JSON, in SI units."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The forecast that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)
