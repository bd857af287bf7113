/** The formula of each part by field and value, as HTML. Numbers are those of one image. */

import type { Station } from "./stations.ts";
import type { ModelConfig, Payload } from "./types.ts";

const PATCH: Record<string, string> = {
  linear: "<i>x</i><sub>i</sub> = <b>E</b> · pixels(<i>i</i>) + <i>b</i>",
  overlap:
    "<i>x</i><sub>i</sub> = <b>E</b> · pixels(<i>i</i> and half of its neighbours) + <i>b</i>",
  conv: "<i>x</i> = conv<sub>3×3</sub>(… GELU(BN(conv<sub>3×3</sub>(pixels))))",
  cct: "<i>x</i> = maxpool(ReLU(conv<sub>3×3</sub>(… maxpool(ReLU(conv<sub>3×3</sub>(pixels))))))",
  spt: "<i>x</i><sub>i</sub> = <b>E</b> · norm(pixels(<i>i</i>) of the image and of four shifted copies) + <i>b</i>",
  whitened:
    "<i>x</i> = conv<sub>3×3</sub>(… GELU(BN(conv<sub>3×3</sub>(GELU(±<b>W</b> · squares of 2×2))))), <b>W</b> Cov(squares) <b>W</b><sup>T</sup> = 1",
};

const POSITION: Record<string, string> = {
  none: "<i>z</i><sub>i</sub> = <i>x</i><sub>i</sub>",
  learned: "<i>z</i><sub>i</sub> = <i>x</i><sub>i</sub> + <i>p</i><sub>i</sub>, <i>p</i> learned",
  sin1d:
    "<i>z</i><sub>i</sub> = <i>x</i><sub>i</sub> + <i>p</i><sub>i</sub>, <i>p</i><sub>i,2k</sub> = sin(<i>i</i> / 10000<sup>2k/D</sup>), <i>p</i><sub>i,2k+1</sub> = cos(<i>i</i> / 10000<sup>2k/D</sup>)",
  sin2d:
    "<i>z</i><sub>i</sub> = <i>x</i><sub>i</sub> + [sinusoids(row), sinusoids(column)], as in 1-D on half of the channels each",
  rope: "<i>q</i><sub>i</sub> ← R(<i>i</i>) <i>q</i><sub>i</sub>, <i>k</i><sub>j</sub> ← R(<i>j</i>) <i>k</i><sub>j</sub>: their product depends on <i>i</i> − <i>j</i> only",
};

const FFN: Record<string, string> = {
  gelu: "FFN(<i>z</i>) = <b>W</b><sub>2</sub> GELU(<b>W</b><sub>1</sub> <i>z</i>)",
  swiglu:
    "FFN(<i>z</i>) = <b>W</b><sub>2</sub> (SiLU(<b>W</b><sub>g</sub> <i>z</i>) ⊙ <b>W</b><sub>1</sub> <i>z</i>)",
  dwconv:
    "FFN(<i>z</i>) = <b>W</b><sub>2</sub> GELU(dwconv<sub>3×3</sub>(<b>W</b><sub>1</sub> <i>z</i>))",
};

const POOL: Record<string, string> = {
  cls: "<i>v</i> = <i>z</i><sub>CLS</sub>",
  mean: "<i>v</i> = (1/N) Σ<sub>i</sub> <i>z</i><sub>i</sub>",
  "cls+mean": "<i>v</i> = [<i>z</i><sub>CLS</sub>, (1/N) Σ<sub>i</sub> <i>z</i><sub>i</sub>]",
  seqpool:
    "<i>v</i> = Σ<sub>i</sub> <i>w</i><sub>i</sub> <i>z</i><sub>i</sub>, <i>w</i> = softmax(<i>z</i> · <i>s</i>)",
};

const RESIDUAL: Record<string, string> = {
  pre: "<i>z</i> ← <i>z</i> + Attention(norm(<i>z</i>)), <i>z</i> ← <i>z</i> + FFN(norm(<i>z</i>))",
  post: "<i>z</i> ← norm(<i>z</i> + Attention(<i>z</i>)), <i>z</i> ← norm(<i>z</i> + FFN(<i>z</i>))",
};

const STAGE: Record<string, string> = {
  stem: "<i>y</i> = ReLU(BN(conv(<i>x</i>)))",
  resnet18: "<i>y</i> = ReLU(<i>x</i> + BN(conv(ReLU(BN(conv(<i>x</i>))))))",
  cnn6: "<i>y</i> = BN(maxpool(ReLU(conv(ReLU(conv(<i>x</i>))))))",
  hybrid:
    "<i>y</i> = <i>x</i> + <b>W</b><sub>2</sub> GELU(<b>W</b><sub>1</sub> norm(dwconv<sub>7×7</sub>(<i>x</i>)))",
};

const HEAD: Record<string, string> = {
  resnet18: "<i>v</i> = the mean of each map",
  cnn6: "<i>v</i> = ReLU(<b>W</b><sub>2</sub> ReLU(<b>W</b><sub>1</sub> [all numbers of the maps]))",
};

/** Attention with what `qk_norm` and `lsa` change in it. */
function attention({ qk_norm, lsa }: ModelConfig): string {
  const [q, k] = qk_norm ? ["norm(<b>Q</b>)", "norm(<b>K</b>)"] : ["<b>Q</b>", "<b>K</b>"];
  const scale = lsa ? "τ, own key left out" : "√d";
  return `<b>A</b> = softmax(${q} ${k}<sup>T</sup> / ${scale}), Attention(<i>z</i>) = [<b>A</b><sub>1</sub><b>V</b><sub>1</sub>, …, <b>A</b><sub>H</sub><b>V</b><sub>H</sub>] <b>W</b><sub>O</sub>`;
}

/** The formulas of a station. */
export function formulasOf({ kind, key }: Station, { model, task }: Payload): string[] {
  const logits = "logits = <b>W</b> <i>v</i> + <i>b</i>";
  const probabilities =
    task === "multilabel"
      ? "P(<i>k</i>) = 1 / (1 + exp(−logit<sub>k</sub> / t))"
      : "P(<i>k</i>) = exp(logit<sub>k</sub> / t) / Σ exp(logit<sub>j</sub> / t)";
  return {
    pixels: ["<i>x</i> = (pixel / 255 − mean) / standard deviation"],
    stage: [STAGE[key] ?? STAGE[model.kind]],
    patches: [PATCH[String(model.patch)]],
    tokens: [POSITION[String(model.position)]],
    block: [RESIDUAL[String(model.norm_place)], attention(model), FFN[String(model.ffn)]],
    pooling: [POOL[String(model.pool)] ?? HEAD[model.kind]],
    answer: [logits, probabilities],
  }[kind];
}
