"""What a sweep gave: measured, saved, and as a table."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn import ensemble, metrics, models
from jaxnn.commands.output import write_json
from jaxnn.commands.run_folder import temperature_of, write_model
from jaxnn.commands.training_data import in_memory
from jaxnn.data import Dataset
from jaxnn.ensemble import VARIED, Progress, Trained
from jaxnn.epoch import spec_of
from jaxnn.errors import RunError


def shown(progress: Progress) -> tuple[int, float, float, float, float]:
    """An epoch's line of the display: of the network that is ahead."""
    ahead = int(
        np.nanargmax(np.where(np.isfinite(progress.costs), progress.held_out_accuracies, -1))
    )
    return (
        progress.epoch,
        float(progress.costs[ahead]),
        float(progress.held_out_costs[ahead]),
        float(progress.held_out_accuracies[ahead]),
        progress.images_per_second,
    )


def measured(trained: Sequence[Trained], data: Dataset) -> dict[str, Any]:
    """Every network on the test images, and the settings from best to worst.

    Raises:
      RunError: every network diverged.
    """
    if all(one.best_epoch == 0 for one in trained):
        raise RunError(
            "every network diverged in its first epoch: try lower values of --learning-rate"
        )
    networks = []
    for one in trained:
        tested = metrics.evaluate(
            one.best_params,
            data.test_images,
            data.test_labels,
            model=models.build(spec_of(one.config)),
        )
        networks.append(
            {
                "setting": setting_of(one),
                "seed": one.config.seed,
                "best_epoch": one.best_epoch,
                "score": one.best_score if one.best_epoch else None,
                "diverged": one.diverged,
                "test_accuracy": tested.accuracy,
                "test_cost": tested.cost,
            }
        )
    chosen_by = "validation accuracy" if trained[0].config.validation else "minus training cost"
    groups: dict[str, list[int]] = {}
    for k, network in enumerate(networks):
        groups.setdefault(str(network["setting"]), []).append(k)
    settings = [_setting(networks, trained, which) for which in groups.values()]
    settings.sort(key=lambda setting: -setting["mean_score"])
    best = max(range(len(trained)), key=lambda k: trained[k].best_score)
    return {
        "chosen_by": chosen_by,
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


def _setting(
    networks: list[dict[str, Any]], trained: Sequence[Trained], which: list[int]
) -> dict[str, Any]:
    accuracies = [networks[k]["test_accuracy"] for k in which]
    return {
        **networks[which[0]]["setting"],
        "networks": which,
        "diverged": sum(trained[k].diverged for k in which),
        "mean_score": statistics.fmean(trained[k].best_score for k in which),
        "mean_test_accuracy": statistics.fmean(accuracies),
        "lowest_test_accuracy": min(accuracies),
        "highest_test_accuracy": max(accuracies),
    }


def table(result: dict[str, Any]) -> str:
    """The settings, best first: how they were chosen, and what that gives on the test images."""
    word = result["chosen_by"]
    lines = [
        f"{'learning rate':>13}  {'momentum':>8}  {'sizes':<20}  {'networks':>8}  {word:>20}"
        "  test accuracy: mean, lowest, highest"
    ]
    for one in result["settings"]:
        momentum = "" if one["momentum"] is None else f"{one['momentum']:g}"
        failed = f", {one['diverged']} diverged" if one["diverged"] else ""
        lines.append(
            f"{one['learning_rate']:13g}  {momentum:>8}  {'-'.join(map(str, one['sizes'])):<20}  "
            f"{len(one['networks']):8d}  {one['mean_score']:20.4f}  "
            f"{one['mean_test_accuracy']:.2%}, {one['lowest_test_accuracy']:.2%}, "
            f"{one['highest_test_accuracy']:.2%}{failed}"
        )
    best = result["networks"][result["best"]]
    lines.append(
        f"best network by {word}: seed {best['seed']}, learning rate "
        f"{best['setting']['learning_rate']:g}, test accuracy {best['test_accuracy']:.2%}"
    )
    return "\n".join(lines)


def save(folder: Path, trained: Sequence[Trained], result: dict[str, Any], data: Dataset) -> None:
    """Writes the best network, the ensemble of the best setting's seeds, and all figures."""
    best = trained[result["best"]]
    about = in_memory(data).about
    # Calibrated on the validation part, or else on training images, never on the test's.
    start = len(data.train_images) - best.config.validation if best.config.validation else 0
    known = (data.train_images[start:], data.train_labels[start:])
    found = result["networks"][result["best"]]
    write_model(
        folder / "model.safetensors",
        best.best_params,
        best.config,
        about,
        best.best_epoch,
        {name: found[name] for name in ("test_accuracy", "test_cost")},
        temperature_of(best.best_params, best.config, *known),
    )
    members = [trained[k] for k in result["settings"][0]["networks"] if trained[k].best_epoch]
    if len(members) > 1:
        params = ensemble.together(members)
        spec = spec_of(best.config)._replace(members=len(members), sizes=members[0].config.sizes)
        tested = metrics.evaluate(
            params, data.test_images, data.test_labels, model=models.build(spec)
        )
        result["ensemble"] = {
            "members": len(members),
            "test_accuracy": tested.accuracy,
            "test_cost": tested.cost,
        }
        write_model(
            folder / "ensemble.safetensors",
            params,
            members[0].config,
            about,
            max(one.best_epoch for one in members),
            {name: result["ensemble"][name] for name in ("test_accuracy", "test_cost")},
            temperature_of(params, members[0].config, *known, len(members)),
            members=len(members),
        )
    write_json(str(folder / "sweep.json"), result)
