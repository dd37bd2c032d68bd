"""Flags for the settings of all algorithms, made from what the algorithms declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from napari_ssdenoise.algorithms import get_algorithm, list_algorithms, settings
from napari_ssdenoise.algorithms._base import AUTO

if TYPE_CHECKING:
    from napari_ssdenoise.algorithms import Algorithm, Setting

PREFIX = "setting_"


class NumberOrAuto(click.ParamType[str]):
    """A number, or ``auto``; kept as text, because None means here that the flag was not given."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is neither."""
        text = str(value).strip().lower()
        if text != AUTO:
            try:
                float(text)
            except ValueError:
                self.fail(f"{value!r} is neither a number nor '{AUTO}'.", param, ctx)
        return text


class SettingOption(click.Option):
    """The flag of one setting, which one or several algorithms have."""

    def __init__(self, name: str, owners: Mapping[str, Setting]) -> None:
        self.setting = name
        self.owners = dict(owners)
        flag = name.replace("_", "-")
        facts = next(iter(owners.values()))
        kinds = {setting.type for setting in owners.values()}
        is_switch = kinds == {bool}
        super().__init__(
            [f"--{flag}/--no-{flag}" if is_switch else f"--{flag}", f"{PREFIX}{name}"],
            type=click.BOOL if is_switch else _click_type(owners),
            default=None,
            help=f"{facts.help} {_limits(facts)}",
        )


class SettingsCommand(click.Command):
    """A command that takes the settings of every algorithm for its purpose, and shows them by algorithm in its help."""

    purpose = "denoise"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {flag for parameter in self.params for flag in parameter.opts}
        self.params += [option for option in setting_options(self.purpose) if not own & set(option.opts)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the settings of each algorithm, then those they share."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        shared = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            if not isinstance(parameter, SettingOption):
                sections["Options"].append(record)
            elif len(parameter.owners) > 1:
                shared.append(record)
            else:
                (key,) = parameter.owners
                sections.setdefault(f"Settings of {key} ({list_algorithms()[key].title})", []).append(record)
        for title, records in {**sections, "Settings of several algorithms": shared}.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class UpscaleSettingsCommand(SettingsCommand):
    """The same for super-resolution."""

    purpose = "upscale"


def setting_options(purpose: str) -> list[SettingOption]:
    """Make one flag for each name of a setting of the algorithms for a purpose."""
    owners: dict[str, dict[str, Setting]] = {}
    for key, algorithm in list_algorithms().items():
        for setting in settings(algorithm) if algorithm.purpose == purpose else ():
            owners.setdefault(setting.name, {})[key] = setting
    return [SettingOption(name, having) for name, having in owners.items()]


def configure(
    command: click.Command, key: str, flags: Mapping[str, Any], recommended: Mapping[str, Any] | None = None
) -> Algorithm:
    """Make the chosen algorithm with the settings that were given, and for the rest with those that are recommended.

    Raises
    ------
    click.UsageError
        If a flag belongs to other algorithms only, or its value does not fit.
    """
    values = {**(recommended or {}), **given_values(command, key, flags)}
    try:
        return get_algorithm(key, **values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def given_values(command: click.Command, key: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an algorithm that were given on the command line.

    Raises
    ------
    click.UsageError
        If a flag belongs to other algorithms only, or its value does not fit.
    """
    values: dict[str, Any] = {}
    for option in given_settings(command, flags):
        value = flags[f"{PREFIX}{option.setting}"]
        if key not in option.owners:
            names = ", ".join("--" + setting.name.replace("_", "-") for setting in settings(list_algorithms()[key]))
            raise click.UsageError(
                f"{option.opts[0]} is a setting of {', '.join(option.owners)}, not of {key}, which has {names}."
            )
        setting = option.owners[key]
        try:
            values[option.setting] = setting.parse(value) if isinstance(value, str) else setting.check(value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=option) from error
    return values


def given_settings(command: click.Command, flags: Mapping[str, Any]) -> list[SettingOption]:
    """List the settings that were given on the command line."""
    options = [parameter for parameter in command.params if isinstance(parameter, SettingOption)]
    return [option for option in options if flags.get(f"{PREFIX}{option.setting}") is not None]


def _click_type(owners: Mapping[str, Setting]) -> click.ParamType[Any]:
    """Let click check what all owners agree on; the rest is text until the algorithm is known."""
    kinds = {setting.type for setting in owners.values()}
    if len(kinds) > 1:
        return click.STRING
    if all(setting.choices for setting in owners.values()):
        return click.Choice(list(dict.fromkeys(choice for setting in owners.values() for choice in setting.choices)))
    if any(setting.optional for setting in owners.values()):
        return NumberOrAuto()
    known: dict[type, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT}
    return known.get(kinds.pop(), click.STRING)


def _limits(setting: Setting) -> str:
    """Say a setting's default and range."""
    if setting.optional and setting.default is None:
        default = AUTO
    else:
        default = ("on" if setting.default else "off") if setting.type is bool else f"{setting.default!r}".strip("'")
    text = f"Default: {default or 'none'}"
    if setting.min is not None and setting.max is not None:
        text += f"; {setting.min:g} to {setting.max:g}"
    return f"[{text}]"
