"""Draw the super tokens of image files, and the attention of a point, into a folder."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from PIL import Image
from torch.hub import tqdm

from mmstvit.checkpoint import to_mmstvit
from mmstvit.datasets.images import UnreadableError
from mmstvit.errors import UserError
from mmstvit.fileio import mark_results, safe_loading
from mmstvit.visualization import attention_of, contact_sheet, draw_blocks, image_of, super_tokens, write_gif
from mmstvit.visualization.extraction import find_backbone
from mmstvit.visualization.panels import BlockPanel

from .predict.inputs import Source, find_inputs
from .predict.predictor import Predictor, load_predictor
from .predict.records import check_out_dir
from .predict.run import skip_reason

UNTRAINED = 'UNTRAINED: random weights'


def draw_super_tokens(
    images: str | Path,
    checkpoint: str | None,
    config: str | None = None,
    out_dir: str | Path = 'super_tokens',
    stages: Collection[int] | None = None,
    blocks: Collection[int] | None = None,
    point: tuple[int, int] | None = None,
    soft: int | Literal['point'] | None = None,
    grid: bool = False,
    single: bool = False,
    gif: bool = False,
    device: str = 'auto',
    cfg_options: Mapping | None = None,
    trust: bool = False,
) -> dict[str, str]:
    """Draw a contact sheet per image, with a row per block.

    Args:
        images: Image, folder or glob pattern.
        checkpoint: Checkpoint file or address; None draws the untrained model of ``config``, and says so on the sheet.
        config: Config file or name; by default the config in the checkpoint, which is read as data.
        out_dir: Folder for the drawings; it must be new or empty.
        stages: Stages to draw, from 0; by default all.
        blocks: Blocks of each stage to draw, from 0; by default all.
        point: Draw the attention of this pixel too: column and row in the decoded image.
        soft: Draw the membership of a super token too; ``'point'``: of that to which the point belongs most.
        grid: Draw the initial grid too.
        single: Write each drawing as a PNG, without title, instead of the sheet.
        gif: Write an animation over the blocks too.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ….
        cfg_options: Settings of the config to override, by dotted key.
        trust: Load checkpoint and config even if that executes code in them.

    Returns:
        Reasons by name, of images that were skipped.

    Raises:
        UserError: Checkpoint, config or device cannot be used; the model has no STViT; ``out_dir`` has files.
        ImportError: The library of the config is missing or too old.
    """
    out_dir = Path(out_dir)
    check_out_dir(out_dir)
    found = find_inputs([images])
    name = UNTRAINED if checkpoint is None else Path(checkpoint).name
    with (
        safe_loading(trust, to_mmstvit),
        load_predictor(checkpoint, config, cfg_options, False, device, trust) as predictor,
    ):
        find_backbone(predictor.model)
        for source in tqdm(found.sources, unit='image', disable=None):
            try:
                rows = _draw(source, predictor, stages, blocks, point, soft, grid, single)
            except Exception as error:  # transforms raise all kinds of errors
                found.faults[source.name] = skip_reason(error)
                continue
            try:
                mark_results(out_dir)
                _write(out_dir / source.stem, rows, f'{source.name} · {name}', single, gif)
            except OSError as error:
                raise UserError(f'the drawings cannot be written to {out_dir}: {error.strerror}.') from error
    return found.faults


def _draw(
    source: Source,
    predictor: Predictor,
    stages: Collection[int] | None,
    blocks: Collection[int] | None,
    point: tuple[int, int] | None,
    soft: int | Literal['point'] | None,
    grid: bool,
    single: bool,
) -> list[list[BlockPanel]]:
    if source.is_video:
        raise UnreadableError('this is a video; extract the frames to draw')
    picture = next(predictor.read(source))
    sample = predictor.prepare(picture)
    records = [super_tokens(predictor.model, sample), []]
    if point is not None:
        records[1] = attention_of(predictor.model, sample, predictor.locate(picture, point))
    for i, found in enumerate(records):
        found = [record for record in found if stages is None or record.stage in stages]
        records[i] = [record for record in found if blocks is None or record.block in blocks]
    if not any(records):
        raise UserError(
            'none of these blocks has super tokens.', 'Name others with --stages and --blocks, or a --point.'
        )
    image = image_of(sample)
    return draw_blocks(image, *records, soft, grid, max(960, *image.shape[:2]) if single else None)


def _write(target: Path, rows: list[list[BlockPanel]], heading: str, single: bool, gif: bool) -> None:
    (target if single else target.parent).mkdir(parents=True, exist_ok=True)
    if single:
        for panel in (panel for row in rows for panel in row):
            Image.fromarray(panel.picture).save(target / f'{panel.name}.png')
    else:
        Image.fromarray(contact_sheet(rows, heading)).save(f'{target}.png')
    if gif:
        write_gif(f'{target}.gif', rows, heading)
