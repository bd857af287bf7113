"""The scikit-learn classifier: what scikit-learn expects, and what it says of arrays."""

import pickle
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from vitlab.errors import ConfigError, DataError
from vitlab.run import Run
from vitlab.sklearn import ViTClassifier, as_images

TINY = {
    "model.width": 8,
    "model.depth": 1,
    "model.heads": 1,
    "optim.warmup_epochs": 0.0,
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
    "train.checkpoint_epochs": 100.0,
    "train.evaluate_epochs": 100.0,
}
"""One block of width 8, evaluated and saved at the end alone."""


def tiny(**more):
    return ViTClassifier(
        **{"epochs": 1, "overrides": TINY, "random_state": 0, "device": "cpu"} | more
    )


@pytest.fixture(scope="module")
def data():
    """Dark images are `night`, bright ones `day`: (60, 4, 4), uint8."""
    rng = np.random.default_rng(0)
    night = rng.random(60) < 0.5
    images = rng.integers(0, 100, (60, 4, 4)) + 150 * ~night[:, None, None]
    return images.astype(np.uint8), np.where(night, "night", "day")


@pytest.fixture(scope="module")
def fitted(data):
    return tiny(epochs=12, overrides={**TINY, "optim.lr": 0.01, "train.batch_size": 16}).fit(*data)


def test_it_learns_and_answers_with_the_labels_it_was_given(fitted, data):
    images, labels = data
    assert fitted.classes_.tolist() == ["day", "night"]
    assert fitted.score(images, labels) == 1
    proba = fitted.predict_proba(images)
    assert proba.shape == (60, 2) and np.allclose(proba.sum(axis=1), 1, atol=1e-9)
    assert (fitted.classes_[proba.argmax(axis=1)] == fitted.predict(images)).all()
    assert fitted.predict(images[:1]).shape == (1,)
    assert fitted.metrics_[-1]["split"] == "train_clean" and fitted.run_ is None


def test_floats_of_0_to_1_are_the_same_images_and_so_is_a_channel_of_one(fitted, data):
    images, _ = data
    whole = fitted.predict_proba(images)
    for same in (images / 255, images[..., None], images.astype(np.int64), images.tolist()):
        np.testing.assert_allclose(fitted.predict_proba(same), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((5, 64)), r"the shape \(5, 64\).*reshape"),
        (np.zeros((5, 4, 4, 2)), "1 or 3 channels"),
        (np.zeros((0, 4, 4)), "no images"),
        (np.full((2, 4, 4), 16.0), "from 16 to 16: floats from 0 to 1 are needed; divide"),
        (np.full((2, 4, 4), -1), "from -1 to -1: whole numbers from 0 to 255"),
        (np.full((2, 4, 4), np.nan), "NaN or infinity"),
        (np.full((2, 4, 4), "x"), "give whole numbers from 0 to 255"),
        (np.zeros((2, 4, 4), bool), "give whole numbers from 0 to 255"),
    ],
)
def test_what_is_not_clearly_images_is_refused(images, reason):
    with pytest.raises(DataError, match=reason):
        as_images(images)


def followed(message, X):
    """What the code that a refusal ends with makes of X."""
    code = re.search(r"\(*(?:np\.asarray\()?X\b.*$", message.rpartition(": ")[2]).group()
    code = (
        code.partition(", with")[0].replace("LOW", str(np.min(X))).replace("HIGH", str(np.max(X)))
    )
    return eval(code, {"X": X, "np": np})


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, None],
        lambda x: x.reshape(60, 16),
        lambda x: x.reshape(60, 16).tolist(),
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(float),
        lambda x: x / 127.5 - 1,
        lambda x: x.astype(int) - 128,
        lambda x: np.stack([x, x], axis=-1),
        lambda x: np.stack([x] * 4, axis=-1),
        lambda x: (x / 255).astype(object),
    ],
    ids=["first", "flat", "lists", "16 bits", "0 to 255", "-1 to 1", "signed", "two", "four", "O"],
)  # fmt: skip
def test_what_a_refusal_of_images_advises_gives_the_images_that_were_meant(data, change):
    images = data[0].copy()
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    with pytest.raises(DataError) as refusal:
        tiny().fit(change(images), data[1])
    found = as_images(followed(str(refusal.value), change(images)))
    assert (found == images[..., None]).all()


def test_rows_of_cifar_are_told_from_rows_of_pixels():
    colours = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    rows = colours.transpose(0, 3, 1, 2).reshape(5, 3072)
    with pytest.raises(DataError, match="as CIFAR's are: ") as refusal:
        as_images(rows)
    planes = re.search(r"CIFAR's are: (.*?)\. If", str(refusal.value)).group(1)
    assert (eval(planes, {"X": rows}) == colours).all()
    assert (followed(str(refusal.value), colours.reshape(5, 3072)) == colours).all()


