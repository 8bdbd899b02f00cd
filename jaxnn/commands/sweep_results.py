"""What a sweep gave: compared, measured, saved, and as a table."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn import ensemble, metrics, models
from jaxnn.commands.output import write_json
from jaxnn.commands.run_folder import trust_of, write_model
from jaxnn.commands.training_data import in_memory
from jaxnn.data import Dataset
from jaxnn.ensemble import VARIED, Progress, Trained
from jaxnn.epoch import spec_of
from jaxnn.errors import RunError


def shown(progress: Progress, validation: bool) -> tuple[int, float, float, float, float]:
    """An epoch's line of the display: of the network that is ahead.

    Args:
      progress: the epoch.
      validation: whether a validation part chooses; else the training cost does.
    """
    scores = progress.held_out_accuracies if validation else -progress.costs
    ahead = int(np.argmax(np.where(np.isfinite(progress.costs), scores, -np.inf)))
    return (
        progress.epoch,
        float(progress.costs[ahead]),
        float(progress.held_out_costs[ahead]),
        float(progress.held_out_accuracies[ahead]),
        progress.images_per_second,
    )


def logged(progress: Progress) -> dict[str, Any]:
    """An epoch's line of the log, with an entry for each network in the order of sweep.json."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in progress._asdict().items()
    }


def compared(trained: Sequence[Trained]) -> dict[str, Any]:
    """Every network, the settings from best to worst, and the best network of the best setting.

    A setting is worth the mean score of its networks that did not diverge.

    Raises:
      RunError: every network diverged.
    """
    networks: list[dict[str, Any]] = [
        {
            "setting": setting_of(one),
            "seed": one.config.seed,
            "best_epoch": one.best_epoch,
            "diverged": one.diverged or not one.best_epoch,
            "score": None if one.diverged or not one.best_epoch else one.best_score,
            "test_accuracy": None,  # until `measured`
            "test_cost": None,
        }
        for one in trained
    ]
    groups: dict[str, list[int]] = {}
    for k, network in enumerate(networks):
        groups.setdefault(str(network["setting"]), []).append(k)
    settings = [_setting(networks, which) for which in groups.values()]
    settings.sort(key=lambda one: np.inf if one["mean_score"] is None else -one["mean_score"])
    if settings[0]["mean_score"] is None:
        raise RunError("every network diverged: try lower values of --learning-rate")
    best = max(alive(networks, settings[0]), key=lambda k: networks[k]["score"])
    return {
        "chosen_by": "validation accuracy"
        if trained[0].config.validation
        else "minus training cost",
        "best": best,
        "settings": settings,
        "networks": networks,
        "config": dataclasses.asdict(trained[best].config),
    }


def setting_of(one: Trained) -> dict[str, Any]:
    """What a sweep varies, but for the seeds."""
    return {
        name: getattr(one.config, name) for name in VARIED if name not in ("seed", "shuffle_seed")
    }


def alive(networks: list[dict[str, Any]], setting: dict[str, Any]) -> list[int]:
    """The networks of a setting that did not diverge."""
    return [k for k in setting["networks"] if not networks[k]["diverged"]]


def _setting(networks: list[dict[str, Any]], which: list[int]) -> dict[str, Any]:
    scores = [networks[k]["score"] for k in which if not networks[k]["diverged"]]
    return {
        **networks[which[0]]["setting"],
        "networks": which,
        "diverged": len(which) - len(scores),
        **_range("score", scores),
    }


def _range(name: str, values: list[float]) -> dict[str, float | None]:
    return {
        f"mean_{name}": statistics.fmean(values) if values else None,
        f"lowest_{name}": min(values, default=None),
        f"highest_{name}": max(values, default=None),
    }


def measured(trained: Sequence[Trained], data: Dataset) -> dict[str, Any]:
    """As `compared`, with the networks of the best setting, and no others, on the test images.

    Raises:
      RunError: every network diverged.
    """
    result = compared(trained)
    networks = result["networks"]
    which = alive(networks, result["settings"][0])
    for k in which:
        networks[k] |= _tested(trained[k].best_params, trained[k], data)
    return result | _range("test_accuracy", [networks[k]["test_accuracy"] for k in which])


