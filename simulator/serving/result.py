"""The answer: a frozen forecast of serving, in SI units."""

from __future__ import annotations

import msgspec

CLOSED, REPLAY = "closed form", "replay"  # what means are from


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A time over the requests of a load [s]: its mean, and what 50, 90, 99 % do not exceed."""

    mean: float
    p50: float | None = None  # None where the load has no requests that differ
    p90: float | None = None
    p99: float | None = None
    # between which 80 % of measured runs lie whose mean is forecast so; None where unknown
    low: float | None = None
    high: float | None = None


class ServingMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one device, the most loaded."""

    weights_bytes: float
    runtime_bytes: float  # context, libraries, workspaces
    cache_bytes: float  # of the sequences of this load
    peak_bytes: float
    # between which 80 % of the measured peaks lie that are forecast so, up to the capacity where
    # the forecast fits; None where unknown
    peak_bytes_low: float | None = None
    peak_bytes_high: float | None = None
    # share of runs that fit, where the 80 % of the measured peaks reach from below the capacity to
    # above it
    fitting_share: float | None = None
    usable_bytes: float | None  # of the device, as far as the stack takes it; None: unknown
    capacity_bytes: float | None  # of the device
    # of a token of one sequence: of all layers, and of those without an attention window
    cache_bytes_per_token: float
    cache_bytes_per_token_past_windows: float
    cache_bytes_per_sequence: float  # at full length
    # at this length, of one replica and of all
    largest_concurrency: int
    largest_concurrency_total: int
    longest_sequence: float | None  # tokens of one sequence that fit alone; None: any
    model_context: int | None = None  # tokens of a sequence that the model was made for
    fits: bool


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One of two pools of devices: it computes prompts, or it decodes."""

    device: str
    devices: int
    instances: int  # servers beside each other
    layout: dict[str, int]  # tp, pp, ep, dp of one
    highest_requests_per_s: float  # that all its instances serve at most
    use: float  # of that, under this load
    peak_bytes: float  # of a device, under this load
    power_w: float | None = None  # of a device
    price_usd_per_hour: float | None = None  # of a device


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts on devices of their own, and what passes from them to those that decode."""

    prefill: Pool
    decode: Pool
    binds: str  # prefill | transfer | decode: what serves the fewest requests
    transfer_bytes: float  # cache of a prompt, to all ranks that decode it
    transfer_s: float  # of it, alone on the link, not hidden behind its prompt
    transfer_bytes_per_s: float  # achieved by a device, the slower side
    transfer_requests_per_s: float  # that the link serves at most
    balanced_share: float  # of the devices for prompts, at which both pools serve as much


class NearServer(msgspec.Struct, frozen=True, kw_only=True):
    """Measured runs that resemble a forecast: of one source, of one server under one kind of load;
    and the errors of their own forecasts.
    """

    model: str
    source: str
    device: str
    devices: int
    stack: str
    weights: str
    load: str  # batch | concurrency | rate | offline
    amount: tuple[float, float]  # sequences, users or requests per second: least, most
    input_len: tuple[int, int]  # least, most
    output_len: tuple[int, int]
    runs: int
    fitted: bool  # whether a constant of time was fitted to them
    measured: dict[str, tuple[float, float]]  # ttft, tpot [s], output, prefill [tokens/s]
    errors: dict[str, float]  # of the same: median of predicted / measured - 1


class ServingForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast of a model served under a load. SI units, USD; None where there is no answer.

    Means and percentiles are those of the requests of all replicas together.
    """

    model: str
    device: str  # with two pools, the one that decodes; so are replicas, layout and memory
    devices: int  # of both pools
    replicas: int
    layout: dict[str, int]  # tp, pp, ep, dp of one replica
    stack: str
    weights: str
    kv: str
    load: str  # batch | concurrency | rate | offline | trace
    amount: float | None  # sequences, users or requests per second; None: as many as fit
    input_len: int
    output_len: int

    ttft_s: Spread  # from the request to its first token
    tpot_s: Spread  # per output token after the first
    e2e_s: Spread  # from the request to its last token
    requests_per_s: float
    output_tokens_per_s: float
    output_tokens_per_s_range: tuple[float, float] | None = None  # the 80 % interval
    total_tokens_per_s: float  # input and output
    output_tokens_per_s_per_device: float
    tokens_per_s_per_user: float  # 1 / tpot
    prefill_tokens_per_s: float  # of a replica that computes prompts alone
    prefill_tokens_per_s_range: tuple[float, float] | None = None
    # requests in the system, waiting or served: requests per second times the time of one (Little)
    under_way: float = 0.0
    # server (outside the engine), queue, prefill, with two pools transfer and join: their sum
    ttft_parts_s: dict[str, float] = {}
    decode_s: float = 0.0  # from the first token to the last: e2e less ttft
    decoding: float  # sequences that a replica decodes at once, the mean over time
    waiting_s: float  # of ttft, in the queue for want of a place
    use: float | None  # requests per second over the most that there can be
    highest_requests_per_s: float | None
    highest_requests_per_s_range: tuple[float, float] | None = None  # the 80 % interval
    preempted: int | None = None  # of the replayed requests, for lack of cache
    replayed: int | None = None  # requests
    means: str = CLOSED  # what mean times and rates are from: closed form | replay

    decode_step_s: float  # with speculation, drafts and their check
    tokens_per_step: float = 1.0  # of a sequence; with speculation more
    prefill_s: float  # of a prompt alone
    decode_bounds: dict[str, float] = {}  # share of a decode step by what bounds it
    prefill_bounds: dict[str, float] = {}

    memory: ServingMemory

    interval_class: str = ""  # of the device: measured | relative | other | imagined
    interval_basis: str = ""  # in words: what the 80 % intervals are as wide as
    power_w: float | None = None  # of one device
    power_scope: str = ""  # board: modelled; TDP: printed, where watts are not modelled
    energy_j_per_output_token: float | None = None
    price_usd_per_hour: float | None = None  # of one device
    price_said: tuple[str, ...] = ()  # where it is from
    prompt_share: float = 0.0  # of the engine's time, as the cost is split
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    usd_per_million_output_all: float | None = None  # all cost on the output tokens

    nearest: tuple[NearServer, ...] = ()  # the most similar measured servers
    pools: Pools | None = None  # where prompts have devices of their own
    slo: str = ""  # the service level that the rate holds, in words
    slo_probability: float | None = None  # that it holds on a real server, by errors as measured
    slo_sure_requests_per_s: float | None = None  # at which it holds with 90 %; 0: at no rate
    assumptions: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The forecast as JSON."""
        return msgspec.json.encode(self)
