"""A replayed step as a trace in the Trace Event Format (JSON), which Perfetto and chrome://tracing
open.

A process is a rank (pipeline stage), a thread one of its streams; times are microseconds. Only
complete events (ph "X") and names (ph "M") are written.
"""

from __future__ import annotations

from roofcast.simulator.parallel.pipeline.replay import Event

MICRO = 1e6
COLOURS = {
    "F": "good",
    "B": "rail_response",
    "D": "rail_response",
    "W": "rail_idle",
    "X": "rail_animation",
    "s": "grey",
}


def trace(events: tuple[Event, ...], name: str = "step") -> dict:
    """The trace of a timeline: {"traceEvents": [...], "displayTimeUnit": "ms"}.

    >>> trace((Event(0, "compute", "F0.0", 0.0, 0.5),))["traceEvents"][-1]["dur"]
    500000.0
    """
    streams = sorted({(e.stage, e.stream) for e in events})
    thread = {"compute": 0, "p2p": 1}
    for _, stream in streams:
        thread.setdefault(stream, len(thread))
    head = []
    for stage in sorted({s for s, _ in streams}):
        head.append(_meta(stage, 0, "process_name", {"name": f"{name}: stage {stage}"}))
        head.append(_meta(stage, 0, "process_sort_index", {"sort_index": stage}))
    for stage, stream in streams:
        head.append(_meta(stage, thread[stream], "thread_name", {"name": stream}))
    body = [
        {
            "ph": "X",
            "pid": e.stage,
            "tid": thread[e.stream],
            "ts": e.start * MICRO,
            "dur": e.duration * MICRO,
            "name": e.name,
            "cat": e.stream,
            "cname": COLOURS.get(e.name[:1], "generic_work"),
        }
        for e in events
    ]
    return {"traceEvents": head + body, "displayTimeUnit": "ms"}


def _meta(process: int, thread: int, name: str, value: dict) -> dict:
    """A metadata event."""
    return {"ph": "M", "pid": process, "tid": thread, "name": name, "args": value}


def length(document: dict) -> float:
    """Seconds from the first event of a trace to the end of the last."""
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in document["traceEvents"] if e["ph"] == "X"]
    if not spans:
        return 0.0
    return (max(end for _, end in spans) - min(start for start, _ in spans)) / MICRO
