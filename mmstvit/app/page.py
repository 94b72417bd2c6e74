"""The page itself: components of Gradio and what they call."""

import argparse
import functools
import html
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from mmstvit.apis.predict.run import skip_reason
from mmstvit.errors import UserError

from .pictures import ClassScore, draw_maps
from .service import Service

EXAMPLES = Path('data/scenes/coco/val')
TITLE = 'STViT: look at super tokens'
WAITING = 'Drop an image at the left, or choose one of the examples.'
INTRODUCTION = (
    'Choose a model and an image: its prediction, its super tokens, and the attention of the point on which you click. '
    'Everything stays on the machine that serves this page.'
)
# Nothing of Gradio that sends, fetches, executes or keeps anything.
QUIET = dict(share=False, ssr_mode=False, mcp_server=False, pwa=False, run_history=False, enable_monitoring=False)
logger = logging.getLogger('mmstvit.app')


async def refuse_addresses(request: Request, call_next: Callable) -> Response:
    """Refuse requests that name an address in place of a file, because Gradio 6.31 fetches it."""
    path = request.url.path.lower()
    refused = any(part in path for part in ('http:', 'https:', '/proxy='))
    if request.method == 'POST' and path != '/gradio_api/upload':
        refused = refused or names_an_address(await request.body())
    return PlainTextResponse('This page does not fetch addresses.', 403) if refused else await call_next(request)


def names_an_address(body: bytes) -> bool:
    """Return True if JSON names an address as the path of a file, or cannot be read."""

    def check(pairs: list[tuple[str, object]]) -> None:
        if any(key == 'path' and str(value).lower().startswith(('http:', 'https:')) for key, value in pairs):
            raise ValueError

    try:
        json.loads(body or b'null', object_pairs_hook=check)
    except (ValueError, RecursionError):
        return True
    return False


def serve(args: argparse.Namespace, cache: Path) -> gr.Blocks:
    """Start the server in a thread; returns the page, whose ``close()`` stops it.

    Args:
        args: Options of the command.
        cache: Folder for uploads and pictures, which Gradio serves.

    Raises:
        UserError: The page cannot be served there.
    """
    # Gradio 6.31 has no arguments for these. It serves what is in its caches, and what GRADIO_ALLOWED_PATHS names.
    os.environ.update(GRADIO_TEMP_DIR=str(cache), GRADIO_EXAMPLES_CACHE=str(cache), GRADIO_ALLOWED_PATHS='')
    page = Page(Service(args.dir, args.device, args.max_pixels), cache).blocks
    try:
        page.launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size=args.max_bytes,
            state_session_capacity=100,
            app_kwargs=dict(middleware=[Middleware(BaseHTTPMiddleware, dispatch=refuse_addresses)]),
            theme=gr.themes.Default(primary_hue='teal', spacing_size='sm'),
            css_paths=Path(__file__).with_suffix('.css'),
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
            **QUIET,
        )
    except (OSError, OverflowError) as error:  # OverflowError: no such port
        raise UserError(
            f'The page cannot be served at {args.host}:{args.port}: the port is in use or not allowed, '
            'or this machine does not have the address.',
            'Choose another --port or --host.',
        ) from error
    return page


