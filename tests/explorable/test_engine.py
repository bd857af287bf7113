"""What the page computes is what torch computes, for every kind of model and every edit."""

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import vitlab
from vitlab.config import (
    CNN6Config,
    Config,
    DataConfig,
    HybridConfig,
    ModelConfig,
    ResNet18Config,
    TrainConfig,
    ViTConfig,
)
from vitlab.explain import open_sample
from vitlab.explain.attention import trace_attention
from vitlab.explain.methods import METHODS
from vitlab.explorable import page as pages
from vitlab.models import ViT, build_model
from vitlab.models.ffn import FFNS
from vitlab.models.norm import NORMS
from vitlab.models.patch import PATCHES
from vitlab.models.pool import POOLS
from vitlab.models.position import POSITIONS, NoPosition
from vitlab.models.vit import BLOCKS
from vitlab.preprocessing import preprocess, to_tensor

MODELS = ("cpu-plain", "cpu", "cpu-cnn")
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)
NOTHING = {"patches": [], "heads": [], "blocks": [], "channels": [], "positions": False}

HARNESS = """async ([payload, images, labels, edits]) => {
  const model = vitlab.openModel(payload);
  const found = {};
  const keep = (name, values) => (found[name] ??= []).push(values);
  const bytes = Uint8Array.from(atob(images), (letter) => letter.charCodeAt(0));
  const { height, width, channels } = payload.image;
  for (let at = 0, k = 0; at < bytes.length; at += height * width * channels, k++) {
    const pixels = bytes.subarray(at, at + height * width * channels);
    const trace = model.run(pixels, edits);
    keep("logits", trace.logits);
    keep("probabilities", trace.probabilities);
    for (const block of trace.blocks ?? [])
      for (const head of block.attention) keep("weights", head.values);
    for (const one of trace.lens ?? []) keep("lens", one);
    for (const one of trace.stages ?? []) keep(one.name, one.values);
    if (k >= labels.length) continue;
    const heats = Object.entries(model.explain(pixels, edits, labels[k]));
    for (const [method, heat] of heats) keep(method, heat.values);
  }
  const text = (arrays) => new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.readAsDataURL(new Blob(arrays));
  });
  const entries = Object.entries(found).map(async ([name, all]) => [name, await text(all)]);
  return Object.fromEntries(await Promise.all(entries));
}"""
"""What a model answers to images, and its maps of the first ones: by name, float32 in base64."""

Engine = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def tab(browser) -> Any:
    """A page in which the engine is at hand."""
    tab = browser.new_page()
    tab.set_content(pages.render(pages.payload(vitlab.load("cpu-plain", device="cpu"))))
    tab.wait_for_function("window.vitlab")
    return tab


@pytest.fixture(scope="module")
def engine(tab) -> Engine:
    """Runs a payload's model in the browser, on uint8 images (N, H, W, C)."""

    def run(payload, images, labels=(), edits=NOTHING) -> dict[str, np.ndarray]:
        text = base64.b64encode(images.tobytes()).decode()
        found = tab.evaluate(HARNESS, [payload, text, list(labels), {**NOTHING, **edits}])
        return {
            name: np.frombuffer(base64.b64decode(values), "<f4") for name, values in found.items()
        }

    return run


class Small(NamedTuple):
    """A model whose weights, and statistics of batch norms, were drawn at random."""

    config: Config
    module: nn.Module

    @classmethod
    def make(cls, model: ModelConfig, size=(16, 16), channels=3, **data: Any) -> "Small":
        torch.manual_seed(0)
        form = DataConfig(image_size=size, channels=channels, classes=3, **data)
        teacher = "cpu-cnn" if getattr(model, "distill_token", False) else None
        config = Config(data=form, model=model, train=TrainConfig(teacher=teacher))
        module = build_model(config).eval()
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 2)
                elif tensor.is_floating_point():
                    spread = float(tensor.std()) / 2 if tensor.ndim > 1 else 0.0
                    tensor.add_((spread or 0.2) * torch.randn_like(tensor))
        return cls(config, module)

    @property
    def payload(self) -> dict[str, Any]:
        """What the engine needs to know of a model, at a temperature of 2."""
        data = self.config.data
        (height, width), channels = data.image_size, data.channels
        index, weights = pages.pack(pages.tensors(self.module))
        return {
            "task": data.task, "model": self.config.to_dict()["model"], "classes": list("abc"),
            "image": {"height": height, "width": width, "channels": channels},
            "mean": MEAN[:channels], "std": STD[:channels], "temperature": 2.0,
            "tensors": index, "weights": pages.in_base64(weights),
        }  # fmt: skip

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        data = self.config.data
        channels = data.channels
        return preprocess(to_tensor(images), MEAN[:channels], STD[:channels], data.image_size)


