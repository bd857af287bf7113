"""Weights of other models: names, positions, patch filters, heads, and the report about them."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny import IMAGES

from vitlab.config import CNN6Config, Config, DataConfig, ResNet18Config
from vitlab.errors import RunError
from vitlab.models import build_model
from vitlab.models.weights import grid_of, load_weights, resample_filters


def vit(*args, **fields):
    return tiny.vit(*args, **{"init_std": 1.0, **fields}).eval()


def timm_names(model):
    """A model's weights as timm calls them."""
    weights = dict(model.state_dict())
    return {name.replace("pos_embed.weight", "pos_embed"): weights[name] for name in weights}


def test_equal_models_take_everything_over_and_say_so():
    source, model = vit(seed=1), vit()
    report = load_weights(model, source.state_dict())
    assert torch.equal(model(IMAGES), source(IMAGES))
    assert set(report.matched) == set(model.state_dict())
    assert str(report) == "32 tensors taken over, 0 resized, 0 skipped, 0 left as drawn"


@pytest.mark.parametrize(
    "fields", [{"registers": 2}, {"distill_token": True}, {"cls_token": False, "pool": "mean"}]
)
@pytest.mark.parametrize("theirs, ours", [(True, False), (False, True)])
def test_timms_positions_on_the_prefix_come_to_the_same_wherever_they_are_kept(
    fields, theirs, ours
):
    with_cls = fields.get("cls_token", True)
    source = vit(seed=1, position_on_cls=theirs and with_cls, **fields)
    weights = timm_names(source)
    prefix = source.cfg.prefix
    if theirs and prefix > 1:
        # timm gives every token of the prefix a row of its own
        rest = 0.1 * torch.randn(1, prefix - 1, 16)
        cls, patches = weights["pos_embed"].tensor_split([1], dim=1)
        weights["pos_embed"] = torch.cat([cls, rest, patches], dim=1)
        name = "reg_token" if "registers" in fields else "dist_token"
        weights[name] = weights[name] - rest
    model = vit(position_on_cls=ours and with_cls, **fields)
    load_weights(model, weights)
    torch.testing.assert_close(model(IMAGES), source(IMAGES), atol=1e-5, rtol=0)


def test_positions_are_resampled_as_a_resized_model_resamples_them():
    source, model = vit((16, 24), seed=1), vit((32, 48))
    report = load_weights(model, source.state_dict())
    assert report.resized == {"pos_embed.weight": "4 x 6 to 8 x 12 patches"}
    source.resize((32, 48))
    images = torch.linspace(-2, 2, 3 * 32 * 48).sin().view(1, 3, 32, 48)
    torch.testing.assert_close(model(images), source(images))


@pytest.mark.parametrize(
    "count, like, grid",
    [
        (196, (8, 8), (14, 14)), (24, (8, 12), (4, 6)), (196, (8, 12), (14, 14)),
        (50, (2, 4), (5, 10)), (197, (8, 8), None), (0, (8, 8), None),
    ],
)  # fmt: skip
def test_a_grid_is_told_from_its_number_of_patches(count, like, grid):
    assert grid_of(count, like) == grid


def test_positions_without_a_place_are_skipped():
    weights = vit(seed=1).state_dict() | {"pos_embed.weight": torch.zeros(1, 23, 16)}
    report = load_weights(vit(), weights)  # 23 are no grid
    assert report.skipped == {"pos_embed.weight": "1 x 23 x 16, here 1 x 16 x 16"}
    assert report.missing == ("pos_embed.weight",)
    report = load_weights(vit(position="sin2d"), vit(seed=1).state_dict())
    assert report.skipped == {"pos_embed.weight": "not in this model"}


def test_larger_patches_give_enlarged_images_the_same_tokens():
    filters, image = torch.randn(7, 3, 4, 4), torch.randn(1, 3, 4, 4)
    enlarged = F.interpolate(image, (8, 8), mode="bicubic", antialias=True)
    tokens = F.conv2d(enlarged, resample_filters(filters, (8, 8)))
    torch.testing.assert_close(tokens, F.conv2d(image, filters), atol=1e-4, rtol=0)


def test_smaller_patches_tell_of_shrunk_images_as_much_as_a_regression_can():
    torch.manual_seed(0)
    filters, images = torch.randn(7, 1, 6, 6), torch.randn(20_000, 1, 6, 6)
    shrunk = F.interpolate(images, (3, 3), mode="bicubic", antialias=True)
    tokens = F.conv2d(images, filters).flatten(1)
    regression = torch.linalg.lstsq(shrunk.flatten(1), tokens).solution.T
    found = resample_filters(filters, (3, 3)).flatten(1)
    torch.testing.assert_close(found, regression, atol=0.3, rtol=0)
    assert found.abs().mean() > 1


def test_a_model_of_smaller_patches_and_grey_images_takes_both_changes_at_once():
    source, model = vit((32, 32), seed=1, patch_size=8), vit((16, 16), channels=1)
    report = load_weights(model, source.state_dict())
    assert report.resized == {"patch_embed.proj.weight": "3 x 8 x 8 to 1 x 4 x 4"}
    by_hand = resample_filters(source.patch_embed.proj.weight.sum(1, keepdim=True), (4, 4))
    torch.testing.assert_close(model.patch_embed.proj.weight.data, by_hand.data)


def test_grey_images_give_a_grey_model_the_tokens_of_three_equal_colours():
    source, model = vit(seed=1), vit(channels=1)
    load_weights(model, source.state_dict())
    grey = IMAGES[:, :1]
    torch.testing.assert_close(model(grey), source(grey.expand(-1, 3, -1, -1)))