def test_a_single_image_and_one_of_other_channels_are_refused_with_what_helps(fitted, data):
    with pytest.raises(DataError, match=r"\(6, 4, 1\), but ViTClassifier was fitted on"):
        fitted.predict(np.zeros((2, 6, 4), np.uint8))
    grey = data[0]
    colour = np.repeat(grey[..., None], 3, axis=3)
    to_grey = "(X @ [0.299, 0.587, 0.114])"
    to_colour = "X.repeat(3, axis=-1)"
    model = tiny().fit(colour, data[1])
    for asked, given, code in (
        (fitted, grey[0], "X[None]"),
        (fitted, colour, f"{to_grey}.round().astype(np.uint8)"),
        (fitted, colour / 255, to_grey),
        (model, colour[0], "X[None]"),
        (model, colour[0].transpose(2, 0, 1), "X.transpose(1, 2, 0)[None]"),
        (model, grey, "X[..., None].repeat(3, axis=-1)"),
        (model, grey[..., None], to_colour),
    ):
        with pytest.raises(DataError) as refusal:
            asked.predict(given)
        assert code in str(refusal.value)
        answer = asked.predict_proba(eval(code, {"X": given, "np": np}))
        meant = asked.predict_proba(grey if asked is fitted else colour)[: len(answer)]
        np.testing.assert_allclose(answer, meant, atol=1e-6)


def test_one_hot_labels_are_refused_with_what_helps(data):
    images, labels = data
    hot = (labels[:, None] == ["day", "night"]).astype(float)
    with pytest.raises(DataError, match=r"y\.argmax\(axis=1\)$"):
        tiny().fit(images, hot)
    assert tiny().fit(images, hot.argmax(axis=1)).classes_.tolist() == [0, 1]


# Weights of images


def test_an_image_of_weight_zero_is_as_if_it_were_not_there(data):
    images, labels = data
    weights = np.arange(60) % 3 * 1.0
    odd = np.where(weights == 0, "neither", labels)
    kept = weights > 0
    weighed = tiny(epochs=3).fit(images, odd, weights)
    without = tiny(epochs=3).fit(images[kept], labels[kept], weights[kept])
    assert weighed.classes_.tolist() == ["day", "night"]
    assert (weighed.predict_proba(images) == without.predict_proba(images)).all()


def test_equal_weights_are_as_none(data):
    plain = tiny(epochs=2).fit(*data).predict_proba(data[0])
    for equal in (7.5, [0.1] * 60):
        assert (tiny(epochs=2).fit(*data, equal).predict_proba(data[0]) == plain).all()


def test_of_contradicting_labels_those_that_weigh_more_are_learned():
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4), np.uint8)
    twice, labels = np.concatenate([images, images]), np.repeat(["this", "that"], 16)
    weights = np.where(labels == "this", 3, 1)
    fields = {**TINY, "optim.lr": 0.01, "train.batch_size": 32}
    model = tiny(epochs=80, overrides=fields).fit(twice, labels, weights)
    assert model.predict_proba(images)[:, 1].mean() == pytest.approx(0.75, abs=0.08)
    assert model.score(twice, labels) == 0.5 and model.score(twice, labels, weights) == 0.75


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (np.ones(59), r"the shape \(59,\): give each of 60 images one number"),
        (np.ones((60, 2)), r"the shape \(60, 2\)"),
        (-np.arange(60.0), r"\[-1.0, -2.0, .* at \[1, 2, .*0 leaves an image out"),
        (np.full(60, np.inf), "finite"),
        (np.full(60, np.nan), "finite"),
        (np.zeros(60), "zero everywhere"),
        (["heavy"] * 60, "no array of numbers"),
    ],
)
def test_what_cannot_be_weights_is_refused(data, weights, reason):
    with pytest.raises(DataError, match=reason):
        tiny().fit(*data, weights)


def test_a_search_and_a_pipeline_hand_weights_on(data):
    weights = np.where(data[1] == "day", 1.0, 0.0) + np.arange(60) % 2
    pipe = make_pipeline(FunctionTransformer(lambda x: x / 255), tiny())
    pipe.fit(*data, vitclassifier__sample_weight=weights)
    alone = tiny().fit(*data, weights)
    np.testing.assert_allclose(pipe.predict_proba(data[0]), alone.predict_proba(data[0]), atol=1e-6)
    once = ShuffleSplit(1, test_size=0.5, random_state=0)
    search = GridSearchCV(tiny(), {"epochs": [1]}, cv=once).fit(*data, sample_weight=weights)
    assert (search.predict_proba(data[0]) == alone.predict_proba(data[0])).all()


@pytest.mark.parametrize("kind", [lambda y: np.where(y, -3, 7), lambda y: y.astype(bool)])
def test_labels_may_be_of_any_type(data, kind):
    images, labels = data
    own = kind(labels == "night")
    model = tiny().fit(images[:20], own[:20])
    assert model.predict(images).dtype == own.dtype
    assert set(model.predict(images)) <= set(own)


def test_one_class_is_refused_and_so_are_unequal_lengths(data):
    images, _ = data
    with pytest.raises(DataError, match="one class, a:"):
        tiny().fit(images, ["a"] * 60)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        tiny().fit(images, ["a", "b"])