def noise(count: int, size=(16, 16), channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, channels), np.uint8)


def smooth(count: int) -> np.ndarray:
    """Random fields whose neighbouring pixels are alike, as those of photographs are."""
    waves = np.fft.rfft2(np.random.default_rng(1).normal(size=(count, 3, 32, 32)))
    distance = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)) + 1 / 32
    fields = np.fft.irfft2(waves / distance**1.5)
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(128 + 50 * fields, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def is_close(found: np.ndarray, expected: torch.Tensor, scale: float = 1.0) -> None:
    """To 1e-4, absolutely or of a scale."""
    values = expected.detach().numpy().ravel()
    assert found.shape == values.shape
    assert np.abs(found - values).max() <= 1e-4 * scale


def check(found: dict[str, np.ndarray], module: nn.Module, images: torch.Tensor, labels=()):
    """Logits, attention and maps equal torch's."""
    if isinstance(module, ViT):
        with torch.no_grad():
            expected = trace_attention(module, images)
        layers = torch.stack(expected.layers, dim=1)
        is_close(found["weights"], layers)
        is_close(found["logits"], expected.logits)
    else:
        with torch.no_grad():
            is_close(found["logits"], module(images))
    if not len(labels):
        return
    attends = isinstance(module, ViT)
    for method in pages.METHODS if attends else ("grad-cam",):
        maps = METHODS[method](module, images[: len(labels)], torch.tensor(labels))
        for values, one in zip(np.split(found[method], len(labels)), maps, strict=True):
            is_close(values, one, max(float(one.max() - one.min()), 1e-3))


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_answer_as_in_torch(engine, name):
    model = vitlab.load(name, device="cpu")
    images = np.concatenate([noise(40, (32, 32)), smooth(60)])[::-1].copy()
    x = preprocess(to_tensor(images), model.preprocessing.mean, model.preprocessing.std, (32, 32))
    labels = list(range(5))
    check(engine(pages.payload(model), images, labels), model.module, x, labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_photographs_are_classified_as_in_torch(engine, cifar10, name):
    model = vitlab.load(name, device="cpu")
    sample = open_sample(model.run, "validation", data_root=cifar10)
    images = sample.examples.images[sample.places[:100]]
    x = preprocess(to_tensor(images), model.preprocessing.mean, model.preprocessing.std, (32, 32))
    check(engine(pages.payload(model), images, [3, 5]), model.module, x, [3, 5])


VITS = [
    *({"patch": patch} for patch in PATCHES),
    *({"patch": patch, "patch_size": 2} for patch in ("cct", "conv", "spt", "whitened")),
    {"patch": "conv", "patch_convs": 2},
    *({"position": position} for position in POSITIONS),
    *({"position": one, "position_on_cls": True} for one in ("learned", "sin1d", "sin2d")),
    *({"norm": norm, "qk_norm": True, "embed_norm": True} for norm in NORMS),
    {"patch": "spt", "norm": "rms", "norm_eps": 0.01},
    *({"norm_place": place, "layer_scale": 0.5} for place in BLOCKS),
    *({"ffn": ffn, "ffn_ratio": 1.5} for ffn in FFNS),
    {"qkv_bias": False, "depth": 1},
    {"lsa": True, "position": "rope"},
    *({"pool": pool, "registers": 2} for pool in POOLS),
    *({"pool": pool, "cls_token": False, "ffn": "dwconv"} for pool in ("mean", "seqpool")),
    *({"pool": "mean", "distill_token": True, "cls_token": cls} for cls in (True, False)),
    {"pool": "cls+mean", "distill_token": True, "registers": 1, "position": "rope", "lsa": True},
]


def vit(**fields) -> ViTConfig:
    return ViTConfig(**{"width": 16, "depth": 2, "heads": 2, **fields})


def hybrid(**fields) -> HybridConfig:
    return HybridConfig(width=16, depth=2, heads=2, **{"stage_width": 8, **fields})


CASES = [
    *((vit(**fields), (16, 16), 3) for fields in VITS),
    *((vit(patch=patch, ffn="dwconv", position="rope"), (8, 16), 1) for patch in PATCHES),
    *((vit(patch_size=size, pad_to_patch=True), (14, 17), 3) for size in (4, 5)),
    (vit(patch="whitened", pad_to_patch=True), (15, 18), 3),
    *((hybrid(patch=patch), (16, 16), 3) for patch in PATCHES if patch != "whitened"),
    (hybrid(stage_size=1, stage_depth=1, patch_size=2, norm="rms"), (8, 8), 1),
    (hybrid(stage_size=4, pad_to_patch=True), (14, 18), 3),
    *((kind(width=4), size, channels)
      for kind in (ResNet18Config, CNN6Config)
      for size, channels in (((16, 16), 3), ((24, 16), 1))),
]  # fmt: skip


@pytest.mark.parametrize(("cfg", "size", "channels"), CASES)
def test_every_part_computes_as_in_torch(engine, cfg, size, channels):
    model = Small.make(cfg, size, channels)
    images = noise(2, size, channels)
    found = engine(model.payload, images, [0, 2])
    module, x = model.module, model.normalised(images)
    check(found, module, x, [0, 2])
    trace: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        logits = module(x, trace)
    is_close(found["probabilities"], (logits / 2).softmax(dim=1))
    if not isinstance(module, ViT):
        for name, maps in trace.items():
            is_close(found[name], maps, float(maps.abs().max()))
        return
    states = [tokens for name, tokens in trace.items() if not name.endswith(".attention")]
    with torch.no_grad():
        lens = torch.stack([read(module, tokens) for tokens in states], dim=1)
    is_close(found["lens"], (lens / 2).softmax(dim=2))


def read(module: ViT, tokens: torch.Tensor) -> torch.Tensor:
    """The logits of tokens, as if they left the last block."""
    final = module.norm(tokens)
    logits = module.head(module.pool(final))
    if module.head_dist is None:
        return logits
    return (logits + module.head_dist(final[:, int(module.cfg.cls_token)])) / 2


def test_labels_have_a_probability_each(engine):
    model = Small.make(vit(), task="multilabel")
    images = noise(2)
    found = engine(model.payload, images)
    with torch.no_grad():
        logits = model.module(model.normalised(images))
    is_close(found["probabilities"], (logits / 2).sigmoid())


@contextmanager
def hooked(*hooks):
    yield
    for hook in hooks:
        hook.remove()


def without_patches(module: ViT, patches: list[int]) -> AbstractContextManager:
    """Mask their keys, hide them from the convolution of ffn='dwconv' and from the pool."""
    out = [module.cfg.prefix + patch for patch in patches]
    count = module.cfg.prefix + 16
    hooks = []
    for block in module.blocks:
        mask = torch.ones(count, count, dtype=torch.bool)
        mask[:, out] = False
        if block.attn.attn_mask is not None:
            mask &= block.attn.attn_mask
        block.attn.attn_mask = mask
        if module.cfg.ffn == "dwconv":
            hooks.append(block.mlp.dwconv.register_forward_pre_hook(
                lambda _, inputs: (blanked(inputs[0].flatten(2), 2, patches).view_as(inputs[0]),)
            ))  # fmt: skip
    kept = [token for token in range(count) if token not in out]
    hooks.append(module.pool.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, kept],)))
    return hooked(*hooks)