def test_another_number_of_classes_skips_the_head_and_leaves_it_as_drawn():
    model = vit(classes=10)
    drawn = model.head.weight.clone()
    report = load_weights(model, vit(seed=1).state_dict())
    assert report.skipped == dict.fromkeys(("head.weight", "head.bias"), "5 classes, here 10")
    assert report.missing == ("head.weight", "head.bias")
    assert torch.equal(model.head.weight, drawn)
    assert str(report).splitlines()[1:] == [
        "skipped head.weight, head.bias: 5 classes, here 10",
        "as drawn head.weight, head.bias",
    ]


def test_a_shallower_model_takes_the_first_blocks_and_a_long_report_stays_short():
    source, model = vit(seed=1, depth=6), vit(registers=1)
    report = load_weights(model, source.state_dict())
    assert torch.equal(model.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)
    assert report.missing == ("reg_token",)
    assert len(report.skipped) == 4 * 12
    assert "skipped blocks.2.norm1.weight, blocks.2.norm1.bias" in str(report)
    assert "and 45 more: not in this model" in str(report)
    assert len(str(report).splitlines()) == 3


def test_another_width_is_refused_by_name_and_nothing_changes():
    model = vit()
    before = model(IMAGES)
    with pytest.raises(RunError, match=r"fit 1 of 32 tensors.*1 x 1 x 32, here 1 x 1 x 16"):
        load_weights(model, vit(seed=1, width=32).state_dict())
    with pytest.raises(RunError, match=r"there somebody; here cls_token, .*the model\.kind"):
        load_weights(model, {"somebody": torch.zeros(3)})
    assert torch.equal(model(IMAGES), before)
    # Followed, the advice helps.
    load_weights(vit(width=32), vit(seed=1, width=32).state_dict())


def test_half_precision_becomes_full():
    source, model = vit(seed=1), vit()
    load_weights(model, {name: value.half() for name, value in source.state_dict().items()})
    assert model.head.weight.dtype == torch.float32
    torch.testing.assert_close(model(IMAGES), source(IMAGES), atol=0.01, rtol=0)


# Heads

IMAGES_OF_5 = DataConfig(image_size=(16, 16), channels=3, classes=5)
KINDS = {
    "vit": tiny.config(distill_token=True, init_std=1.0),
    "resnet18": Config(data=IMAGES_OF_5, model=ResNet18Config(width=4)),
    "cnn6": Config(data=IMAGES_OF_5, model=CNN6Config(width=4)),
}
FRUIT = ("apple", "fig", "kiwi", "lime", "plum")


@pytest.fixture(params=KINDS)
def pair(request):
    """Two models of a kind, and their logits for the same images: those of two heads in a row."""
    source, model = (build_model(KINDS[request.param]).eval() for _ in "ab")

    def heads(one):
        return getattr(one, "head_logits", lambda images: (one(images),))(IMAGES)

    return source, model, heads


def test_a_head_for_classes_of_other_names_starts_anew(pair):
    source, model, heads = pair
    drawn = {name: one.clone() for name, one in model.state_dict().items() if "head" in name}
    report = load_weights(model, source.state_dict(), FRUIT, ("ant", "bee", "cow", "dog", "emu"))
    said = "of the classes apple, fig, kiwi and 2 more, here ant, bee, cow and 2 more"
    assert set(report.skipped.values()) == {said} and set(report.skipped) == set(report.missing)
    assert len(report.skipped) == 2 * len(heads(model))  # weight and bias of what gives the logits
    for name in report.skipped:
        assert torch.equal(model.state_dict()[name], drawn[name])
    kept = [name for name in drawn if name not in report.skipped]
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in kept)


def test_a_head_for_the_same_classes_in_another_order_is_brought_to_ours(pair):
    source, model, heads = pair
    order = [3, 0, 4, 1, 2]
    report = load_weights(model, source.state_dict(), FRUIT, [FRUIT[place] for place in order])
    for ours, theirs in zip(heads(model), heads(source), strict=True):
        torch.testing.assert_close(ours, theirs[:, order])
    assert set(report.resized.values()) == {"rows in the order of the classes here"}
    assert not report.skipped and not report.missing


def test_a_head_is_taken_over_where_the_names_agree_or_are_not_known(pair):
    source, model, heads = pair
    for theirs, ours in ((FRUIT, FRUIT), (None, FRUIT)):
        report = load_weights(model, source.state_dict(), theirs, ours)
        assert set(report.matched) == set(model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(heads(model), heads(source), strict=True))


# The transformers library


@pytest.mark.parametrize("folder", ["ViTModel", "ViTForImageClassification", "DeiT"])
def test_models_of_the_transformers_library_give_the_logits_they_give_there(tmp_path, folder):
    transformers = pytest.importorskip("transformers")
    shape = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "image_size": 16, "patch_size": 4, "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    if folder == "DeiT":
        config = transformers.DeiTConfig(**shape, num_labels=5)
        theirs = transformers.DeiTForImageClassificationWithTeacher(config)
    else:
        theirs = getattr(transformers, folder)(transformers.ViTConfig(**shape, num_labels=5))
    for name, weight in theirs.named_parameters():
        if "embeddings" in name or "bias" in name:
            torch.nn.init.normal_(weight, std=0.5)
    theirs.eval().save_pretrained(tmp_path)
    model = vit(distill_token=folder == "DeiT")
    report = load_weights(model, load_file(tmp_path / "model.safetensors"))
    if folder == "ViTModel":
        expected = theirs(IMAGES).last_hidden_state
        torch.testing.assert_close(model.features(IMAGES), expected, atol=1e-4, rtol=0)
        assert set(report.skipped) == {"pooler.dense.weight", "pooler.dense.bias"}
    else:
        torch.testing.assert_close(model(IMAGES), theirs(IMAGES).logits, atol=1e-4, rtol=0)
        assert not report.skipped and not report.missing
