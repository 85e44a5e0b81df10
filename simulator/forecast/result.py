"""The answer: a frozen Forecast, in SI units, that can be saved and read back."""

from __future__ import annotations

import msgspec

from roofcast.simulator.parallel.layout import Layout


class LayerForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One named op of the model, summed over its `count` repetitions, one step."""

    name: str  # path in the model, "layers.self_attn.q_proj"
    op: str  # what it is: "linear", "attention", "rms_norm" ...
    count: int
    parameters: int
    flops: float  # forward + backward + recomputation, every unit [FLOP]
    bytes: float  # DRAM traffic, forward + backward + recomputation [B]
    saved_bytes: float  # kept from forward to backward [B]
    time_s: float
    forward_s: float
    backward_s: float
    update_s: float
    lower_bound_s: float  # printed roofline
    # to other devices by tensor, context and expert parallelism: one device and step [B]
    sent_bytes: float = 0.0
    # what the estimate is limited by: matrix | vector | memory | latency | host; "fused" into a
    # neighbour
    bound: str


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One op in one phase, as a roofline draws it: all its kernels, all repetitions.

    FLOPs are those really done: a causal attention kernel skips half of those that are counted.
    """

    name: str
    op: str
    phase: str  # forward | backward | update
    unit: str  # matrix | vector
    precision: str  # which roof it stands under: "bf16", "fp32" ...
    flops: float
    bytes: float
    time_s: float


class MemoryForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device at the fullest moment of a step, by kind, against its capacity."""

    parameters_bytes: float
    gradients_bytes: float
    optimizer_bytes: float  # states and master weights
    activations_bytes: float  # kept for backward, inputs and weight copies included
    transient_bytes: float  # gradients of activations, loss, recomputed blocks at the peak
    framework_bytes: float  # context, workspaces, allocator slack
    peak_bytes: float
    peak_moment: str  # "end of forward", "backward of lm_head", "optimizer step" ...
    capacity_bytes: float | None
    fits: bool | None  # None where the capacity is unknown
    # largest batch that fits, all else equal; None where not asked or unknown
    largest_batch: int | None = None


class RankForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a device of one pipeline stage holds at its fullest moment."""

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
    """A measured run that resembles a forecast, and how far its own forecast was off."""

    name: str
    device: str
    stack: str
    source: str
    measured_s: float
    error: float  # predicted / measured - 1


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What `predict` answers. SI units; None where a question was not asked or cannot be
    answered.
    """

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
    attention: str
    stack: str

    # time
    step_time_s: float
    lower_bound_s: float  # no machine with the printed rates does it faster
    forward_s: float
    backward_s: float
    update_s: float
    host_s: float  # what the host needs to dispatch the step; hidden where the device needs longer
    # what it needs once a step and nothing hides: a session's call, input, logging
    between_steps_s: float = 0.0
    samples_per_s: float
    tokens_per_s: float | None
    mfu: float | None  # model FLOPs / (time x printed peak of the precision)
    hfu: float | None  # the same with every FLOP executed, recomputation included

    # counts
    parameters: int
    flops_forward: float  # matrix products, convolutions and attention, one step [FLOP]
    flops_backward: float
    flops_recompute: float
    flops_other: float  # everything else: vector and special functions
    bytes_forward: float
    bytes_backward: float
    saved_bytes: float  # activations proper
    saved_input_bytes: float
    saved_weight_copy_bytes: float

    memory: MemoryForecast
    layers: tuple[LayerForecast, ...]
    points: tuple[Point, ...]

    # length, money, energy: where a length, a price, a power is known
    steps: float | None = None
    time_to_train_s: float | None = None
    cost_usd: float | None = None
    energy_j: float | None = None
    power_w: float | None = None
    price_usd_per_hour: float | None = None

    # several devices: FLOPs, parameters, moved and kept bytes above are the whole model's and the
    # whole step's; layers and points
    # are one device's of the pipeline's mean (what they keep: of one micro-batch, all stages),
    # memory is the fullest one's
    devices: int = 1
    layout: Layout | None = None
    system: str | None = None
    tokens_per_s_per_device: float | None = None
    bubble_fraction: float | None = None  # share of the step that pipeline stages wait
    # what the slowest stage of a pipeline takes longer than the mean of them
    uneven_stages_s: float | None = None
    # of a device, beyond its layers' times: for launches, for token counts of experts
    waiting_for_host_s: float | None = None
    exposed_communication_s: dict[str, float] = {}  # by kind of traffic, what nothing hides
    communication_bytes: dict[
        str, float
    ] = {}  # by kind, one device and step; of offload: to and from the host
    ranks: tuple[RankForecast, ...] = ()

    # how sure: from measured runs that resemble this one
    low_s: float | None = None  # four of five such runs lie between these two
    high_s: float | None = None
    interval_s: dict[str, tuple[float, float]] = {}  # by level in percent: "50", "80", "95"
    interval_class: str = ""  # how far it is from what was measured
    nearest: tuple[Near, ...] = ()

    diagnosis: str = ""
    assumptions: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The forecast as JSON, in SI units."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Forecast:
        """The forecast that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)

    def to_frame(self):
        """The layers as a pandas table, one row an op."""
        import pandas

        return pandas.DataFrame([msgspec.structs.asdict(layer) for layer in self.layers])