def without_head(module: ViT, block: int, head: int) -> AbstractContextManager:
    """Set what it found to 0 before the output projection."""
    columns = list(range(8 * head, 8 * head + 8))
    hook = module.blocks[block].attn.proj.register_forward_pre_hook(
        lambda _, inputs: (blanked(inputs[0], 2, columns),)
    )
    return hooked(hook)


def blanked(tensor: torch.Tensor, dim: int, places: list[int]) -> torch.Tensor:
    return tensor.index_fill(dim, torch.tensor(places), 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "cls"},
        {"pool": "cls+mean", "registers": 1, "norm_place": "post"},
        {"pool": "seqpool", "cls_token": False, "ffn": "dwconv"},
        {"pool": "mean", "lsa": True, "distill_token": True, "ffn": "dwconv"},
    ],
)
def test_patches_taken_out_are_read_by_nothing(engine, fields):
    model = Small.make(vit(**fields))
    images, out = noise(2), [0, 5, 6]
    found = engine(model.payload, images, [0, 1], {"patches": out})
    with without_patches(model.module, out):
        check(found, model.module, model.normalised(images))
    for method in pages.METHODS:
        maps = found[method].reshape(2, 16)
        assert not maps[:, out].any()
        assert np.isfinite(maps).all()
    everything = engine(model.payload, images, [0, 1], {"patches": list(range(16))})
    assert all(np.isfinite(values).all() for values in everything.values())


