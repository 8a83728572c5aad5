"""What the site adds to Sphinx: reference pages, names that are links, formulas as MathML."""

import re

import reference
from docutils import nodes
from docutils.statemachine import StringList
from latex2mathml.converter import convert
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

FENCE_OF_FILE = re.compile(r'^( *)```(\w+) +title="(.*?)" *$', re.M)
NO_LINK_WITHIN = (nodes.reference, nodes.title, desc_signature, pending_xref)


class Reference(SphinxDirective):
    """The `reference` directive: all public names of a sub-package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        part = self.arguments[0]
        lines = reference.markdown_of(part).splitlines()
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, part), 0, holder)
        return holder.children


class NamesAreLinks(SphinxTransform):
    """Links a public name in code style, wherever a page has it in its text, to the reference."""

    default_priority = 500

    def apply(self, **_) -> None:
        known = self.app.public_names
        for literal in list(self.document.findall(nodes.literal)):
            target = known.get(literal.astext().removesuffix("()"))
            within = literal.parent
            while within is not None and target is not None:
                if isinstance(within, NO_LINK_WITHIN):
                    target = None
                within = within.parent
            if target is None:
                continue
            link = pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refdoc=self.env.docname
            )
            literal.replace_self(link)
            link += literal


def mathml(formula: str, display: str) -> str:
    """A formula as MathML, which browsers show by themselves."""
    formula = re.sub(r"(begin|end)\{aligned\}", r"\1{align*}", formula)
    written = convert(formula, display=display)
    if "<mi>&</mi>" in written:
        raise ValueError(f"latex2mathml does not know an environment of this formula: {formula}")
    return written


def formula_in_line(translator, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def formula_block(translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def prepare_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Takes out of the fences what only tests read; gives the first page the navigation."""
    text = re.sub(r"^( *```\w+) +notest *$", r"\1", source[0], flags=re.M)
    text = FENCE_OF_FILE.sub(r"\1```{code-block} \2\n\1:caption: \3\n", text)
    if name == app.config.root_doc:
        for caption, pages in app.config.navigation.items():
            listed = "\n".join(pages)
            text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"
    source[0] = text


def setup(app: Sphinx) -> dict[str, bool]:
    app.public_names = reference.public_names()  # pyright: ignore
    app.add_config_value("navigation", {}, "env")
    app.add_directive("reference", Reference)
    app.add_transform(NamesAreLinks)
    app.add_html_math_renderer("mathml", (formula_in_line, None), (formula_block, None))
    app.connect("source-read", prepare_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
