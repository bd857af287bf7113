"""A folder as the Hugging Face Hub expects it, and its upload.

    a run -> model.safetensors, config.json, README.md, whose numbers are the run's
    the folder -> the Hub, with the user's own token

Nothing is uploaded unless `push` is called.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from vitlab import __version__
from vitlab.config import Config
from vitlab.data import KNOWN
from vitlab.errors import VitlabError
from vitlab.export.onnx import needed
from vitlab.files import write_bytes, write_json, write_text
from vitlab.formatting import between, bullets, markdown_name, percent, table
from vitlab.inference import TrainedModel
from vitlab.models import build_model
from vitlab.tensors import read_tensors


def write(model: TrainedModel, folder: Path) -> Path:
    """Write a model for the Hub into a folder; return the file of its weights."""
    weights = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    # A folder of one's own is nobody else's business.
    data = replace(model.run.config.data, dataset=model.card["dataset"])
    config = {
        "library_name": "vitlab",
        "model_type": "vitlab",
        "id2label": {str(k): name for k, name in enumerate(model.class_names)},
        "label2id": {name: k for k, name in enumerate(model.class_names)},
        "preprocessing": model.to_dict(),
        "vitlab": replace(model.run.config, data=data).to_dict(),
        "vitlab_version": __version__,
    }
    write_bytes(folder / "model.safetensors", save(weights))
    write_json(folder / "config.json", config)
    write_text(folder / "README.md", readme(model))
    return folder / "model.safetensors"


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
    library = needed("huggingface_hub", "pretrained")
    known = model.run.config.data.dataset in KNOWN
    results = [
        library.EvalResult(
            task_type="image-classification",
            dataset_type=card["dataset"],
            dataset_name=card["dataset"],
            dataset_split=split,
            metric_type="accuracy",
            metric_value=card[f"{split}_accuracy"],
        )
        for split in ("validation", "test")
        if card[f"{split}_accuracy"] is not None
    ]
    data = library.ModelCardData(
        library_name="vitlab",
        pipeline_tag="image-classification",
        tags=["vitlab", "image-classification", card["model"]],
        datasets=[card["dataset"]] if known else None,
        metrics=["accuracy"],
        model_name=model.name if results else None,
        eval_results=results or None,
    )
    temperature = f"{model.temperature:.4f}, from {number(card['validation_images'])} images"
    rows = [
        ("test accuracy", measured(card, "test")),
        ("validation accuracy", measured(card, "validation")),
        ("temperature", temperature if model.calibrated else "not measured"),
        ("parameters", number(card["parameters"])),
        ("multiply-adds", number(card["multiply_adds"])),
        ("training images", number(card["training_images"])),
        ("epochs", number(card["epochs"])),
        ("data set", markdown_name(card["dataset"])),
        ("checkpoint", f"`{model.checkpoint.sha256[:16]}`"),
    ]
    height, width = preprocessing.image_size
    colours = "grey" if preprocessing.channels == 1 else "RGB"
    body = [
        f"# {markdown_name(model.name)}",
        f"A {card['model']} for {height} x {width} {colours} images, trained from scratch with "
        f"vitlab {card['vitlab']}. Accuracies are of these weights, with 95 % intervals over "
        "images; what is not measured says so.",
        table(("", ""), rows),
        "## Classes",
        bullets(markdown_name(name) for name in model.class_names),
        "## Use",
        "```sh\nvitlab predict model.onnx photo.jpg\n```",
        "`model.onnx` takes normalised images and gives logits; size, statistics and class names "
        "are in its metadata. `model.safetensors` starts a training of the same shape: "
        "`vitlab train RECIPE --from hf:NAME`.",
        "## Limits",
        f"The model knows {len(model.class_names)} classes and nothing else: a "
        "picture of something else gets one of them, and sometimes a high probability. Its "
        "accuracy on pictures unlike its training images was not measured.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def measured(card: dict[str, Any], split: str) -> str:
    """A split's accuracy with its interval, in words."""
    if card[f"{split}_accuracy"] is None:
        return "not measured"
    interval = between(card[f"{split}_accuracy_interval"])
    images = f"{card[f'{split}_images']:,} images"
    return f"{percent(card[f'{split}_accuracy'])} ({interval}, {images})"


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