class Page:
    """Components and the functions that they call; the point of a click is kept in a state of the tab, not here.

    Args:
        service: Models and limits.
        cache: Folder of the uploads.
    """

    def __init__(self, service: Service, cache: Path) -> None:
        self.service, self.cache = service, cache.resolve()
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self._lay_out()
            self._connect()
        # Calls wait for each other in the service; drawing and encoding need not.
        self.blocks.queue(default_concurrency_limit=4, max_size=64)

    def _lay_out(self) -> None:
        column, picture = functools.partial(gr.Column, scale=4, min_width=240), dict(buttons=['fullscreen'])
        self.point = gr.State(None, time_to_live=3600)
        gr.HTML(f'<h1>{TITLE}</h1><p>{INTRODUCTION}</p>', elem_id='title')
        self.status = gr.HTML(status_line(WAITING), elem_id='status')
        with gr.Row():
            label = f'Model: a checkpoint in {self.service.folder}'
            self.checkpoint = gr.Dropdown(label=label, allow_custom_value=True, scale=7, min_width=300)
            self.stage = gr.Radio([0, 1, 2, 3], value=0, label='Stage', scale=4, min_width=230)
            self.block = gr.Slider(0, 1, 0, step=1, label='Block of the stage', scale=4, min_width=200, buttons=[])
        with gr.Row():
            with column(scale=3, min_width=220):
                self.image = gr.Image(label='Image', sources=['upload', 'clipboard'], height=230, buttons=[])
                if examples := sorted(map(str, EXAMPLES.glob('*.jpg')))[1:7]:
                    gr.Examples(examples, self.image, elem_id='examples')
            with column():
                self.prediction = gr.Image(label='Prediction', interactive=False, **picture)
                self.lines = gr.HTML(elem_id='lines')
            with column():
                self.tokens = gr.ImageSlider(label='Image and super tokens', **picture)
                self.tokens_note = gr.HTML(elem_id='tokens-note')
            with column():
                self.heat = gr.Image(label='Attention of a point', interactive=False, elem_id='attention', **picture)
                self.heat_note = gr.HTML(elem_id='attention-note')

    def _connect(self) -> None:
        inputs = [self.checkpoint, self.image, self.stage, self.block, self.point]
        pictures = [self.prediction, self.tokens, self.heat]
        shown = [*pictures, self.lines, self.tokens_note, self.heat_note, self.status]
        self.cleared = dict.fromkeys(shown)
        self.blocks.load(self.list_checkpoints, None, self.checkpoint, show_progress='hidden')
        for triggers, function, progress in (
            ([self.checkpoint.change, self.image.change], self.show, 'full'),
            ([self.stage.input, self.block.input], self.show, 'hidden'),
            ([self.heat.select], self.move_point, 'minimal'),
        ):
            gr.on(
                triggers,
                function,
                inputs,
                [*shown, self.block, self.point],
                preprocess=False,  # Gradio 6.31 would decode an image before its size is known
                trigger_mode='always_last',
                show_progress=progress,
                show_progress_on=pictures,
            )

    def list_checkpoints(self) -> gr.Dropdown:
        """List the checkpoints when the page is opened, and choose the first."""
        found = self.service.checkpoints()
        return gr.Dropdown(choices=found, value=found[0] if found else None)

    def move_point(self, checkpoint: str, image: dict, stage: int, block: int, _: object, event: gr.SelectData) -> dict:
        """Show the attention of the point that was clicked."""
        return self.show(checkpoint, image, stage, block, tuple(event.index)) | {self.point: tuple(event.index)}

    def show(
        self, checkpoint: str | None, image: dict | None, stage: int, block: int, point: tuple[float, float] | None
    ) -> dict:
        """Show the prediction and the maps of an image; an error becomes a sentence."""
        if not image:
            return self.cleared | {self.status: status_line(WAITING)}
        try:
            found, attentions, (x, y) = self.service.predict(checkpoint or '', self._uploaded(image['path']), point)
        except Exception as error:  # models and pipelines raise all kinds of errors
            text = str(error)
            if not isinstance(error, UserError):
                logger.exception('A call of the page failed.')
                text = f'That failed: {skip_reason(error)} (details are in the log of the server)'
            return self.cleared | {self.status: status_line(text, 'error')}
        picture, heading, lines = found.drawn
        depth = sum(of_stage == stage for of_stage, _ in attentions)
        block = min(int(block), depth - 1)
        attention, tokens = attentions[stage, block], found.tokens.get((stage, block))
        means, heat = draw_maps(found.seen, tokens, attention)
        grid, side = '{} × {}'.format(*attention.grid), attention.stride
        note = f'Stage {stage} has global attention: its {grid} tokens of {side} × {side} pixels are the super tokens.'
        if tokens:
            side *= tokens.stoken_size
            note = (
                f'{grid} super tokens in their mean colors; the grid at the start has cells of {side} × {side} pixels.'
            )
        sizes = ', resized to '.join('{} × {}'.format(*s) for s in dict.fromkeys([found.file_size, found.size]))
        return {
            self.prediction: picture,
            self.lines: class_lines(heading, lines),
            self.block: gr.Slider(maximum=max(depth - 1, 1), value=block, visible=depth > 1),
            self.tokens: (found.seen, means),
            self.tokens_note: note,
            self.heat: heat,
            self.heat_note: f'Stage {stage} block {block}: attention of the point ({x}, {y}); bright is high. '
            'Click on the image to choose another point.',
            self.status: status_line(f'{found.checkpoint} · image {sizes} pixels · {found.seconds:.2f} s'),
        }

    def _uploaded(self, name: str) -> Path:
        path = Path(name).resolve()
        if not path.is_relative_to(self.cache):
            raise UserError(f'{path.name} is not an uploaded file.', 'Upload it.')
        return path


def status_line(text: str, kind: str = '') -> str:
    """Return the line above the page."""
    return f'<div class="stvit-status {kind}" role="status">{html.escape(text)}</div>'


def class_lines(heading: str, scores: list[ClassScore]) -> str:
    """Return the lines below a prediction: color, name, bar and value."""
    lines = [f'<h3>{heading}</h3>']
    for name, value, text, color in scores:
        name, paint = html.escape(name), 'rgb({},{},{})'.format(*color) if color else 'var(--color-accent)'
        chip = f'<i style="background:{paint}"></i>' if color else ''
        bar = f'<b style="width:{value:.1%};background:{paint}"></b>'
        cells = f'<span title="{name}">{chip}{name}</span><span>{bar}</span><span>{text}</span>'
        lines.append(f'<div class="stvit-row">{cells}</div>')
    return '\n'.join(lines if scores else [*lines, 'None.'])
