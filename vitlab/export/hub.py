"""A folder as the Hugging Face Hub expects it, and its upload.

    a run -> model.safetensors, config.json, README.md, whose numbers are the run's
    the folder -> the Hub, with the user's own token

Nothing is uploaded unless `push` is called.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from vitlab import __version__
from vitlab.config import MODEL_NAMES, Config
from vitlab.data import KNOWN
from vitlab.errors import VitlabError
from vitlab.export.onnx import needed
from vitlab.files import write_bytes, write_json, write_text
from vitlab.formatting import between, bullets, count, markdown_name, percent, table
from vitlab.inference import TrainedModel
from vitlab.metrics import FEW_FOR_TEMPERATURE
from vitlab.metrics.multilabel import UNTUNED
from vitlab.models import build_model
from vitlab.recipes import command
from vitlab.tensors import read_tensors


def write(model: TrainedModel, folder: Path) -> Path:
    """Write a model for the Hub into a folder; return the file of its weights."""
    weights = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    several = {"problem_type": "multi_label_classification"} if "thresholds" in model.card else {}
    config = {
        **several,
        "library_name": "vitlab",
        "model_type": "vitlab",
        "id2label": {str(k): name for k, name in enumerate(model.class_names)},
        "label2id": {name: k for k, name in enumerate(model.class_names)},
        "preprocessing": model.to_dict(),
        "vitlab": published(model).to_dict(),
        "vitlab_version": __version__,
    }
    write_bytes(folder / "model.safetensors", save(weights))
    write_json(folder / "config.json", config)
    write_text(folder / "README.md", readme(model))
    return folder / "model.safetensors"


def published(model: TrainedModel) -> Config:
    """A model's config, in which paths have no folders: these are nobody else's business."""
    config, card = model.run.config, model.card
    data = replace(config.data, dataset=card["dataset"])
    return replace(config, data=data, train=replace(config.train, weights=card["weights"]))


def read(file: Path, config: Config, input_size: tuple[int, int]) -> nn.Module:
    """The model of a config with the weights of a file."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(config)
    model.resize(input_size)
    model.load_state_dict(read_tensors(file))
    return model.eval()


