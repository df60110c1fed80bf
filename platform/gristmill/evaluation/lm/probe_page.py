"""`report.html` of probes: figures by domain, and lists by layer as curves."""

from collections.abc import Mapping
from typing import Any

from gristmill.core import io
from gristmill.core.report import Report

CURVES = {
    "loss": ("nats_by_place",),
    "massive_activation": ("hidden", "keys", "values"),
    "effective_dimension": ("d_0.8",),
    "feature_diversity": ("diversity", "share"),
}
"""Which lists are drawn; of probes of your own all that are flat."""


def probe_page(results: Mapping[str, Any]) -> Report:
    """The page of one `lm probe`."""
    page = Report("Probes of a language model", io.redact(results["model"]["uri"]))
    domains = results["domains"]
    for probe, first in next(iter(domains.values())).items():
        figures = {name: found[probe] for name, found in domains.items()}
        names = [name for name, value in first.items() if not isinstance(value, list)]
        rows = [
            (domain, *("" if found[n] is None else found[n] for n in names))
            for domain, found in figures.items()
        ]
        page.table(probe, ("domain", *names), rows)
        for name in _curves(probe, first):
            page.plot(f"{probe}: {name}", _drawing(probe, name, figures))
    page.table("Model", ("file", "SHA-256"), sorted(results["model"]["files"].items()))
    return page


def _curves(probe: str, first: Mapping[str, Any]) -> list[str]:
    known = CURVES.get(probe)
    flat = [
        name
        for name, value in first.items()
        if isinstance(value, list) and all(isinstance(x, int | float) for x in value)
    ]
    if known is not None:
        return [name for name in known if name in flat]
    return [] if probe == "attention_sink" else flat


def _drawing(probe: str, name: str, figures: Mapping[str, Mapping[str, Any]]) -> Any:
    def draw(axes: Any) -> None:
        for domain, found in figures.items():
            places = found["up_to_place"] if probe == "loss" else range(len(found[name]))
            axes.plot(places, found[name], marker=".", label=domain)
        axes.set_xlabel("place in the sequence" if probe == "loss" else "layer")
        axes.set_ylabel(name)
        if probe == "loss":
            axes.set_xscale("log", base=2)
        axes.legend(frameon=False, fontsize=7)

    return draw
