"""The page itself: components of Gradio and what they call."""

import functools
import html
import logging
import os
from abc import ABCMeta
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import gradio as gr
from gradio_client.utils import is_http_url_like
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mmstvit.apis.predict.run import skip_reason
from mmstvit.errors import UserError

from .service import Row, Service, View

EXAMPLES = Path('data/scenes/coco/val')
TITLE = 'STViT: look at super tokens'
WAITING = 'Drop an image at the left, or choose one of the examples.'
INTRODUCTION = (
    'Choose a model and an image: its prediction, its super tokens, and the attention of the point on which you click. '
    'Everything stays on the machine that serves this page.'
)
logger = logging.getLogger('mmstvit.app')

CSS = """
.gradio-container {width: 100%; max-width: 1600px !important; margin: 0 auto; padding: 14px 20px !important;}
#title h1 {font-size: 1.4rem; margin: 0;}
#title p, #tokens-note, #attention-note {opacity: .75;}
#title p {margin: 2px 0 0;}
#attention img {cursor: crosshair;}
#stvit-examples .gallery {display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px;}
#stvit-examples :is(span, .container, img) {display: block; width: 100%; height: 100%; max-width: none; margin: 0;}
#stvit-examples img {aspect-ratio: 1; object-fit: cover;}
.stvit-status {padding: 6px 12px; border-left: 3px solid var(--color-accent); font-size: .9rem;}
.stvit-status.error {border-color: #c2410c; background: color-mix(in srgb, #c2410c 9%, transparent);}
#rows {font-size: .9rem; max-height: 230px; overflow-y: auto;}
#rows h3 {font-size: .9rem; font-weight: 600; margin: 0 0 4px;}
.stvit-row {display: grid; grid-template-columns: minmax(112px, 1fr) 2fr 44px; gap: 8px; align-items: center;
            margin: 2px 0;}
.stvit-row i {display: inline-block; width: 12px; height: 12px; margin-right: 8px; border-radius: 3px;
              vertical-align: -1px;}
.stvit-row b {display: block; height: 8px; border-radius: 4px; background: var(--color-accent);}
.stvit-row span:first-child {overflow: hidden; text-overflow: ellipsis; white-space: nowrap;}
.stvit-row span:last-child {text-align: right;}
#tokens-note, #attention-note {font-size: .88rem; line-height: 1.4;}
"""