def _tested(params: Any, one: Trained, data: Dataset, members: int = 1) -> dict[str, float]:
    """A network of that kind, or an ensemble of such, on the test images."""
    model = models.build(spec_of(one.config)._replace(members=members))
    tested = metrics.evaluate(params, data.test_images, data.test_labels, model=model)
    return {"test_accuracy": tested.accuracy, "test_cost": tested.cost}


def save(folder: Path, trained: Sequence[Trained], result: dict[str, Any], data: Dataset) -> None:
    """Writes all figures, the best network, and the ensemble of the best setting's networks.

    The ensemble takes the best ones where there are more than it can hold.
    """
    figures = str(folder / "sweep.json")
    write_json(figures, result)  # first: whatever happens, these are kept
    networks, setting = result["networks"], result["settings"][0]
    best = trained[result["best"]]
    source = in_memory(data)
    # Calibrated on the validation part, or else on training images, never on the test's.
    start = len(data.train_images) - best.config.validation if best.config.validation else 0
    known = (data.train_images[start:], data.train_labels[start:])
    write_model(
        folder / "model.safetensors",
        best.best_params,
        best.config,
        source,
        best.best_epoch,
        {name: networks[result["best"]][name] for name in ("test_accuracy", "test_cost")},
        trust_of(best.best_params, best.config, *known),
    )
    best_first = sorted(alive(networks, setting), key=lambda k: -networks[k]["score"])
    which = sorted(best_first[: models.MAX_MEMBERS])
    if len(which) == 1:
        return
    params = ensemble.together([trained[k] for k in which])
    tested = _tested(params, best, data, len(which))
    result["ensemble"] = {"members": len(which), "networks": which, **tested}
    write_model(
        folder / "ensemble.safetensors",
        params,
        trained[setting["networks"][0]].config,
        source,
        max(trained[k].best_epoch for k in which),
        tested,
        trust_of(params, best.config, *known, len(which)),
        swept=len(setting["networks"]),
        members=[networks[k]["seed"] for k in which],
    )
    write_json(figures, result)


def table(result: dict[str, Any]) -> str:
    """The settings, best first, and what the best one gives on the test images."""
    word = result["chosen_by"]
    lines = [
        f"{'learning rate':>13}  {'momentum':>8}  {'sizes':<20}  {'networks':>8}  "
        f"{word}: mean, lowest, highest"
    ]
    for one in result["settings"]:
        momentum = "" if one["momentum"] is None else f"{one['momentum']:g}"
        scores = "all diverged"
        if one["mean_score"] is not None:
            scores = ", ".join(
                f"{one[f'{part}_score']:.4f}" for part in ("mean", "lowest", "highest")
            )
            scores += f", {one['diverged']} diverged" if one["diverged"] else ""
        lines.append(
            f"{one['learning_rate']:13g}  {momentum:>8}  {'-'.join(map(str, one['sizes'])):<20}  "
            f"{len(one['networks']):8d}  {scores}"
        )
    networks, best = result["networks"], result["networks"][result["best"]]
    count = len(alive(networks, result["settings"][0]))
    lines += [
        f"best setting, its {count} networks read the test images: mean "
        f"{result['mean_test_accuracy']:.2%}, lowest {result['lowest_test_accuracy']:.2%}, highest "
        f"{result['highest_test_accuracy']:.2%}",
        f"best of them by {word}: seed {best['seed']}, test accuracy {best['test_accuracy']:.2%}",
    ]
    if "ensemble" in result:
        members = result["ensemble"]["members"]
        of = f"the best {members:,} of them, as many as it holds" if members < count else "them"
        lines.append(f"ensemble of {of}: test accuracy {result['ensemble']['test_accuracy']:.2%}")
    return "\n".join(lines)
