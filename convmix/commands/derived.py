"""The command line of a verb, made from the Python function that does the work: names, types, defaults and help are written there alone.

source of the function -> ast -> parameters, and what its docstring says of each -> what cyclopts reads -> the values that were given

The source is read instead of imported: the function's module brings torch, for which nobody who asks for help should wait. What was not
given is not passed on, so that the function's own defaults hold.
"""

import ast
import functools
import inspect
import operator
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

PACKAGE = Path(__file__).parents[1]
OURS = ("Console", "Progress", "Callable", "Tensor", "Mapping", "RequestLimits")  # of parameters that a program gives, and nobody types


@dataclass(frozen=True)
class Described:
    """One parameter of a function, as its source says it."""

    name: str
    annotation: str  # as written
    default: Any  # inspect.Parameter.empty: it must be given; None also where it is more than a literal
    is_option: bool  # keyword-only
    says: str  # what the docstring says of it; "" for nothing


@dataclass(frozen=True)
class Work:
    """A function of the package, unread."""

    module: str  # below convmix, such as inference.prediction
    function: str

    @functools.cached_property
    def node(self) -> ast.FunctionDef:
        """Its signature and docstring alone: whole modules would take a tenth of a second to read."""
        found = re.search(rf'^def {self.function}\(.*?""".*?"""', source_of(self.module), re.DOTALL | re.MULTILINE)
        assert found is not None, f"{self.module} has no function {self.function} with a docstring"
        (node,) = ast.parse(found[0]).body
        assert isinstance(node, ast.FunctionDef)
        return node

    @functools.cached_property
    def parameters(self) -> tuple[Described, ...]:
        """Those that somebody may type, in their order."""
        a = self.node.args
        positional = [*a.posonlyargs, *a.args]
        before: list[ast.expr | None] = [None] * (len(positional) - len(a.defaults))
        rows = [(arg, default, False) for arg, default in zip(positional, [*before, *a.defaults], strict=True)]
        rows += [(arg, default, True) for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
        names = [arg.arg for arg, _, _ in rows] + ([a.kwarg.arg] if a.kwarg else [])
        says = said_of(names, ast.get_docstring(self.node) or "")
        return tuple(
            Described(arg.arg, kind, self._default(default), is_option, says.get(arg.arg, ""))
            for arg, default, is_option in rows
            if not any(word in (kind := ast.unparse(arg.annotation) if arg.annotation else "str") for word in OURS)
        )

    def _default(self, default: ast.expr | None) -> Any:
        if default is None:
            return inspect.Parameter.empty
        try:
            if isinstance(default, ast.Name):
                return constant(self.module, default.id)
            return ast.literal_eval(default)
        except (ValueError, LookupError):  # computed, or another module's
            return None

    @property
    def takes_settings(self) -> bool:
        """Whether it takes any setting of `config.Run`."""
        return self.node.args.kwarg is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from importlib import import_module

        return getattr(import_module(f"convmix.{self.module}"), self.function)(*args, **kwargs)


@dataclass(frozen=True)
class Also:
    """An option that the command has and the function has not."""

    name: str
    annotation: Any
    default: Any
    help: str

    def parameter(self) -> inspect.Parameter:
        kind = annotated(self.annotation, Parameter(help=self.help))
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=kind)


def annotated(kind: Any, parameter: Parameter) -> Any:
    """`Annotated[kind, parameter]` of a type that is only known now."""
    return operator.getitem(Annotated, (kind, parameter))


VERIFY = Also(
    "verify", bool, True,
    "Whether the files of an exported model are compared with their digests; --no-verify takes a model that was changed on purpose.",
)  # fmt: skip
QUIET = Also("quiet", bool, False, "Print nothing but the table and errors.")


@dataclass(frozen=True)
class Changes:
    """What a command says otherwise than its function: options of its own, and older spellings."""

    also: Sequence[Also] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)  # parameter -> the option's older name, with its dashes
    negatives: Mapping[str, str] = field(default_factory=dict)  # switch -> the option that turns it off
    defaults: Mapping[str, Any] = field(default_factory=dict)  # where typing calls for another one than Python
    choices: Mapping[str, Callable[[], Collection[str]]] = field(default_factory=dict)  # asked for when help is shown
    help: Mapping[str, str] = field(default_factory=dict)  # for parameters that are others on the command line
    types: Mapping[str, Any] = field(default_factory=dict)
    without: Collection[str] = ()  # parameters that are no options


def command(work: Work, changes: Changes | None = None) -> Callable[[Callable[[dict[str, Any]], None]], Callable[..., None]]:
    """A decorator: the function gets the values that were typed, by name, `also` and settings among them."""
    c = changes or Changes()

    def decorated(body: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
        typed = [p for p in work.parameters if p.name not in c.without]
        parameters = [_argument(p, c) for p in typed if not p.is_option]
        parameters += [_option(p, c) for p in typed if p.is_option]
        own = [a.parameter() for a in c.also]
        rest = [inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD, annotation=object)] if work.takes_settings else []
        signature = inspect.Signature([*parameters, *own, *rest])
        always = {a.name for a in c.also}

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            given = _bound(signature, args, kwargs)
            body({name: value for name, value in given.items() if name in always or value is not None})

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        run.work, run.changes = work, c  # type: ignore[attr-defined]
        return run

    return decorated