class NoAddresses:
    """Middleware that refuses to fetch addresses for a browser, which some routes of Gradio do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        path = scope.get('path', '').lower()
        if any(part in path for part in ('http:', 'https:', '/proxy=')):
            await PlainTextResponse('This page does not fetch addresses.', 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def _keep_local(image: gr.Image, path: str | Path | None) -> str | None:
    if is_http_url_like(str(path)):
        raise gr.Error('This page does not fetch addresses.', print_exception=False)
    return await gr.Image.async_move_resource_to_block_cache(image, path)


# An image of which only the path is taken. gr.Image would fetch addresses, and decode a file before its size is known.
# Made in this way, because a class statement would make Gradio write a file page.pyi beside this one.
LocalImage = ABCMeta.__new__(
    type(gr.Image),
    'LocalImage',
    (gr.Image,),
    dict(
        is_template=True,  # the browser shows it as a gr.Image
        async_move_resource_to_block_cache=_keep_local,
        preprocess=lambda image, payload: payload and payload.path,
    ),
)


def serve(service: Service, host: str, port: int, cache: str) -> gr.Blocks:
    """Start the server in a thread; returns the page, whose ``close()`` stops it.

    Args:
        service: Models and limits.
        host: Address at which the page can be reached.
        port: Port.
        cache: Folder for uploads and pictures, which Gradio serves.

    Raises:
        UserError: The page cannot be served there.
    """
    # Gradio has no arguments for these. It serves what is in its caches, and what GRADIO_ALLOWED_PATHS names.
    os.environ.update(GRADIO_TEMP_DIR=cache, GRADIO_EXAMPLES_CACHE=cache, GRADIO_ALLOWED_PATHS='')
    page = Page(service, Path(cache)).blocks
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=service.max_bytes,
            state_session_capacity=100,
            app_kwargs=dict(middleware=[Middleware(NoAddresses)]),
            theme=gr.themes.Default(primary_hue='teal', spacing_size='sm'),
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
        )
    except (OSError, OverflowError) as error:  # OverflowError: no such port
        raise UserError(
            f'The page cannot be served at {host}:{port}: the port is in use or not allowed, '
            'or this machine does not have the address.',
            'Choose another --port or --host.',
        ) from error
    return page


class Page:
    """Components and the functions that they call. What a user sees is kept in a state of the tab, not here.

    Args:
        service: Models and limits.
        cache: Folder for example images.
    """

    def __init__(self, service: Service, cache: Path) -> None:
        self.service = service
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self._lay_out(find_examples(cache))
            self._connect()
        # Calls wait for each other in the service; drawing and encoding need not.
        self.blocks.queue(default_concurrency_limit=4, max_size=64)

    def _lay_out(self, examples: list[Path]) -> None:
        self.view = gr.State(None, time_to_live=3600)
        gr.HTML(f'<h1>{TITLE}</h1><p>{INTRODUCTION}</p>', elem_id='title', padding=False)
        self.status = gr.HTML(_line(WAITING), elem_id='status', padding=False)
        with gr.Row():
            self.checkpoint = gr.Dropdown(
                label=f'Model: a checkpoint in {self.service.folder}', allow_custom_value=True, scale=7, min_width=300
            )
            self.stage = gr.Radio([0, 1, 2, 3], value=0, label='Stage', scale=4, min_width=230)
            self.block = gr.Slider(0, 1, 0, step=1, label='Block of the stage', scale=4, min_width=200, buttons=[])
        with gr.Row():
            with gr.Column(scale=3, min_width=220):
                self.image = LocalImage(label='Image', sources=['upload', 'clipboard'], height=230, buttons=[])
                if examples:
                    gr.Examples(
                        [str(path) for path in examples], self.image, examples_per_page=9, elem_id='stvit-examples'
                    )
            with gr.Column(scale=4, min_width=240):
                self.prediction = gr.Image(label='Prediction', interactive=False, buttons=['fullscreen'])
                self.rows = gr.HTML(elem_id='rows', padding=False)
            with gr.Column(scale=4, min_width=240):
                self.tokens = gr.ImageSlider(label='Image and super tokens', buttons=['fullscreen'])
                self.tokens_note = gr.HTML(elem_id='tokens-note', padding=False)
            with gr.Column(scale=4, min_width=240):
                self.attention = gr.Image(
                    label='Attention of a point', interactive=False, buttons=['fullscreen'], elem_id='attention'
                )
                self.attention_note = gr.HTML(elem_id='attention-note', padding=False)

    def _connect(self) -> None:
        maps = [self.block, self.tokens, self.tokens_note, self.attention, self.attention_note, self.status]
        everything = [self.view, self.prediction, self.rows, *maps]
        self.nothing = {part: None for part in everything} | {self.block: gr.skip()}
        chosen = [self.stage, self.block]
        self.blocks.load(self.list_checkpoints, None, self.checkpoint, show_progress='hidden')
        gr.on(
            [self.checkpoint.change, self.image.change],
            self._guarded(self.show, self.nothing),
            [self.checkpoint, self.image, *chosen],
            everything,
            trigger_mode='always_last',
            show_progress_on=[self.prediction, self.tokens, self.attention],
        )
        for event in (self.stage.input, self.block.input):
            event(
                self._guarded(self.draw),
                [self.view, *chosen],
                maps,
                trigger_mode='always_last',
                show_progress='hidden',
            )
        self.attention.select(
            self._guarded(self.attend),
            [self.view, *chosen],
            [self.view, *maps],
            trigger_mode='always_last',
            show_progress='minimal',
            show_progress_on=self.attention,
        )

    def _guarded(self, function: Callable[..., dict], rest: Mapping = MappingProxyType({})) -> Callable[..., dict]:
        """Return a function that answers an error with a sentence, and with ``rest``."""

        @functools.wraps(function)
        def call(*args: object) -> dict:
            try:
                return function(*args)
            except UserError as error:
                text = str(error)
            except Exception as error:  # models and pipelines raise all kinds of errors
                logger.exception('A call of the page failed.')
                text = f'That failed: {skip_reason(error)} (details are in the log of the server)'
            return {**rest, self.status: _line(text, 'error')}

        return call

    def list_checkpoints(self) -> gr.Dropdown:
        """List the checkpoints when the page is opened, and choose the first."""
        found = self.service.checkpoints()
        return gr.Dropdown(choices=found, value=found[0] if found else None)

    def show(self, checkpoint: str | None, image: str | None, stage: int, block: int) -> dict:
        """Show the prediction and the maps of an image."""
        if not (checkpoint or '').strip():
            raise UserError(
                'No checkpoint is chosen.',
                'Choose one in the list. If it is empty, run make demo and reload this page.',
            )
        if not image:
            return self.nothing | {self.status: _line(WAITING)}
        view = self.service.view(checkpoint, image)
        return self.draw(view, stage, block) | {
            self.view: view,
            self.prediction: view.prediction,
            self.rows: _list(view.heading, view.rows),
        }

    def attend(self, view: View | None, stage: int, block: int, event: gr.SelectData) -> dict:
        """Show the attention of the point that was clicked."""
        if view is None:
            return {self.status: gr.skip()}
        self.service.attend(view, view.to_point(*event.index))
        return {self.view: view} | self.draw(view, stage, block)

    def draw(self, view: View | None, stage: int, block: int) -> dict:
        """Draw the maps of a block."""
        if view is None:
            return {self.status: gr.skip()}
        depth = view.depths()[stage]
        block = min(int(block), depth - 1)
        at = stage, block
        record = view.attention[at]
        grid, side = ' × '.join(map(str, record.grid)), record.stride
        if at in view.tokens:
            note = f'{grid} super tokens, each in its mean color; the grid from which they start has cells of '
            note += f'{record.stoken_size * side} × {record.stoken_size * side} pixels.'
        else:
            note = (
                f'Stage {stage} has global attention: its {grid} tokens of {side} × {side} pixels are the super tokens.'
            )
        x, y = view.point
        return {
            self.block: gr.Slider(maximum=max(depth - 1, 1), value=block, visible=depth > 1),
            self.tokens: (view.picture, view.draw_tokens(*at)),
            self.tokens_note: note,
            self.attention: view.draw_attention(*at),
            self.attention_note: f'Stage {stage} block {block}: attention of the point ({x}, {y}); bright is high. '
            'Click on the image to choose another point.',
            self.status: _line(_describe(view)),
        }


def find_examples(cache: Path) -> list[Path]:
    """Find a few of the bundled scenes, else photographs of scikit-image, if it is installed."""
    if scenes := sorted(EXAMPLES.glob('*.jpg'))[1:7]:
        return scenes
    try:
        from skimage import data, io
    except ImportError:
        return []
    paths = [cache / f'{name}.png' for name in ('chelsea', 'coffee', 'astronaut')]
    for path in paths:
        io.imsave(path, getattr(data, path.stem)(), check_contrast=False)
    return paths


def _line(text: str, kind: str = '') -> str:
    return f'<div class="stvit-status {kind}" role="status">{html.escape(text)}</div>'


def _describe(view: View) -> str:
    """Return the status of a view: model, sizes, seconds."""
    height, width = next(iter(view.attention.values())).size
    times = ', '.join(f'{name} {seconds:.2f} s' for name, seconds in view.times.items())
    size = '{} × {} pixels'.format(*view.size)
    resized = f', resized to {width} × {height}' if view.size != (width, height) else ''
    return f'{view.checkpoint} · image {size}{resized} · {times}'


def _list(heading: str, rows: list[Row]) -> str:
    """Return the rows below a prediction: color, name, bar and value."""
    lines = [f'<h3>{heading}</h3>']
    for row in rows:
        color = 'rgb({},{},{})'.format(*row.color) if row.color else 'var(--color-accent)'
        chip = f'<i style="background:{color}"></i>' if row.color else ''
        lines.append(
            f'<div class="stvit-row"><span title="{html.escape(row.name)}">{chip}{html.escape(row.name)}</span>'
            f'<span><b style="width:{row.value:.1%};background:{color}"></b></span><span>{row.text}</span></div>'
        )
    return '\n'.join(lines if rows else [*lines, 'None.'])
