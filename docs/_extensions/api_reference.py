"""The API reference from the source: signatures as they are written there, and a warning for a public name left out."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NewType, get_overloads

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

logger = logging.getLogger(__name__)
sections = Config(napoleon_numpy_docstring=False, napoleon_use_rtype=False, napoleon_use_ivar=True)


class Sections(GoogleDocstring):
    """Google-style sections whose "Returns" is all text: Napoleon takes what is before a colon for the type."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:  # noqa: ARG002
        return [("", "", self._dedent(self._consume_to_next_section()))]


class Computed:
    """Stands for a default that cannot be annotations out, such as a function's."""

    def __repr__(self) -> str:
        return "..."


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension; `documented_modules` in conf.py lists the public modules."""
    app.add_config_value("documented_modules", [], "env", types=[list])
    app.connect("config-inited", load_lazy_names)
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-process-signature", write_as_in_source)
    app.connect("autodoc-skip-member", skip_pydantic)
    app.connect("env-check-consistency", warn_of_missing_names)
    return {"parallel_read_safe": True}


def load_lazy_names(_app: Sphinx, config: Any) -> None:
    """Loads the names that a module loads on first use: autodoc lists only what the module's namespace has."""
    for module in map(import_module, config.documented_modules):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            setattr(module, name, value)
            if isinstance(value, NewType):
                value.__module__ = (
                    module.__name__
                )  # the module that documents it; for classes autodoc links it by itself


def read_sections(_app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Parses Google-style sections, except in an attribute's docstring, which Napoleon splits at a colon as well."""
    if what not in {"attribute", "data", "property"}:
        lines[:] = Sections(lines, sections, what=what, name=name, obj=obj, options=options).lines()


def write_as_in_source(
    _app: Sphinx, _what: str, _name: str, obj: Any, _options: Any, _arguments: str | None, _returns: str | None
) -> tuple[str, str | None] | None:
    """Keeps annotations as in the source: autodoc would print what an alias stands for, which fills half a page."""
    if inspect.isclass(obj) and issubclass(obj, BaseModel):
        return "", None
    if not (inspect.isclass(obj) or inspect.isroutine(obj)) or get_overloads(obj):
        return None
    try:
        signature = inspect.signature(obj)
        annotations = dict(annotations_of(obj))
    except (OSError, TypeError, ValueError):
        return None
    parameters = [
        parameter.replace(
            annotation=annotations.get(parameter.name, parameter.annotation),
            default=Computed() if repr(parameter.default).startswith(("<factory", "<function")) else parameter.default,
        )
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    return_annotation = signature.empty if inspect.isclass(obj) else annotations.get("return", signature.empty)
    text = stringify_signature(signature.replace(parameters=parameters, return_annotation=return_annotation))
    arguments, _, returns = text.partition(" -> ")
    return arguments, returns or None


def annotations_of(obj: Any) -> Iterator[tuple[str, str]]:
    """Each annotated parameter of a function, or field of a class, as the source has it; "return" is the result."""
    if inspect.isclass(obj):
        if "__init__" in vars(obj) and not hasattr(obj, "__dataclass_fields__"):
            yield from annotations_of(obj.__init__)
            return
        for base in reversed(obj.__mro__[:-1]):
            for node in syntax_tree(base).body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    yield node.target.id, ast.unparse(node.annotation)
        return
    function = syntax_tree(inspect.unwrap(obj))
    arguments = function.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None and argument.annotation is not None:
            yield argument.arg, ast.unparse(argument.annotation)
    if function.returns is not None:
        yield "return", ast.unparse(function.returns)


def syntax_tree(obj: Any) -> Any:
    """The syntax tree of a function or a class."""
    return ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]


def skip_pydantic(_app: Sphinx, _what: str, name: str, _obj: Any, _skip: bool, _options: Any) -> bool | None:
    """Leaves out what a settings class has for Pydantic only."""
    return True if name in {"model_config", "settings_customise_sources"} else None


def warn_of_missing_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns about names in the `__all__` of a public module that no page documents."""
    objects = env.domains.python_domain.objects
    for module in map(import_module, app.config.documented_modules):
        for name in getattr(module, "__all__", ()):
            if f"{module.__name__}.{name}" not in objects:
                logger.warning(
                    "%s.%s is public and on no page: give it a docstring, or an alias an entry", module.__name__, name
                )