def _bound(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The values by name; those of settings beside the others, and of options that were not typed None."""
    bound = signature.bind(*args, **kwargs)
    found = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
    for name, value in bound.arguments.items():
        found |= value if name == "options" else {name: value}
    return found


def said_of(names: Collection[str], docstring: str) -> dict[str, str]:
    """What a docstring says of each parameter: from 'name: ' or 'name, other: ' at the beginning of a line or sentence to the next one,
    or to the end of the paragraph."""
    begins = re.compile(r"(?:(?<=\n)|(?<=[.;] ))((?:\w+, )*\w+): ")
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", textwrap.dedent(f"\n{docstring}")):
        text = "\n" + paragraph.strip("\n")
        marks = [m for m in begins.finditer(text) if all(name in names for name in m[1].split(", "))]
        for mark, following in zip(marks, [*marks, None][1:], strict=True):
            says = " ".join(text[mark.end() : following.start() if following else None].split())
            found |= dict.fromkeys(mark[1].split(", "), _as_sentence(says))
    return found


_IN_PYTHON = (  # what docstrings say to programs, and help says to people
    (r" Raises .*", ""),
    (r", or one already loaded(, which[^.;]*)?", ""),
    (r"\bNone and auto: ", "left out and auto: "),
    (r"\bNone: ", "left out: "),
    (r"\b(where|when) (it|`\w+`) is None\b", r"\1 it is left out"),
    (r"`convmix\.(\w+)`", r"`convmix \1`"),
    (r"(?<=\. )left out", "Left out"),
)


def _as_sentence(says: str) -> str:
    """As help; what is a word to be typed keeps its letters."""
    for pattern, instead in _IN_PYTHON:
        says = re.sub(pattern, instead, says)
    return says if re.match(r"\w+(,| or | \(|;)", says) else says[:1].upper() + says[1:]


@functools.cache
def source_of(module: str) -> str:
    """The text of a module below convmix."""
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")


def constant(module: str, name: str) -> Any:
    """A literal at the top of a module, or of the one that it imports it from; of a table the words of all its tuples.

    LookupError where there is none.
    """
    source = source_of(module)
    if found := re.search(rf"^{name}(: [^=]+)? = .*?(?=^[^\s}})\]])", source, re.DOTALL | re.MULTILINE):
        (node,) = ast.parse(found[0]).body
        assert isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        if isinstance(node.value, ast.Dict):
            return tuple(dict.fromkeys(word for one in node.value.values for word in ast.literal_eval(one)))
        return ast.literal_eval(node.value)
    if found := re.search(rf"^from convmix\.([\w.]+) import .*\b{name}\b", source, re.MULTILINE):
        return constant(found[1], name)
    raise LookupError(name)


def _kind(p: Described, c: Changes) -> Any:
    """The type as which cyclopts reads it."""
    if p.name in c.types:
        return c.types[p.name]
    named = set(re.findall(r"\w+", p.annotation))
    if "Sequence" in named:
        return list[str]
    if p.name == "data":  # a name or a URL as well as a path
        return str
    return next((kind for kind in (Path, str, bool, float, int) if kind.__name__ in named), str)


def _help(p: Described, c: Changes) -> str:
    says = c.help.get(p.name, p.says)
    if p.name in c.choices:
        says = f"{says} (choices: {', '.join(c.choices[p.name]())})".strip()
    return says


def _argument(p: Described, c: Changes) -> inspect.Parameter:
    kind, several = _kind(p, c), "Sequence" in p.annotation
    must = p.default is inspect.Parameter.empty and p.name not in c.defaults
    parameter = Parameter(help=_help(p, c), allow_leading_hyphen=several)  # so that - is one
    annotation = annotated(kind if must else kind | None, parameter)
    return inspect.Parameter(
        p.name, inspect.Parameter.POSITIONAL_ONLY, default=inspect.Parameter.empty if must else None, annotation=annotation
    )


def _option(p: Described, c: Changes) -> inspect.Parameter:
    """None where it was not typed; the function's own default is words in the help."""
    kind, several = _kind(p, c), "Sequence" in p.annotation
    default = c.defaults.get(p.name, p.default)
    must = default is inspect.Parameter.empty
    shown = default not in (None, (), "", inspect.Parameter.empty)
    said = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    more: dict[str, Any] = {"consume_multiple": True, "negative": ()} if several else {}
    if kind is bool:
        more["negative"] = c.negatives.get(p.name, f"--no-{p.name.replace('_', '-')}")
    if p.name in c.aliases:
        more["alias"] = c.aliases[p.name]
    parameter = Parameter(help=_help(p, c), show_default=(lambda _: said) if shown else False, **more)
    annotation = annotated(kind if must else kind | None, parameter)
    value = inspect.Parameter.empty if must else c.defaults.get(p.name)
    return inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation)
