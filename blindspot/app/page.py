"""The page: a picture and a question at the left, what models say of it at the right; and the pages of runs."""

import asyncio
import html
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from io import BytesIO
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from blindspot.app.guests import SCALE, Guest, Said, Shown, beside
from blindspot.app.runs import file_below, recent_runs
from blindspot.benchmarks.base import Collection, Draw
from blindspot.benchmarks.boxes import Box
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.sources.download import locate
from blindspot.errors import UserError, shortage
from blindspot.evaluation.boxes import Finding
from blindspot.model import images
from blindspot.plots import HUES
from blindspot.scenes.world import CELL, COLOURS, GRID, SHAPES, Thing, draw_distinct, place
from blindspot.text import clean

MOST_BYTES = 64 * 2**20
MOST_SIDE = 2048
"""Pixels of the longer side of a picture that is kept."""
MOST_BOXES = 8
DRAWN = 20
"""Questions of a benchmark that is drawn."""
SECONDS = 3.0
"""Between two looks at the runs."""
MEAN = "mean"
_MAPS = {
    "occlusion": "what the answer loses when covered",
    "gradient": "gradient x input",
    "rollout": "attention, rollout of all layers",
}
_SHADES = 0.8
_TOO_LARGE = f"the picture has more than {MOST_BYTES // 2**20} MB"
_EDIT = "Click an object, then a free place, to move it; a free place alone adds one."
_READ = (
    "Who sees sides turns the answer when the picture is mirrored or the question exchanges them; blind shows what the "
    "words alone say."
)


