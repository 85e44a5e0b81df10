"""What a forecast of two pools says: totals, each pool, energy and money."""

from __future__ import annotations

import math
from typing import Any

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.answer import Replica, memory_of, rated, shares, step_of
from roofcast.simulator.serving.interval import around, ranges
from roofcast.simulator.serving.likeness import basis
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.passes import Spending
from roofcast.simulator.serving.pools.asked import Pair
from roofcast.simulator.serving.pools.means import Apart, Costing, Totals
from roofcast.simulator.serving.pricing import HOUR, MILLION, Price, price_of
from roofcast.simulator.serving.result import Pool, Pools, ServingForecast
from roofcast.simulator.serving.sample import Sample, means_of, spreads
from roofcast.simulator.serving.similar import similar


class Answer(NamedTuple):
    """Two pools under a load, and what was found of them."""

    of: Pair
    costing: Costing
    met: Apart
    sample: Sample | None
    said: tuple[str, ...]

    @property
    def load(self) -> Load:
        """The load of all instances."""
        return self.of.load

    @property
    def totals(self) -> Totals:
        """The most requests per second, as plain numbers."""
        return Totals(*(float(value) for value in self.costing.totals))


def assemble(a: Answer) -> ServingForecast:
    """The forecast."""
    of, load, found, totals = a.of, a.load, a.met.mean, a.totals
    highest = float(totals.highest)
    asked, rate = of.asked.decode, a.met.mean.requests_per_s
    prefill = load.new * totals.prefill
    times = spreads(found, a.sample)
    stack = of.decode.server.profile.name
    known = ranges(of.likeness, times, rate * load.output_len, prefill)
    capacity = around(highest, "output", of.likeness)
    output = known.output
    if load.kind in ("rate", "trace"):
        output = min(rate, capacity[0]) * load.output_len, rate * load.output_len
    step = step_of(of.decode, max(found.decoding, 1.0), load.context)
    prompt = of.prefill.server.prefilling(1.0, load.new, load.hit)
    return ServingForecast(
        model=asked.model,
        device=of.decode.device.id,
        devices=of.devices,
        replicas=of.decode.cut.replicas,
        layout=_layout(of.decode),
        stack=stack,
        weights=of.decode.server.formats.weights,
        kv=(asked.kv or ("16 bits" if of.decode.server.formats.cache == 2.0 else "8 bits")).lower(),
        load=load.kind,
        amount=None if load.kind == "offline" else load.amount,
        input_len=load.input_len,
        output_len=load.output_len,
        requests_per_s=rate,
        total_tokens_per_s=rate * (load.input_len + load.output_len),
        output_tokens_per_s_per_device=rate * load.output_len / of.devices,
        tokens_per_s_per_user=1.0 / times["tpot"].mean if times["tpot"].mean > 0 else 0.0,
        under_way=rate * found.e2e,
        ttft_parts_s=_parts(a),
        decode_s=found.e2e - found.ttft,
        decoding=found.decoding,
        waiting_s=found.waiting,
        use=found.use,
        preempted=a.sample.found.preempted if a.sample else None,
        replayed=len(a.sample.weight) if a.sample else None,
        means=means_of(a.sample),
        decode_step_s=found.step * of.decode.spec.tokens,
        tokens_per_step=of.decode.spec.tokens,
        prefill_s=found.alone,
        memory=memory_of(of.decode, load, of.room, found),
        interval_class=of.likeness.device,
        interval_basis=basis(of.likeness, of.farther.device.id),
        assumptions=a.said,
        nearest=similar(of.decode.server, load),
        **(rated(known, rate * load.output_len, prefill) | {"output_tokens_per_s_range": output}),
        highest_requests_per_s=highest,
        highest_requests_per_s_range=capacity,
        decode_bounds=shares(step),
        prefill_bounds=shares(prompt),
        **_spent(a, step, prompt),
    )


def _layout(of: Replica) -> dict[str, int]:
    return {"tp": of.cut.tp, "pp": of.cut.pp, "ep": of.cut.ep, "dp": of.cut.dp}


def _parts(a: Answer) -> dict[str, float]:
    """What the time to the first token is made of."""
    found = a.met.mean
    return {
        "server": found.overhead,
        "queue": found.queue,
        "prefill": a.met.prefill,
        "transfer": a.met.transfer,
        "join": a.met.joins,
    }


