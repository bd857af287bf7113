"""A model becomes a file that other programs run: ONNX, in fp32 or in int8.

What goes in are normalised images (B, C, height, width), what comes out are logits (B, K); the
batch size stays free. How images are normalised is written into the file's metadata.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.errors import VitlabError
from vitlab.files import write_bytes
from vitlab.predict import evaluating

OPSET = 20
CALIBRATION_BATCH = 32


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
    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own internals
        program = torch.onnx.export(
            model,
            (images[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
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

    quantize_static(
        source,
        path,
        Images(),
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
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
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Normalised images (B, C, height, width) float32 to logits (B, K) float32."""
        return self._session.run(None, {"images": images})[0]


def needed(package: str):
    """Import a package of the extra `export`."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise VitlabError(f"{package} is not installed: pip install 'vitlab[export]'") from error
