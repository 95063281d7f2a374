"""A study as one page: tables and figures, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from memfit.errors import DataError
from memfit.files.durable import write_whole
from memfit.report.study.figures import FIGURES, as_svg, draw
from memfit.report.study.text import findings, study_rows
from memfit.study.results import Study

__all__ = ["study_page", "write_study_page"]

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, sans-serif; color: #20242a; background: #fff;
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.facts { color: #6b7280; margin: .2rem 0 1.6rem; }
.advice { border-left: 4px solid #15803d; background: #f0fdf4; padding: .8rem 1.1rem; }
.advice.unsure { border-color: #d97706; background: #fffbeb; }
.advice p { margin: .2rem 0; } .advice strong { font-size: 1.1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { color: #6b7280; font-weight: 500; border-bottom: 1px solid #c7ccd3; }
th, td { text-align: right; padding: .28rem .9rem .28rem 0; }
tr.best td { font-weight: 700; }
figure { margin: 1.2rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
code { background: #f3f4f6; padding: .1rem .35rem; border-radius: 3px; }
@media (max-width: 30rem) { .figures { grid-template-columns: 1fr; } }
"""


def write_study_page(study: Study, path: Path) -> None:
    """Write the page whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_whole(path, study_page(study).encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from None


def study_page(study: Study) -> str:
    """HTML with its style and its figures inside."""
    title = escape(f"{study.model_name} on {study.data_name}: what batch size changes")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{title}</h1>",
            f'<p class="facts">{escape(_facts(study))}</p>',
            *_advice(study),
            "<h2>What the measurements say</h2>",
            *_list(findings(study)),
            *_tables(study),
            "<h2>Figures</h2>",
            '<div class="figures">',
            *_figures(study),
            "</div>",
            "<h2>Notes</h2>",
            *_list(iter(study.notes)),
            "</body>\n</html>\n",
        ]
    )


def _facts(study: Study) -> str:
    settings = study.settings
    return (
        f"{study.device} · {settings.samples:,} images · {study.seeds} seeds · "
        f"{settings.epochs} epochs, at least {settings.steps:,} steps · "
        f"{study.seconds:,.0f} s of training"
    )


def _advice(study: Study) -> Iterator[str]:
    found = study.recommendation
    if found is None:
        yield '<div class="advice unsure"><p>Nothing can be recommended.</p></div>'
        return
    unsure = " unsure" if found.sureness == "cannot tell" else ""
    yield f'<div class="advice{unsure}">'
    yield (
        f"<p><strong>Global batch {found.global_batch:,} = micro-batch {found.micro_batch:,} × "
        f"{found.accumulation}, learning rate {found.learning_rate:g}</strong></p>"
    )
    share = "" if found.share is None else (
        f" (within 5 % of the best in {found.share:.0%} of draws from all intervals)"
    )  # fmt: skip
    yield f"<p>How sure: {escape(found.sureness)}{share}. It rests on {escape(found.basis)}.</p>"
    yield from (f"<p>{escape(reason)}</p>" for reason in found.reasons)
    yield "<p>What would change it:</p>"
    yield from _list(iter(found.changes))
    command = escape(f"memfit train {study.folder}/recommended.toml")
    yield f"<p><code>{command}</code></p></div>"


def _tables(study: Study) -> Iterator[str]:
    best = None if study.recommendation is None else f"{study.recommendation.global_batch:,}"
    for title, columns, rows in study_rows(study):
        yield f'<h2>{escape(title)}</h2>\n<div class="wide"><table>'
        yield "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in columns) + "</tr>"
        for row in rows:
            kind = ' class="best"' if row[0] == best else ""
            yield f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        yield "</table></div>"


def _figures(study: Study) -> Iterator[str]:
    for name, (title, _, _) in FIGURES.items():
        figure = draw(study, name)
        if figure is not None:
            svg = _own_ids(as_svg(figure), name)
            yield f'<figure role="img" aria-label="{escape(title)}">{svg}</figure>'


def _own_ids(svg: str, name: str) -> str:
    """Each figure's ids made its own: several SVGs share one page."""
    for mark in ('id="', 'xlink:href="#', "url(#"):
        svg = svg.replace(mark, f"{mark}{name}-")
    return svg


def _list(sentences: Iterator[str]) -> list[str]:
    return ["<ul>", *(f"<li>{escape(sentence)}</li>" for sentence in sentences), "</ul>"]