def _spent(a: Answer, step: Spending, prompt: Spending) -> dict[str, Any]:
    """Each pool, watts and US dollars."""
    of, load, found = a.of, a.load, a.met.mean
    rate = found.requests_per_s
    instances = of.prefill.cut.replicas, of.decode.cut.replicas
    # a prompt of a pass as full as the rate makes it
    together = max(float(a.costing.prompts.together(rate / instances[0])), 1.0)
    full = of.prefill.server.prefilling(together, load.new, load.hit)
    if a.costing.prompts.most < 2:
        together, full = 1.0, prompt
    prefills = float(full.joules) / together, float(full.total) / together
    more = a.costing.more / of.decode.spec.tokens / max(found.decoding, 1.0)
    decodes = more * float(step.joules), more * float(step.total)
    every = zip((of.prefill, of.decode), (prefills, decodes), strict=True)
    watts = [_watts(each, joules, took, rate) for each, (joules, took) in every]
    prices = [price_of(each.device, each.asked.price_per_hour) for each in (of.prefill, of.decode)]
    total = None
    if watts[0] is not None and watts[1] is not None:
        total = watts[0] * of.prefill.cut.devices + watts[1] * of.decode.cut.devices
    return {
        "power_w": total / of.devices if total is not None else None,
        "power_scope": "board" if total is not None else "",
        "energy_j_per_output_token": (
            total / (rate * load.output_len) if total is not None and rate > 0 else None
        ),
        **_money(a, prices),
        "pools": _pools(a, watts, prices),
    }


def _watts(of: Replica, joules: float, took: float, rate: float) -> float | None:
    """Mean watts of a device of a pool; joules, took: of a request on its instance."""
    server = of.server
    if not math.isfinite(joules) or server.idle_w is None:
        return None
    busy = min(rate / of.cut.replicas * took, 1.0)
    return busy * joules / max(took, 1e-12) / server.devices + (1.0 - busy) * server.idle_w


def _money(a: Answer, prices: list[Price]) -> dict[str, Any]:
    """USD per million tokens: the prefill pool on input, the decode pool on output tokens."""
    of, load, rate = a.of, a.load, a.met.mean.requests_per_s
    devices = of.prefill.cut.devices, of.decode.cut.devices
    known = [each.usd_per_hour for each in prices]
    if known[0] is None or known[1] is None or rate <= 0:
        said = tuple(line for each in prices if each.usd_per_hour is None for line in each.said)
        return {"price_usd_per_hour": None, "price_said": said}
    per_s = [price * n / HOUR for price, n in zip((known[0], known[1]), devices, strict=True)]
    every = sum(per_s)
    same = of.prefill.device.id == of.decode.device.id
    said = prices[0].said if same else tuple(
        f"{each.device.id}: {line}"
        for each, price in zip((of.prefill, of.decode), prices, strict=True)
        for line in price.said
    )  # fmt: skip
    return {
        "price_usd_per_hour": every * HOUR / of.devices,
        "price_said": said,
        "prompt_share": per_s[0] / every,
        "usd_per_million_input": MILLION * per_s[0] / rate / load.input_len,
        "usd_per_million_output": MILLION * per_s[1] / rate / load.output_len,
        "usd_per_million_output_all": MILLION * every / rate / load.output_len,
    }


def _pools(a: Answer, watts: list[float | None], prices: list[Price]) -> Pools:
    """Each pool, and the link."""
    of, found, totals = a.of, a.met.mean, a.totals
    rate, load = found.requests_per_s, a.load
    together = float(a.costing.prompts.together(rate / of.prefill.cut.replicas))
    waiting = of.passing.of_sequence(load.input_len) * max(together, 1.0)
    passing = of.passing.weight_bytes + of.passing.runtime_bytes + waiting
    peaks = passing, memory_of(of.decode, load, of.room, found).peak_bytes
    highest = totals.prefill, totals.decode
    pools = [
        Pool(
            device=each.device.id,
            devices=each.cut.devices,
            instances=each.cut.replicas,
            layout=_layout(each),
            highest_requests_per_s=highest[k],
            use=rate / highest[k],
            peak_bytes=peaks[k],
            power_w=watts[k],
            price_usd_per_hour=prices[k].usd_per_hour,
        )
        for k, each in enumerate((of.prefill, of.decode))
    ]
    by_device = [p.highest_requests_per_s / p.devices for p in pools]
    return Pools(
        prefill=pools[0],
        decode=pools[1],
        binds=totals.binds,
        transfer_bytes=of.sent.bytes,
        transfer_s=float(of.sent.exposed(a.met.prefill)),
        transfer_bytes_per_s=min(of.link.send, of.link.receive),
        transfer_requests_per_s=totals.transfer,
        balanced_share=by_device[1] / sum(by_device),
    )
