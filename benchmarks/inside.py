"""The pages of the models that ship, their pictures, and how fast and how exact they are.

VITLAB_DATA=FOLDER python benchmarks/inside.py

Writes docs/inside/NAME.html with ten validation images of CIFAR-10, docs/images/inside*.png and
docs/results/inside.json. Needs Chromium and playwright, and nothing else running beside it: times
are medians of REPEATS, an answer's from the change of the image until it is drawn.
"""

import base64
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Browser, Page, sync_playwright

import vitlab
from vitlab.explain import open_sample
from vitlab.files import write_json
from vitlab.pretrained import names
from vitlab.training.provenance import device_name

PAGES, RECORD, IMAGES = Path("docs/inside"), Path("docs/results/inside.json"), Path("docs/images")
COUNT = 100
"""Validation images on which the browser is compared with torch."""
REPEATS = 15

ANSWERED = """async (repeats) => {
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    vitlab.page.draw(i, i, 1, [255, 0, 0]);
    await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
    times.push(performance.now() - start);
  }
  return times;
}"""

MAPPED = """(repeats) => Array.from({ length: repeats }, () => {
  const { page } = vitlab;
  const start = performance.now();
  page.model.explain(page.pixels, page.edits, page.explained);
  return performance.now() - start;
})"""

TIMED = {"answer_ms": ANSWERED, "maps_ms": MAPPED}

COMPUTED = """(texts) => texts.map((text) => {
  const pixels = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const { model, edits } = vitlab.page;
  const trace = model.run(pixels, edits);
  const heads = (trace.blocks ?? []).flatMap((block) => block.attention);
  return [Array.from(trace.logits), heads.map((head) => Array.from(head.values))];
})"""

SHOTS = {
    "inside": ("cpu-plain#station=block5&picture=9", "light", 1280, 900),
    "inside-dark": ("cpu-cnn#station=stage3&picture=4", "dark", 1280, 900),
    "inside-phone": ("cpu#station=block3&picture=2", "light", 390, 1800),
}
"""What is photographed: page and state, colours, width and height."""


def measure(browser: Browser, name: str) -> dict[str, Any]:
    """Write a model's page, and measure it."""
    path = vitlab.inside(name, out=PAGES / f"{name}.html", quiet=True)
    page = browser.new_page()
    start = time.perf_counter()
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("main")
    opened = time.perf_counter() - start
    times = {key: page.evaluate(code, REPEATS) for key, code in TIMED.items()}
    return {
        "model": name,
        "bytes": path.stat().st_size,
        "open_seconds": opened,
        **{key: float(np.median(values)) for key, values in times.items()},
        **compare(page, name),
    }


def compare(page: Page, name: str) -> dict[str, Any]:
    """Largest differences between what a fresh page and torch compute of the same images."""
    page.reload()
    page.wait_for_selector("main")
    model = vitlab.load(name, device="cpu")
    sample = open_sample(model.run, "validation")
    images = sample.examples.images[np.sort(sample.places[:COUNT])]
    texts = [base64.b64encode(image.tobytes()).decode() for image in images]
    found = page.evaluate(COMPUTED, texts)
    layers, logits = model.trace(images)
    differences = {"logits": np.abs(np.array([one for one, _ in found]) - logits.numpy()).max()}
    attention = [layer for key, layer in layers.items() if key.endswith(".attention")]
    if attention:
        ours = torch.cat(attention, dim=1).flatten(2).numpy()
        differences["attention"] = np.abs(np.array([heads for _, heads in found]) - ours).max()
    return {"images": len(images), "difference": {k: float(v) for k, v in differences.items()}}


def photograph(browser: Browser) -> None:
    """Draw the pictures of the docs."""
    for name, (state, scheme, width, height) in SHOTS.items():
        file, fragment = state.split("#")
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # pyright: ignore[reportArgumentType]
        )
        page.goto(f"{(PAGES / file).with_suffix('.html').resolve().as_uri()}#{fragment}")
        page.wait_for_selector("#maps ~ .cells canvas", state="attached")
        page.screenshot(path=IMAGES / f"{name}.png")


def main() -> None:
    """Do all of it."""
    PAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, found)), args=["--no-sandbox"]
        )
        record = {
            "command": "python benchmarks/inside.py",
            "device": device_name(torch.device("cpu")),
            "browser": f"Chromium {browser.version}",
            "repeats": REPEATS,
            "models": [measure(browser, name) for name in names()],
        }
        photograph(browser)
    write_json(RECORD, record)


if __name__ == "__main__":
    main()
