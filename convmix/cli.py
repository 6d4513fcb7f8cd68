"""The command line: parse, call, print.

The verbs of `api.py` with the settings of `config.py` as options.
"""

import functools
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.markup import escape

from convmix.cache import settle
from convmix.commands import comparing, embedding, exporting, inspecting, judging, learning, listing, scaling, serving, sharing, using
from convmix.errors import ConvmixError, first_line, is_out_of_memory
from convmix.ops import switch
from convmix.system.surroundings import quiet_libraries, show_every_letter

WITHOUT_TORCH = ("models", "recipes")


def _with_torch(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb`, torch being imported before it, which is most of the time that a short command takes.

    The import makes a quarter of a million objects that stay. Python would look through them for garbage several times meanwhile, and once
    more at the end of the process: a quarter of that time.
    """

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        if "torch" not in sys.modules:
            collects = gc.isenabled()
            gc.disable()
            import torch  # noqa: F401

            gc.freeze()
            if collects:
                gc.enable()
            from convmix.hardware import keep_to_quota

            keep_to_quota()
        verb(*args, **kwargs)

    return run


def build(*, shows_all: bool = False) -> App:
    """The command line; its help shows the options that people use most, or all."""
    settled = functools.partial(learning.with_settings, shows_all=shows_all)
    verbs: tuple[tuple[str, Callable[..., None]], ...] = (
        ("inspect", inspecting.inspect),
        ("train", settled(learning.train)),
        ("predict", using.predict),
        ("embed", embedding.embed),
        ("evaluate", judging.evaluate),
        ("calibrate", judging.calibrate),
        ("explain", judging.explain),
        ("compare", settled(comparing.compare, without=("model", "model_args"))),
        ("ablate", settled(comparing.ablate)),
        ("doctor", judging.doctor),
        ("optimize", using.optimize),
        ("benchmark", using.benchmark),
        ("export", exporting.export),
        ("serve", serving.serve),
        ("batch-predict", scaling.batch_predict),
        ("push", sharing.push),
        ("pull", sharing.pull),
        ("describe", listing.describe),
        ("models", listing.models),
        ("recipes", listing.recipes),
    )
    built = App(
        name="convmix",
        help="The home of the convolutional mixers: ConvMixer, multi-scale ConvMixer, ConvMLP.",
        help_format="rich",
        result_action="return_value",
    )
    for name, verb in verbs:
        built.command(verb if name in WITHOUT_TORCH else _with_torch(verb), name=name)
    built.register_install_completion_command(name="install-completion")
    return built


app = build()

_OUT_OF_MEMORY = (
    "the memory that this process may take is used up; a smaller --batch-size, fewer --workers or smaller images need less, and a limit "
    "(ulimit -v, a container's) may be too low: torch alone takes some 4 GB of address space"
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    settle()
    show_every_letter()
    quiet_libraries()
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        switch.kernels()  # a value that it cannot have is said before anything is read
        given = sys.argv[1:] if arguments is None else arguments
        if learning.ALL_OPTIONS in given:
            build(shows_all=True)(
                ["--help" if word == learning.ALL_OPTIONS else word for word in given], print_error=False, exit_on_error=False
            )
            return
        app(arguments, error_console=errors, print_error=False, exit_on_error=False)
    except (ConvmixError, CycloptsError) as error:
        _refuse(errors, str(error))
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if is_out_of_memory(error):
            _refuse(errors, _OUT_OF_MEMORY)
        if not isinstance(error, OSError):
            raise
        _refuse(errors, _what_failed(error))


def _refuse(errors: Console, sentence: str) -> None:
    try:
        errors.print(f"[red]error:[/red] {escape(sentence)}")
    except MemoryError:
        os.write(2, f"error: {sentence}\n".encode())  # which needs none
    sys.exit(2)


def _what_failed(error: OSError) -> str:
    """A disk, a network or a limit of the system, met where no verb has words of its own for it."""
    if error.filename is None or not error.strerror:
        return f"the system refused to read or to write: {first_line(error)}"
    return f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}: {error.strerror}"
