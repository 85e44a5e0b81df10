"""The encoders of a denoiser in a forecast: what a scenario may ask of them."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models.encoders import KINDS, TEXT, with_encoders
from roofcast.simulator.work.model import Model


def encoders_of(s: Scenario, model: Model) -> Model:
    """The denoiser with the encoders that a scenario runs in each step, or as it is.

    Raises BadInput or UnknownName for what cannot be.
    """
    if s.encoders is None and not s.train_text_encoder:
        return model
    said = f"encoders {s.encoders}" if s.encoders is not None else "train_text_encoder"
    run = tuple(filter(None, map(str.strip, (s.encoders or "").split(","))))
    for kind in run:
        if kind not in KINDS:
            raise unknown("encoders", kind, KINDS, f"known: {', '.join(KINDS)}")
    if s.encoders is not None and not run:
        raise BadInput(f"encoders: none is named; known: {', '.join(KINDS)}, for example vae,text")
    if s.mode == "infer":
        raise BadInput(f"{said}: an inference step is the denoiser alone; leave it out")
    if (s.pp or 1) > 1 or s.zero == 3:
        option = "--zero 3" if s.zero == 3 else "--pp"
        raise BadInput(
            f"{said} with {option}: encoders are modelled whole on every rank, or cut by --tp; use"
            " --tp, --dp and --zero up to 2"
        )
    trained = bool(s.train_text_encoder)
    wanted = tuple(kind for kind in KINDS if kind in run or (trained and kind == TEXT))
    return with_encoders(model, wanted, trained)
