"""The command line: the verbs of `api.py` with the settings of `config.py` as options. Parse, call, print."""

import sys
from collections.abc import Callable

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.markup import escape

from convmix.commands import comparing, exporting, judging, learning, listing, scaling, serving, sharing, using
from convmix.errors import ConvmixError

app = App(
    name="convmix",
    help="The home of the convolutional mixers: ConvMixer, multi-scale ConvMixer, ConvMLP.",
    help_format="rich",
    result_action="return_value",
)
VERBS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("train", learning.with_settings(learning.train)),
    ("predict", using.predict),
    ("evaluate", judging.evaluate),
    ("calibrate", judging.calibrate),
    ("explain", judging.explain),
    ("compare", learning.with_settings(comparing.compare, without=("model", "model_args"))),
    ("ablate", learning.with_settings(comparing.ablate)),
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
for name, verb in VERBS:
    app.command(verb, name=name)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app(arguments, error_console=errors, print_error=False, exit_on_error=False)
    except (ConvmixError, CycloptsError) as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