@pytest.mark.parametrize("fields", [{}, {"norm_place": "post", "qk_norm": True}])
def test_a_head_taken_out_adds_nothing(engine, fields):
    model = Small.make(vit(**fields))
    images = noise(2)
    found = engine(model.payload, images, [0, 1], {"heads": ["0.1"]})
    with without_head(model.module, 0, 1):
        check(found, model.module, model.normalised(images))
        for method in ("gradient-rollout", "grad-cam"):
            maps = METHODS[method](model.module, model.normalised(images), torch.tensor([0, 1]))
            is_close(found[method], maps, float(maps.max()))


def test_heads_taken_out_have_no_say_in_maps(engine):
    payload = Small.make(vit(pool="mean")).payload
    heads = engine(payload, noise(2), [0, 1], {"heads": ["1.0", "1.1"]})
    block = engine(payload, noise(2), [0, 1], {"blocks": [1]})
    for method in ("attention", "rollout"):
        np.testing.assert_allclose(heads[method], block[method], rtol=1e-5)


@pytest.mark.parametrize("place", BLOCKS)
@pytest.mark.parametrize("out", [0, 1])
def test_tokens_pass_a_block_by_that_is_taken_out(engine, place, out):
    model = Small.make(vit(norm_place=place))
    images = noise(2)
    found = engine(model.payload, images, [0, 1], {"blocks": [out]})
    found["weights"] = found["weights"].reshape(2, 2, -1)[:, 1 - out].ravel()
    del model.module.blocks[out]
    model.module.blocks[0].attn.name = "block00.attention"
    check(found, model.module, model.normalised(images), [0, 1])


def test_without_any_block_no_map_shows_a_place(engine):
    found = engine(Small.make(vit()).payload, noise(1), [0], {"blocks": [0, 1]})
    assert not any(found[method].any() for method in pages.METHODS)


@pytest.mark.parametrize("position", POSITIONS)
def test_positions_taken_out_leave_a_model_without(engine, position):
    model = Small.make(vit(position=position))
    images = noise(2)
    found = engine(model.payload, images, [0, 1], {"positions": True})
    model.module.pos_embed = NoPosition(model.config.model, (4, 4))
    check(found, model.module, model.normalised(images), [0, 1])


@pytest.mark.parametrize("out", [0, 2, 7])
def test_a_residual_branch_taken_out_adds_nothing(engine, out):
    model = Small.make(ResNet18Config(width=4))
    images = noise(2)
    found = engine(model.payload, images, [0, 1], {"blocks": [out]})
    branch = model.module.stages.get_submodule(f"stage{out // 2 + 1}.{out % 2}.bn2")
    with hooked(branch.register_forward_hook(lambda _, inputs, maps: torch.zeros_like(maps))):
        check(found, model.module, model.normalised(images), [0, 1])


@pytest.mark.parametrize("kind", [ResNet18Config, CNN6Config])
@pytest.mark.parametrize("stage", ["stage1", "stage3"])
def test_channels_taken_out_are_0_for_what_follows(engine, kind, stage):
    model = Small.make(kind(width=4))
    images, channels = noise(2), [1, 3]
    edits = {"channels": [f"{stage}.{channel}" for channel in channels]}
    found = engine(model.payload, images, [0, 1], edits)
    hook = model.module.stages.get_submodule(stage).register_forward_hook(
        lambda _, inputs, maps: blanked(maps, 1, channels)
    )
    with hooked(hook):
        check(found, model.module, model.normalised(images), [0, 1])


@pytest.mark.parametrize("rows", [64, 9])  # more and fewer than columns
def test_scores_are_those_on_the_principal_components(tab, rows):
    tokens = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32) + 3
    tokens *= 1.5 ** -np.arange(16, dtype=np.float32)
    found = tab.evaluate(
        "([rows, values]) => Array.from(vitlab.principal("
        "{ rows, columns: 16, values: Float32Array.from(values) }))",
        [rows, tokens.ravel().tolist()],
    )
    left, strength, _ = np.linalg.svd(tokens - tokens.mean(axis=0))
    expected = left[:, :3] * strength[:3]
    scores = np.reshape(found, (rows, 3))
    signs = np.sign((scores * expected).sum(axis=0))
    assert np.abs(scores - signs * expected).max() < 1e-2 * strength[0]
    assert (scores.max(axis=0) >= -scores.min(axis=0)).all()
