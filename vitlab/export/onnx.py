"""ONNX files: written in fp32, quantised to int8, opened in ONNX Runtime.

What goes in are normalised images (B, C, height, width), what comes out are logits (B, K) and what
the last layer reads, features (B, D); the batch size stays free. What belongs to the file besides
is text in its metadata.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.errors import RunError, VitlabError
from vitlab.files import write_bytes
from vitlab.inference import evaluating, inputs_of, last_layer

# ONNX Runtime 1.29 and newer report every session to Microsoft unless this is set before they load.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

OPSET = 20
CALIBRATION_BATCH = 32


class WithFeatures(nn.Module):
    """Maps images (B, C, height, width) to a model's logits (B, K) and features (B, D)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images to logits and features."""
        with inputs_of(last_layer(self.model)) as features:
            logits = self.model(images)
        return logits, features[-1]


def to_onnx(
    model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model as ONNX.

    Args:
        model: maps images (B, C, height, width) to logits (B, K).
        images: an example, at least two images, on the model's device.
        path: of the file.
        metadata: names and texts to store in it.
    """
    onnx = needed("onnx")
    needed("onnxscript")
    with evaluating(model), warnings.catch_warnings(), silent("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporter speaks of its own internals
        program = torch.onnx.export(
            WithFeatures(model),
            (images[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits", "features"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # Shapes inside the graph were written down for the example; tools infer them anew.
    del proto.graph.value_info[:]
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    write_bytes(path, proto.SerializeToString())


def to_int8(source: Path, path: Path, images: np.ndarray) -> None:
    """Quantise an ONNX file: weights per channel, activations by the range that images give them.

    Args:
        source: an fp32 file of `to_onnx`.
        path: of the int8 file.
        images: normalised training images (N, C, height, width) float32 to calibrate on.
    """
    needed("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            parts = range(0, len(images), CALIBRATION_BATCH)
            self.batches = iter([images[start : start + CALIBRATION_BATCH] for start in parts])

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    with silent():  # of advice that changes nothing here
        quantize_static(
            source,
            path,
            Images(),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            # A CPU without VNNI sums products of bytes in 16 bits: with 7 bits a weight they fit.
            reduce_range=True,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        )


class Session:
    """An ONNX file opened in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: CPU threads; 0 lets the runtime choose.
    """

    def __init__(self, path: Path, threads: int = 0):
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime has a class of its own for every complaint
            reason = " ".join(str(error).split())
            raise RunError(f"{path} cannot be opened in ONNX Runtime: {reason}") from error

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Normalised images (B, C, height, width) float32 to logits (B, K) float32."""
        return self.outputs(images)[0]

    def outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Logits and, of a file that was written with them, features (B, D) float32."""
        return self._session.run(None, {"images": images})

    @property
    def metadata(self) -> dict[str, str]:
        """The texts that were stored with the file, by name."""
        return self._session.get_modelmeta().custom_metadata_map


@contextmanager
def silent(name: str | None = None) -> Iterator[None]:
    """Let a logger, or the root of all, pass on errors alone for a while."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def needed(package: str, extra: str = "export") -> Any:
    """Import a package of one of our extras; VitlabError says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise VitlabError(f"{package} is not installed: pip install 'vitlab[{extra}]'") from error