def test_the_constructor_stores_and_nothing_else(data):
    model = ViTClassifier("no such recipe", epochs=-5, overrides={"a": 1})
    assert model.get_params() == {
        "recipe": "no such recipe", "epochs": -5, "overrides": {"a": 1}, "random_state": None,
        "device": "auto", "folder": None, "minutes": 10.0,
    }  # fmt: skip
    assert vars(model) == model.get_params()
    with pytest.raises(ConfigError, match="no such recipe"):
        model.fit(*data)


def test_equal_random_states_give_equal_models(data):
    images, labels = data
    first, again, other = (
        tiny(random_state=seed).fit(images, labels).predict_proba(images) for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()


def test_a_fitted_classifier_survives_pickle_and_a_clone_has_learned_nothing(fitted, data):
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(data[0]) == fitted.predict_proba(data[0])).all()
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        copy.predict(np.zeros((1, 4, 4), np.uint8))


def test_a_run_is_kept_where_a_folder_is_given(data, tmp_path):
    model = tiny(folder=tmp_path)
    paths = [model.fit(*data).run_ for _ in range(2)]
    assert paths[0] != paths[1]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    run = Run(paths[0])
    assert run.finished and run.config.data.validation_fraction == 0
    assert run.provenance["data"]["class_names"] == ["day", "night"]


def test_it_works_in_a_pipeline_a_search_and_a_cross_validation(data):
    images, labels = data
    colours = np.repeat(images[..., None], 3, axis=3) / 1.0
    once = ShuffleSplit(1, test_size=0.5, random_state=0)
    pipe = make_pipeline(FunctionTransformer(lambda x: x / 255), tiny())
    assert cross_val_score(pipe, colours, labels, cv=once).shape == (1,)
    timid, bold = {**TINY, "optim.lr": 1e-9}, {**TINY, "optim.lr": 0.01, "train.batch_size": 16}
    grid = {"overrides": [timid, bold]}
    search = GridSearchCV(tiny(epochs=12), grid, scoring="neg_log_loss", cv=once)
    search.fit(images, labels)
    assert search.best_params_["overrides"] == bold
    assert (search.predict(images) == labels).all()


def test_scikit_learns_checks_of_an_estimator_of_images_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it can test little without tables
        results = check_estimator(tiny())
    assert [one["status"] for one in results] and {one["status"] for one in results} == {"passed"}


# What follows puts tables through scikit-learn's own checks, which know no images: a row becomes an
# image of one line of pixels.


class Rows(ViTClassifier):
    """Takes tables (N, F) and hands on images (N, 1, F), each column stretched to 0..1."""

    def fit(self, X, y, sample_weight=None):
        X, y = validate_data(self, X, y)
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)
        return super().fit(self.stretched(X), y, sample_weight)

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(self.stretched(validate_data(self, X, reset=False)))

    def stretched(self, X):
        span = np.where(self.high_ > self.low_, self.high_ - self.low_, 1)
        return np.clip((X - self.low_) / span, 0, 1)[:, None, :]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


NOT_ASKED = {
    "check_array_api_input": "asks for arrays of other libraries; images are numpy arrays, and "
    "scikit-learn skips it unless SCIPY_ARRAY_API is set",
}
"""Checks that scikit-learn skips, and why."""

CANNOT_APPLY = {
    "check_sample_weight_equivalence_on_dense_data": "an image of weight 2 comes as often as two "
    "of it, but in another order and in fewer steps, so the model is another one",
}
"""Checks that fail on tables as images, and why that is right."""


@pytest.mark.slow
def test_scikit_learns_checks_pass_on_tables_but_for_those_that_cannot_apply():
    fields = {**TINY, "model.patch_size": 1, "optim.lr": 0.01, "train.batch_size": 16}
    model = Rows(epochs=12, overrides=fields, random_state=0, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, expected_failed_checks=CANNOT_APPLY, on_skip=None)
    names = {
        status: {one["check_name"] for one in results if one["status"] == status}
        for status in ("passed", "xfail", "skipped")
    }
    assert names["xfail"] == set(CANNOT_APPLY)
    assert names["skipped"] <= set(NOT_ASKED)
    assert len(names["passed"]) > 40


def test_auto_is_the_best_way_that_fit_finds(tmp_path, monkeypatch):
    monkeypatch.setattr("vitlab.selection.search.at_hand", list)  # but for the models that ship
    rng = np.random.default_rng(0)
    images = rng.integers(60, 200, (30, 16, 16, 3), np.uint8)
    names = np.array(["red", "green", "blue"])[np.arange(30) % 3]
    for place in range(30):
        images[place, ..., place % 3] //= 3
    model = ViTClassifier("auto", minutes=0.01, random_state=0, device="cpu", folder=tmp_path)
    model.fit(images[:24], names[:24])
    assert (model.predict(images[24:]) == names[24:]).all()
    assert Run(model.run_).selection["chosen"] == "linear classifier on the shipped cpu"
    with pytest.raises(DataError, match="neither sample_weight nor epochs"):
        model.fit(images, names, sample_weight=rng.uniform(1, 2, 30))
