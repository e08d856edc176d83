"""What reports are made of: one HTML page that needs no other file, with sections, figures and tables."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

from matplotlib.figure import Figure


def html_page(title: str, lead: str, sections: Iterable[tuple[str, str]]) -> str:
    """A whole HTML page, with titled sections, without script, style sheet, font or picture from elsewhere."""
    body = "".join(f"<section><h2>{escape(name)}</h2>{html}</section>" for name, html in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{lead}{body}</main></body></html>\n"
    )


def html_figure(figure: Figure) -> str:
    """A figure as an HTML picture that carries its data."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    return f'<img alt="" src="data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def html_gallery(figures: Iterable[Figure]) -> str:
    """Figures side by side, as far as there is room."""
    return f'<div class="gallery">{"".join(map(html_figure, figures))}</div>'


_STYLE = """
body{margin:0;font:16px/1.5 system-ui,sans-serif;color:#1c1e21;background:#f4f5f7}
main{max-width:1080px;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.7rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:0 0 .8rem}
section{background:#fff;border-radius:10px;box-shadow:0 1px 3px #0002;padding:1.2rem 1.4rem;margin:1.2rem
0;overflow-x:auto} table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #e4e6ea;white-space:nowrap}
.text{text-align:left;white-space:normal}td:first-child{white-space:nowrap}tr.own{background:#eaf2ff;font-weight:600}tr:target{background:#fff3c4}
.gallery{display:flex;flex-wrap:wrap;gap:1rem;justify-content:center}.gallery img{max-width:100%;height:auto;flex:0
1 auto} p{color:#555}a{color:#1558b0}ol,ul{margin:0;padding-left:1.4rem}ol{columns:16rem}li{break-inside:avoid}
""".strip()


@dataclass(frozen=True)
class ReportTable:
    """A table of plain text, as HTML, Markdown and LaTeX."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: frozenset[int] = frozenset({0})  # of words, aligned to the left
    highlighted: frozenset[int] = frozenset()  # rows to set off
    anchors: Sequence[str] = ()  # an HTML id for each row, for links; none by default

    def html(self) -> str:
        """The table as an HTML element."""
        body = []
        for number, row in enumerate(self.rows):
            attributes = f' id="{escape(self.anchors[number])}"' if self.anchors else ""
            attributes += ' class="own"' if number in self.highlighted else ""
            body.append(f"<tr{attributes}>{self._html_cells('td', row)}</tr>")
        head = self._html_cells("th", self.header)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def _html_cells(self, tag: str, row: Sequence[str]) -> str:
        kinds = [' class="text"' if column in self.text_columns else "" for column in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in zip(kinds, row, strict=True))

    def markdown(self) -> str:
        """The table in Markdown (pipes)."""
        rule = [":---" if column in self.text_columns else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)

    def latex(self) -> str:
        """The table in LaTeX (packages booktabs and textcomp)."""
        columns = "".join("l" if column in self.text_columns else "r" for column in range(len(self.header)))
        lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _latex_row(self.header), "\\midrule"]
        lines += [_latex_row(row) for row in self.rows]
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


_LATEX_SPECIAL = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$"}
)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX_SPECIAL) for cell in cells) + " \\\\"