def readme(model: TrainedModel) -> str:
    """The card: what the Hub reads of it, then what a person reads, in Markdown."""
    card, preprocessing = model.card, model.preprocessing
    score, several = model.task.score, "thresholds" in card
    library = needed("huggingface_hub", "pretrained")
    known = model.run.config.data.dataset in KNOWN
    results = [
        library.EvalResult(
            task_type="image-classification",
            dataset_type=card["dataset"],
            dataset_name=card["dataset"],
            dataset_split=split,
            metric_type=score,
            metric_value=card[f"{split}_{score}"],
        )
        for split in ("validation", "test")
        if card[f"{split}_{score}"] is not None
    ]
    data = library.ModelCardData(
        library_name="vitlab",
        pipeline_tag="image-classification",
        tags=["vitlab", "image-classification", card["model"]],
        datasets=[card["dataset"]] if known else None,
        metrics=[score],
        model_name=model.name if results else None,
        eval_results=results or None,
    )
    rows = [
        (f"test {model.task.title}", measured(card, "test", score)),
        (f"validation {model.task.title}", measured(card, "validation", score)),
        ("temperature", temperature(model)),
        *unknown_and_sets(card),
        ("weights at the start", markdown_name(card["weights"] or "random")),
        ("parameters", number(card["parameters"])),
        ("multiply-adds", number(card["multiply_adds"])),
        ("training images", number(card["training_images"])),
        ("epochs", number(card["epochs"])),
        ("data set", markdown_name(card["dataset"])),
        ("checkpoint", f"`{model.checkpoint.sha256[:16]}`"),
    ]
    made = command(published(model))
    rows += [("command", f"`{made}`")] if made else []
    height, width = preprocessing.image_size
    colours = "grey" if preprocessing.channels == 1 else "RGB"
    body = [
        f"# {markdown_name(model.name)}",
        f"A {MODEL_NAMES[card['model']]} for {height} x {width} {colours} images, {origin(card)}.",
        table(("", ""), rows),
        "## Classes",
        bullets(map(markdown_name, model.class_names)) if not several else labels(model),
        "## Use",
        "```sh\nvitlab predict model.onnx photo.jpg\n```",
        "`model.onnx` takes normalised images and gives logits; size, statistics and class names "
        "are in its metadata. `model.safetensors` starts a training of a model of its shape: "
        f"`{fine_tuning(made)}`, with the name of this model on the Hub for NAME.",
        "## Limits",
        f"The model knows {len(model.class_names)} labels, and says nothing of anything else in a "
        "picture."
        if several
        else f"The model knows {len(model.class_names)} classes: a picture of anything else is "
        "given one of them, too.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def labels(model: TrainedModel) -> str:
    """The labels that a picture may have several of, with the threshold of each."""
    least = model.card["thresholds"] or [UNTUNED] * len(model.class_names)
    how = "tuned on validation images" if model.card["thresholds"] else "not tuned"
    pairs = zip(model.class_names, least, strict=True)
    rows = [(markdown_name(name), f"{threshold:.4f}") for name, threshold in pairs]
    return (
        "A picture is given every label whose probability, the sigmoid of its logit divided by the "
        f"temperature, is at least its threshold ({how}).\n\n{table(('label', 'threshold'), rows)}"
    )


def origin(card: dict[str, Any]) -> str:
    """How a model came to be, in words."""
    vitlab = f"vitlab {card['vitlab']}"
    if card["weights"] is None:
        return f"trained from scratch with {vitlab}"
    return f"trained with {vitlab}, starting from the weights `{markdown_name(card['weights'])}`"


def fine_tuning(made: str | None) -> str:
    """The command that starts a training from a model of the Hub, of the same shape."""
    if made is None:
        return "vitlab train RECIPE --from hf:NAME"
    _, _, recipe, *words = shlex.split(made)
    shape = [
        f"{name} {shlex.quote(value)}"
        for name, value in zip(words[::2], words[1::2], strict=True)
        if name.startswith(("--model.", "--data.image_size", "--data.channels"))
    ]
    return " ".join([f"vitlab train {recipe} --from hf:NAME", *shape])


def temperature(model: TrainedModel) -> str:
    """What logits are divided by, and what it was fitted on."""
    if not model.calibrated:
        return "not measured"
    images = count(model.card["validation_images"], "validation image")
    few = model.card["validation_images"] < FEW_FOR_TEMPERATURE
    guess = ", too few for more than a guess" if few else ""
    return f"{model.temperature:.4f}, fitted on {images}{guess}"


def unknown_and_sets(card: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured of pictures unlike the training images and of prediction sets."""
    rows = []
    if found := card["ood"]:
        share = percent(found["unknown"])
        rows.append(("validation images called unlike the training images", share))
    for row in card["prediction_sets"] or ():
        held = f"{percent(row['coverage'])}, with {row['mean_size']:.2f} classes in the mean"
        rows.append((f"sets of classes for {100 * row['level']:.0f} % of images hold", held))
    return rows


def measured(card: dict[str, Any], split: str, score: str) -> str:
    """A split's score with its interval, in words."""
    if card[f"{split}_{score}"] is None:
        return "not measured"
    interval = f"95 % interval {between(card[f'{split}_{score}_interval'])}"
    words = [interval, count(card[f"{split}_images"], "image")]
    if split == "validation" and card["validation_seen"]:
        words.append(f"{card['validation_seen']:,} of them trained on before")
    if split == "validation" and card["cross_validated"]:
        words.append(f"held out in turn in {card['cross_validated']} folds")
    return f"{percent(card[f'{split}_{score}'])} ({', '.join(words)})"


def number(value: int | None) -> str:
    """A whole number in words."""
    return "not measured" if value is None else f"{value:,}"


def push(folder: Path, name: str) -> str:
    """Upload an exported folder to a private model of the Hub; return its address.

    VitlabError without a token of the user's, or if the Hub refuses.
    """
    library = needed("huggingface_hub", "pretrained")
    token = library.get_token()
    if token is None:
        raise VitlabError(
            f"{folder} is written, but not uploaded: there is no token for the Hub. Make one at "
            "huggingface.co/settings/tokens and set HF_TOKEN, or run `hf auth login`"
        )
    hub = library.HfApi(token=token)
    try:
        made = hub.create_repo(name, private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message=f"Export of vitlab {__version__}",
        )
    except Exception as error:  # the client has many ways to say that it did not work
        reason = " ".join(str(error).split())
        raise VitlabError(f"{folder} is written, but {name} was not uploaded: {reason}") from error
    return str(made)