def serve(guests: Sequence[Guest], runs: Path, data: Path, host: str, port: int) -> None:
    """Serve the page until it is stopped; a port that is taken is refused."""
    nicegui: Any = import_module("nicegui")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise UserError(f"--host {host}: {error.strerror}; choose an address of this machine") from error
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            told = f"{host}:{port} cannot be listened at ({error.strerror}); choose another --port or --host"
            raise UserError(told) from error
    kept = Path(tempfile.mkdtemp(prefix="blindspot-app-"))
    if host in ("127.0.0.1", "localhost"):  # not a name of somebody else's that points here
        trusted = import_module("starlette.middleware.trustedhost").TrustedHostMiddleware
        nicegui.app.add_middleware(trusted, allowed_hosts=["127.0.0.1", "localhost"])
    for where, root in (("runs", runs), ("looks", kept)):
        nicegui.app.get(f"/{where}/{{name:path}}")(partial(file_below, root))
    nicegui.ui.page("/", title="Blindspot", dark=None)(lambda: Page(nicegui.ui, guests, runs, data, kept))
    for guest in guests:
        guest.thread.submit(guest.open)  # an error is said where it is asked
    print(f"Blindspot: http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    try:
        nicegui.ui.run(host=host, port=port, reload=False, show=False, title="Blindspot", show_welcome_message=False,
                       uvicorn_logging_level="error")  # fmt: skip
    finally:
        shutil.rmtree(kept, ignore_errors=True)


@cache
def read_benchmark(name: str, data: Path) -> Collection:
    """The questions of a benchmark; of one that is drawn, a few."""
    where = locate(BENCHMARKS[name], data)
    assert where is not None
    return BENCHMARKS[name].read(where, Draw(questions=DRAWN))


class Page:
    """What one visitor has before them."""

    def __init__(self, ui: Any, guests: Sequence[Guest], runs: Path, data: Path, kept: Path) -> None:
        self._ui, self._guests, self._runs, self._data = ui, guests, runs, data
        self._kept, self._rng = kept, Random()
        self._chosen: int | None = None
        self._overlay, self._turn = "", 0
        self._cards: dict[Guest, Any] = {}
        self._looked: list[Any] = []
        self._shown = self._drawn()
        ui.colors(primary="#3b78b5")
        ui.add_css(".nicegui-content {max-width: 1280px; margin: auto} .answers td {padding: 2px 16px 2px 0}"
                   ".answers .bar {display: flex; gap: 8px; align-items: center; white-space: nowrap}")  # fmt: skip
        with ui.header().classes("items-center q-py-none").style("background: #1f3b57"):
            ui.label("Blindspot").classes("text-lg font-medium")
            with ui.tabs().props("dense no-caps") as tabs:
                ask, runs_tab = ui.tab("Ask"), ui.tab("Runs")
        self._panels = ui.tab_panels(tabs, value=ask, animated=False, on_change=self._show_runs)
        with self._panels.classes("w-full bg-transparent"):
            with ui.tab_panel(ask), ui.row().classes("w-full items-start gap-8 no-wrap max-md:flex-wrap"):
                with ui.column().classes("w-full md:w-[448px] shrink-0 gap-3"):
                    self._left()
                with ui.column().classes("w-full min-w-0 flex-1 gap-3"):
                    self._right()
            with ui.tab_panel(runs_tab):
                self._list = ui.column().classes("w-full gap-2")
                ui.timer(SECONDS, self._show_runs)
        self._draw()
        self._suggest()
        ui.timer(0, self._open, once=True)

    def _left(self) -> None:
        ui = self._ui
        self._canvas = ui.interactive_image(on_mouse=self._click, events=["click"], sanitize=False)
        self._canvas.classes("w-full rounded").props("alt='the picture that is asked about'")
        upload = ui.upload(auto_upload=True, max_file_size=MOST_BYTES, on_upload=self._upload,
                           on_rejected=lambda: self._say(UserError(_TOO_LARGE))).props("accept=image/*")  # fmt: skip
        upload.classes("hidden")
        with ui.row().classes("items-center gap-2"):
            ui.button("Upload a picture", on_click=lambda: upload.run_method("pickFiles")).props("outline no-caps")
            ui.button("Draw a scene", on_click=self._new_scene).props("outline no-caps")
            with ui.dropdown_button("Sample", auto_close=True).props("outline no-caps"):
                for name in (name for name, one in BENCHMARKS.items() if locate(one, self._data) is not None):
                    ui.item(name, on_click=partial(self._sample, name))
        with ui.row().classes("items-center gap-2") as self._tools:
            self._colour = ui.select(list(COLOURS), value="red", label="colour").classes("w-24").props("dense")
            self._shape = ui.select(list(SHAPES), value="circle", label="shape").classes("w-24").props("dense")
            ui.button("Remove", on_click=self._remove).props("flat dense no-caps")
        self._hint = ui.label().classes("text-sm opacity-70")
        self._question = ui.input("Question").classes("w-full").props("outlined dense")
        self._question.on("keydown.enter", self._ask)
        with ui.row().classes("w-full no-wrap gap-2"):
            self._options = ui.input("Options, comma-separated (may be empty)").classes("flex-1")
            self._options.props("outlined dense")
            self._phrase = ui.input("Find (may be empty)").classes("flex-1").props("outlined dense")
        with ui.row().classes("items-center gap-3"):
            self._button = ui.button("Ask", on_click=self._ask).props("no-caps")
            self._follow = ui.switch("ask again when the scene changes", value=True)
        self._inside = ui.switch("show where models take objects to be", on_change=self._ask)

    def _right(self) -> None:
        ui = self._ui
        with ui.tabs().props("dense no-caps align=left") as tabs:
            compare, look = ui.tab("Compare"), ui.tab("Look")
        with ui.tab_panels(tabs, value=compare, animated=False).classes("w-full bg-transparent"):
            with ui.tab_panel(compare).classes("q-px-none"):
                if not self._guests:
                    ui.label("No model is asked yet. Name some: blindspot app MODEL ...")
                else:
                    ui.label(_READ).classes("text-sm opacity-70 q-mb-sm")
                for guest, colour in zip(self._guests, cycle(HUES), strict=False):
                    with ui.card().classes("w-full q-mb-sm").props("flat bordered"):
                        ui.label(guest.name).classes("font-medium").style(
                            f"border-left: 4px solid {colour}; padding-left: 8px"
                        )
                        self._cards[guest] = ui.column().classes("w-full gap-1")
            with ui.tab_panel(look).classes("q-px-none"):
                local = {guest.name: guest for guest in self._guests if guest.local}
                if not local:
                    ui.label("One can look only into models that run here: blindspot app MODEL ...")
                    return
                with ui.row().classes("items-center gap-3"):
                    self._which = ui.select([*local], value=next(iter(local)), label="model").classes("w-56")
                    self._eye = ui.button("Look", on_click=lambda: self._look(local[self._which.value]))
                    self._eye.props("no-caps")
                self._map, self._found = self._looked = [ui.column().classes("w-full") for _ in range(2)]

    async def _open(self) -> None:
        """Wait until models are there, and say so."""
        turn, before = self._turn, self._question.value

        async def opened(guest: Guest, box: Any) -> None:
            with box:
                self._ui.label("opening ...").classes("opacity-70")
            error = await self._in_thread(guest, guest.open)
            if turn == self._turn and not box.is_deleted:  # else it is being asked already
                box.clear()
                with box:
                    self._ui.label(str(error) if error else "ready").classes("text-negative" if error else "opacity-70")

        await asyncio.gather(*(opened(guest, box) for guest, box in self._cards.items()))
        if turn == self._turn and before == self._question.value:
            self._suggest()

    # The picture

    def _draw(self) -> None:
        """Show the picture with what lies over it."""
        self._canvas.set_source(self._shown.picture)
        scene, marks = self._shown.scene, self._overlay
        if scene is not None and self._chosen is not None:
            x0, y0, x1, y1 = (SCALE * edge for edge in scene.things[self._chosen].box)
            marks += _frame(x0, y0, x1, y1, "white", "stroke-dasharray='6 4'")
        self._canvas.set_content(marks)
        self._tools.set_visibility(scene is not None)
        self._follow.set_visibility(scene is not None)
        self._inside.set_visibility(scene is not None and any(guest.local for guest in self._guests))
        self._hint.set_text("" if scene is None else _EDIT)
        if scene is not None and (pair := beside(scene)):
            a, b, side = pair
            self._hint.set_text(f"{_EDIT} True here: {a.colour} {a.shape} {side} {b.colour} {b.shape}.")

    def _change(self, shown: Shown) -> None:
        self._shown, self._overlay = shown, ""
        self._turn += 1
        for box in (*self._cards.values(), *self._looked):
            box.clear()
        self._draw()

    def _new_scene(self) -> None:
        self._chosen = None
        self._change(self._drawn())
        self._suggest()

    def _drawn(self) -> Shown:
        """A scene whose first two objects there is a question about."""
        while not beside(scene := draw_distinct(self._rng, "iid")):
            pass
        return Shown.of(scene)

    def _suggest(self) -> None:
        """A question about the first two objects, in the words that the models know."""
        scene = self._shown.scene
        if scene is not None and (pair := beside(scene)):
            a, b, _ = pair
            self._question.set_value(f"{a.colour} left-of {b.colour}" if any(guest.says_words for guest in self._guests)
                                     else f"Is the {a.colour} {a.shape} left of the {b.colour} {b.shape}?")  # fmt: skip
            self._options.set_value("yes, no")

    async def _upload(self, event: Any) -> None:
        try:
            data = await event.file.read()
            picture = await asyncio.to_thread(images.decode, BytesIO(data), clean(event.file.name, 60))
            images.refuse_elongated(picture)
        except UserError as error:
            return self._say(error)
        picture.thumbnail((MOST_SIDE, MOST_SIDE))
        self._chosen = None
        self._change(Shown(clean(event.file.name, 60), picture))

    async def _sample(self, name: str) -> None:
        """A question of a benchmark about one picture, at random."""
        try:
            collection = await asyncio.to_thread(read_benchmark, name, self._data)
            alone = [one for one in collection.questions if len(one.images) == 1]
            if not alone:
                raise UserError(f"all questions of {name} are about several pictures, and here is one")
            one = self._rng.choice(alone)
            picture = images.decode(BytesIO(collection.images.read(one.images[0])), name)
        except UserError as error:
            return self._say(error)
        picture.thumbnail((MOST_SIDE, MOST_SIDE))
        self._chosen = None
        self._change(Shown(name, picture))
        self._question.set_value(one.prompt)
        self._options.set_value(", ".join(one.choices or (("yes", "no") if one.kind == "yes_no" else ())))
        self._ui.notify(f"{name}, {one.id}: {one.answer} is right")

    async def _click(self, event: Any) -> None:
        scene = self._shown.scene
        if scene is None:
            return
        row, column = (min(GRID - 1, max(0, int(at / (CELL * SCALE)))) for at in (event.image_y, event.image_x))
        at = next((n for n, thing in enumerate(scene.things) if thing.cell == (row, column)), None)
        if at is not None:
            self._chosen = None if at == self._chosen else at
            return self._draw()
        things = list(scene.things)
        if self._chosen is not None:
            moved = things[self._chosen]
            things[self._chosen] = moved._replace(row=row, column=column, x=moved.x + CELL * (column - moved.column),
                                                  y=moved.y + CELL * (row - moved.row))  # fmt: skip
        else:
            things.append(place(self._rng, self._colour.value, self._shape.value, (row, column)))
        await self._edit(things)

    async def _remove(self) -> None:
        scene = self._shown.scene
        if scene is None or self._chosen is None:
            return self._say(UserError("click the object that is to go first"))
        things = [thing for n, thing in enumerate(scene.things) if n != self._chosen]
        self._chosen = None
        await self._edit(things)

    async def _edit(self, things: list[Thing]) -> None:
        scene = self._shown.scene
        assert scene is not None
        self._change(Shown.of(scene._replace(things=tuple(things))))
        if self._follow.value and self._question.value.strip() and self._guests:
            await self._ask()

    # Asking

    def _say(self, error: UserError) -> None:
        self._ui.notify(str(error), type="warning", multi_line=True, close_button="close", timeout=0)

    async def _in_thread(self, guest: Guest, work: Callable[..., Any], *arguments: Any) -> Any:
        """What a guest does, in its thread; what goes wrong comes back as the one line that it is."""
        try:
            return await asyncio.get_running_loop().run_in_executor(guest.thread, work, *arguments)
        except UserError as error:
            return error
        except Exception as error:  # of libraries, about a picture or a model: the page goes on
            return UserError(shortage(error) or f"{type(error).__name__}: {clean(str(error), 300)}")

    async def _ask(self) -> None:
        shown, question, phrase = self._shown, self._question.value or "", (self._phrase.value or "").strip()
        options = [one.strip() for one in (self._options.value or "").split(",") if one.strip()]
        if not question.strip():
            return self._say(UserError("say what to ask"))
        self._overlay, self._turn = "", self._turn + 1
        self._button.disable()
        try:
            await asyncio.gather(*(self._ask_one(guest, colour, shown, question, options, phrase)
                                   for guest, colour in zip(self._guests, cycle(HUES), strict=False)))  # fmt: skip
        finally:
            self._button.enable()

    async def _ask_one(
        self, guest: Guest, colour: str, shown: Shown, question: str, options: list[str], phrase: str
    ) -> None:
        box, ui, turn = self._cards[guest], self._ui, self._turn
        box.clear()
        with box:
            ui.spinner(size="sm")

        def still(work: Callable[..., Any], *arguments: Any) -> Any:  # a key that is held asks many times
            return work(*arguments) if turn == self._turn else None

        said = await self._in_thread(guest, still, guest.ask, shown, question, options)
        found = await self._in_thread(guest, still, guest.find, shown, phrase) if phrase else None
        looks = self._inside.value and shown.scene is not None and guest.local
        inside = await self._in_thread(guest, still, guest.inner, shown) if looks else None
        if turn != self._turn or box.is_deleted:  # something else is asked by now, or nobody is there
            return
        box.clear()
        with box:
            if isinstance(said, UserError):
                ui.label(str(said)).classes("text-negative")
            else:
                ui.html(_answers(said), sanitize=False).classes("w-full")
                if options and not guest.local:
                    ui.label("a server gives no likelihoods of options").classes("text-sm opacity-70")
            if isinstance(found, UserError):
                ui.label(str(found)).classes("text-negative text-sm")
            elif found is not None:
                ui.label("; ".join((f"{phrase}: {clean(found.raw, 80)}", *found.remarks))).classes("text-sm")
                self._overlay += "".join(_boxes(found, guest.scale(shown), colour))
            if inside is not None:
                ui.label(str(inside) if isinstance(inside, UserError) else inside.said).classes("text-sm opacity-70")
                self._overlay += "" if isinstance(inside, UserError) else "".join(_led(inside.lines, colour))
            self._draw()

    # Looking

    async def _look(self, guest: Guest) -> None:
        shown, question, ui = self._shown, self._question.value or "", self._ui
        if not question.strip():
            return self._say(UserError("say what to ask"))
        folder = Path(tempfile.mkdtemp(dir=self._kept))
        at = [0, 1]

        def told(_: str, done: int, of: int) -> None:
            at[:] = done, of

        self._map.clear()
        self._found.clear()
        with self._found:
            bar = ui.linear_progress(0, show_value=False)
            timer = ui.timer(0.3, lambda: bar.set_value(at[0] / max(at[1], 1)))
        self._eye.disable()
        try:
            said = await self._in_thread(guest, guest.look, shown, question, folder, told)
        finally:
            self._eye.enable()
        if self._found.is_deleted or shown is not self._shown:
            return
        timer.cancel()
        self._found.clear()
        with self._found:
            if isinstance(said, UserError):
                ui.label(str(said)).classes("text-negative")
                return
            for sentence in said:
                ui.label(sentence)
            ui.link("the whole page", f"/looks/{folder.name}/index.html", new_tab=True)
        with np.load(folder / "photo.npz") as arrays:
            maps = dict(_maps({name: arrays[name] for name in arrays.files}))
        if not maps:
            return

        def heated() -> None:
            if shown is self._shown:
                heads.set_visibility(len(maps[over.value]) > 1)
                of_heads = maps[over.value]
                values_hw = of_heads.get(heads.value, of_heads[MEAN])
                scale.set_text(f"darkest: {values_hw.max():.2g}" if values_hw.max() > 0 else "nothing above 0")
                self._overlay = heat(values_hw, window)
                self._draw()

        window = await self._in_thread(guest, guest.window, shown)
        with self._map, ui.row().classes("items-center gap-3"):
            over = ui.select([*maps], value=next(iter(maps)), label="shown over the picture", on_change=heated).classes(
                "w-72"
            )
            most = max(maps.values(), key=len)
            heads = ui.select([*most], value=MEAN, label="head", on_change=heated).classes("w-28")
            scale = ui.label().classes("text-sm opacity-70")
        heated()

    # Runs

    async def _show_runs(self) -> None:
        if self._panels.value != "Runs":
            return
        rows = await asyncio.to_thread(recent_runs, self._runs)
        if rows == getattr(self, "_rows", None) or self._list.is_deleted:
            return
        self._rows, ui = rows, self._ui
        self._list.clear()
        with self._list:
            if not rows:
                ui.label(f"No run lies in {self._runs}; blindspot study miniature makes one.")
            for name, said, page in rows:
                with ui.row().classes("items-baseline gap-4 w-full"):
                    ui.link(name, page, new_tab=True) if page else ui.label(name)
                    ui.label(said).classes("text-sm opacity-70")


def _answers(said: Sequence[Said]) -> str:
    """A table of answers, with bars for options."""
    rows = ""
    for one in said:
        bars = "".join(
            f'<div class="bar"><span style="min-width: 2em">{html.escape(option)}</span>'
            f'<span style="background: {HUES[0]}; height: 8px; width: {share * 60:.0f}px"></span>{share:.0%}</div>'
            for option, share in one.shares.items()
        )
        raw = html.escape(clean(one.raw, 400)) or "(nothing)"
        rows += f"<tr><td style='opacity: .7'>{one.condition}</td><td>{raw}</td><td class='text-sm'>{bars}</td></tr>"
    return f"<table class='answers'>{rows}</table>"


def _boxes(found: Finding, scale: float, colour: str) -> Iterator[str]:
    """Boxes, and points as small ones."""
    for spot in found.located.places[:MOST_BOXES]:
        x0, y0, x1, y1 = (scale * number for number in (spot.numbers if spot.box else (*spot.numbers, *spot.numbers)))
        yield _frame(x0, y0, x1, y1, colour) if spot.box else _frame(x0 - 4, y0 - 4, x1 + 4, y1 + 4, colour)


def _led(lines: Sequence[Box], colour: str) -> Iterator[str]:
    """Lines from where objects are to dots where they are taken to be."""
    for x0, y0, x1, y1 in lines:
        yield f"<line x1='{x0:.1f}' y1='{y0:.1f}' x2='{x1:.1f}' y2='{y1:.1f}' stroke='{colour}' stroke-width='3'/>"
        yield f"<circle cx='{x1:.1f}' cy='{y1:.1f}' r='9' fill='{colour}' stroke='white' stroke-width='3'/>"


def _frame(x0: float, y0: float, x1: float, y1: float, colour: str, more: str = "") -> str:
    return (f"<rect x='{x0:.1f}' y='{y0:.1f}' width='{x1 - x0:.1f}' height='{y1 - y0:.1f}' fill='none' "
            f"stroke='{colour}' stroke-width='4' {more}/>")  # fmt: skip


def _maps(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Maps of the picture by what they are called: their mean, and of attention those of the heads."""
    for name, said in _MAPS.items():
        if name in arrays:
            yield said, {MEAN: arrays[name]}
    for layer, mean_hw, heads_khw in zip(
        *(arrays.get(name, ()) for name in ("layers", "attention", "heads")), strict=True
    ):
        yield f"attention in layer {layer}", {MEAN: mean_hw, **{str(n): map_hw for n, map_hw in enumerate(heads_khw)}}


def heat(values_hw: np.ndarray, window: Box) -> str:
    """A map over a window of a picture, as SVG: the larger the value, the more is covered in vermilion.

    What lies below 0 is not shown.
    """
    shares_hw = np.clip(values_hw, 0, None) / max(float(values_hw.max()), 1e-12)
    (rows, columns), (x0, y0, x1, y1) = values_hw.shape, window
    wide, high = (x1 - x0) / columns, (y1 - y0) / rows
    return "".join(
        f'<rect x="{x0 + column * wide:.1f}" y="{y0 + row * high:.1f}" width="{wide:.1f}" height="{high:.1f}" '
        f'fill="{HUES[1]}" opacity="{_SHADES * share:.2f}"/>'
        for (row, column), share in np.ndenumerate(shares_hw)
    )
