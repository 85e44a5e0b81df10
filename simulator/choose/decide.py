"""Decides the layouts of a search as `predict` decides one: each rule is asked once for every
combination of the options that it reads, and its answer holds for all rows with these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choose.distinct import Column, column, combined
from roofcast.simulator.forecast.layouts import OF_SEVERAL, RULES, Rule, asks_for_several
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.resolve import Named, layout_asked, on_whole_system, routed
from roofcast.simulator.forecast.run import run_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.step import Recipe

FIELDS = tuple(name for rule in RULES for name in rule.gives)  # of a Layout


class Refusal(NamedTuple):
    """Why rows are invalid."""

    first: int  # of the rows
    error: RoofcastError
    rows: int  # how many


class Decided(NamedTuple):
    """The rows of a search that can be, as far as it is known before anything is traced."""

    rows: np.ndarray  # layouts of several devices, ascending
    alone: np.ndarray  # scenarios on one device
    fields: dict[str, Column]  # of a Layout, of `rows`
    recipes: list[Recipe]  # of the global batch
    recipe: Column  # index into `recipes`, of `rows`
    refusals: list[Refusal]

    def layout(self, i: int) -> Layout:
        """The layout of the i-th of `rows`."""
        return Layout(**{n: c.values[c.codes[i]] for n, c in self.fields.items()})


def decide(scenario: Scenario, names: Named, options: dict[str, Column]) -> Decided:
    """Everything that `predict` decides before it forecasts, for each row of the options: of all
    options of a layout and `recompute`. Raises the error of a recipe where all recipes are invalid.
    """
    it = _Deciding(scenario, names, options)
    it.check_types()
    if names.system is not None:
        it.ask(it.options, ("devices", "dp"), ("devices",), it.on_whole_system)
    degrees = () if scenario.batch is not None else ("devices", "tp", "cp", "pp", "dp")
    it.decide_recipes(("recompute", "offload", *degrees))
    alone = it.taken(~it.several())
    it.choose_micro_batches()
    it.tell(("recipe",), ("batch", "size"), it.batch_and_size)
    for rule in RULES:
        it.ask_rule(rule)
    it.tell(("recipe", "ep", "etp"), ("recipe",), it.routed)
    values, codes = it.known["recipe"]
    recipe = Column(values, codes[it.live])
    fields = {}
    for name in FIELDS:
        values, codes = it.known[name]
        fields[name] = Column(values, codes[it.live])
    return Decided(it.live, alone, fields, it.recipes, recipe, it.refusals)


class _Deciding:
    """The rows of a search while they are decided."""

    def __init__(self, scenario: Scenario, names: Named, options: dict[str, Column]) -> None:
        self.scenario, self.names, self.options = scenario, names, dict(options)
        self.same = np.zeros(len(next(iter(options.values())).codes), dtype=np.uint8)
        self.live = np.arange(len(self.same))  # rows not refused so far
        self.known: dict[str, Column] = {}  # what is decided, of the rows that live
        self.recipes: list[Recipe] = []
        self.refusals: list[Refusal] = []

    def scenario_of(self, row: int) -> Scenario:
        """The scenario of a row."""
        options = {n: c.values[c.codes[row]] for n, c in self.options.items()}
        return msgspec.structs.replace(self.scenario, **options)

    def taken(self, which: np.ndarray) -> np.ndarray:
        """Rows that are not to be decided further. which: of those that live."""
        rows, self.live = self.live[which], self.live[~which]
        return rows

    def ask(
        self,
        into: dict[str, Column],
        reads: Sequence[str],
        gives: Sequence[str],
        answer: Callable[..., tuple],
        knows: Sequence[str] = (),
    ) -> None:
        """Put the answer for every combination of the options and known columns `into` columns;
        refuse the rows for which it raises an error.
        """
        columns = [*(self.options[n] for n in reads), *(self.known[n] for n in knows)]
        alike = all(len(values) <= 1 for values, _ in columns)
        rows = self.live[:1] if alike else self.live
        codes, count = combined(columns, rows, len(rows) == len(self.same))
        of_row = np.full(count, -1)
        of_row[codes] = rows  # a row of each combination that there is
        there = np.flatnonzero(of_row >= 0)
        values = [[c.values[i] for i in c.codes[of_row[there]].tolist()] for c in columns]
        answers: list[tuple] = []
        place = np.full(count, -1)  # of each combination, its answer
        errors: dict[int, RoofcastError] = {}
        for i, combination in enumerate(there.tolist()):
            try:
                answers.append(answer(*(of_column[i] for of_column in values)))
                place[combination] = len(answers) - 1
            except RoofcastError as error:
                errors[combination] = error
        if errors:
            codes = np.zeros(len(self.live), dtype=np.intp) if alike else codes
            codes = self._refuse(codes, place, errors)
        for i, name in enumerate(gives):
            found = column(each[i] for each in answers)
            if len(found.values) <= 1:
                into[name] = Column(found.values, self.same)
                continue
            of_all = np.zeros(len(self.same), dtype=found.codes.dtype)
            of_all[self.live] = found.codes[place][codes]
            into[name] = Column(found.values, of_all)

    def _refuse(
        self, codes: np.ndarray, place: np.ndarray, errors: dict[int, RoofcastError]
    ) -> np.ndarray:
        """Refuse the rows whose combination has no place, and the codes of the others."""
        keep = place[codes] >= 0
        bad, rows = codes[~keep], self.live[~keep]
        count, first = np.bincount(bad), np.empty(len(place), dtype=np.intp)
        first[bad[::-1]] = rows[::-1]  # the first row of each is written last
        for i, error in errors.items():
            self.refusals.append(Refusal(int(first[i]), error, int(count[i])))
        self.live = self.live[keep]
        return codes[keep]

    def tell(
        self, knows: Sequence[str], gives: Sequence[str], answer: Callable[..., tuple]
    ) -> None:
        """Ask for combinations of known columns alone."""
        self.ask(self.known, (), gives, answer, knows)

    def ask_rule(self, rule: Rule) -> None:
        """Ask a rule of layouts. It sees nothing of a row but what it says that it reads."""
        same = {
            n: v for n, v in msgspec.structs.asdict(self.scenario).items() if n not in self.options
        }
        options, decided = SimpleNamespace(**same), SimpleNamespace()
        many = len(rule.reads)

        def answer(*values: Any) -> tuple:
            vars(options).update(zip(rule.reads, values, strict=False))
            vars(decided).update(zip(rule.knows, values[many:], strict=True))
            return rule.decide(options, decided, self.names.model, [])

        self.ask(self.known, rule.reads, rule.gives, answer, rule.knows)

    def check_types(self) -> None:
        """Refuse rows with a value that no scenario can have, and read the others as it reads
        them.
        """
        bad = []
        for name, (values, codes) in self.options.items():
            read = []
            try:
                for v in values:
                    read.append(getattr(msgspec.structs.replace(self.scenario, **{name: v}), name))
                self.options[name] = Column(read, codes)
            except RoofcastError:
                bad.append(name)

        def check(*values: Any) -> tuple[()]:
            msgspec.structs.replace(self.scenario, **dict(zip(bad, values, strict=True)))
            return ()

        if bad:
            self.ask(self.options, bad, (), check)

    def on_whole_system(self, devices: int | None, dp: int | None) -> tuple[int | None]:
        """The number of devices, that of the system where a row does not say it."""
        given = msgspec.structs.replace(self.scenario, devices=devices, dp=dp)
        return (on_whole_system(given, self.names.system).devices,)

    def decide_recipes(self, reads: Sequence[str]) -> None:
        """The recipe of each row. Raises the first error where none has any."""

        def answer(*values: Any) -> tuple[int]:
            s = msgspec.structs.replace(self.scenario, **dict(zip(reads, values, strict=True)))
            recipe, _ = recipe_of(s, self.names.model, self.names.device)
            run_of(s, recipe, self.names.model, self.names.device)
            self.recipes.append(recipe)
            return (len(self.recipes) - 1,)

        before = len(self.refusals)
        self.ask(self.known, reads, ("recipe",), answer)
        if not self.recipes and len(self.refusals) > before:
            raise min(self.refusals[before:], key=lambda each: each.first).error

    def several(self) -> np.ndarray:
        """Of the rows that live, which ask for several devices."""
        some: list[np.ndarray] = []
        for name in OF_SEVERAL:
            values, codes = self.options.get(name) or Column(
                [getattr(self.scenario, name)], self.same
            )
            asks = np.array([asks_for_several(name, v) for v in values])
            if asks.all():
                return np.ones(len(self.live), dtype=bool)
            if asks.any():
                some.append(asks[codes[self.live]])
        return np.logical_or.reduce(some) if some else np.zeros(len(self.live), dtype=bool)

    def choose_micro_batches(self) -> None:
        """The micro-batch of rows without one and without a pipeline, which are decided one by one:
        it depends on the memory of the whole layout.
        """
        values, codes = self.options["micro_batch"]
        if all(v is not None for v in values):
            return
        stages, of_row = self.options["pp"]
        absent = np.array([v is None for v in values])[codes[self.live]]
        absent &= np.array([(n or 1) == 1 for n in stages])[of_row[self.live]]
        values, codes, refused = list(values), codes.astype(np.intp), []
        recipe = self.known["recipe"]
        for row in self.live[absent].tolist():
            decided = self.recipes[recipe.values[recipe.codes[row]]]
            try:
                layout = layout_asked(self.scenario_of(row), self.names, decided).layout
            except RoofcastError as error:
                self.refusals.append(Refusal(row, error, 1))
                refused.append(row)
                continue
            codes[row] = len(values)
            values.append(layout.micro_batch)
        self.live = np.setdiff1d(self.live, refused, assume_unique=True)
        self.options["micro_batch"] = Column(values, codes)

    def batch_and_size(self, recipe: int) -> tuple[int, int | None]:
        """Samples of a step, and tokens of a sample."""
        return self.recipes[recipe].batch, self.recipes[recipe].size

    def routed(self, recipe: int, ep: int, etp: int) -> tuple[int]:
        """The recipe as the layout allows."""
        before = self.recipes[recipe]
        changed = routed(before, Layout(ep=ep, etp=etp), self.names.model)
        if changed is before:
            return (recipe,)
        if changed not in self.recipes:
            self.recipes.append(changed)
        return (self.recipes.index(changed),)
