/** The stations on an image's way through a model. */

import type { Model, Payload } from "./types.ts";

export interface Station {
  /** Its name in links. */
  key: string;
  kind: "pixels" | "patches" | "stage" | "tokens" | "block" | "pooling" | "answer";
  /** Its name for readers. */
  title: string;
  /** Which block, or which stage of a CNN, counted from 0. */
  index: number;
}

/** Whether a model is told where its patches lie. */
export function hasPositions({ model }: Payload): boolean {
  return model.position !== undefined && model.position !== "none";
}

/** Whether something besides positions tells it: convolutions see what is beside what. */
export function hasConvolutions({ model }: Payload): boolean {
  return (
    model.kind === "hybrid" ||
    model.ffn === "dwconv" ||
    !["linear", "spt"].includes(String(model.patch))
  );
}

/** Whether a token is made of the pixels of its own patch alone. */
export function cutsSquares({ model }: Payload): boolean {
  return model.kind === "vit" && model.patch === "linear";
}

export function stationsOf(payload: Payload, model: Model): Station[] {
  const one = (kind: Station["kind"], title: string, index = 0, key: string = kind): Station => ({
    key,
    kind,
    title,
    index,
  });
  const pooling = one("pooling", "Pooling");
  const answer = one("answer", "Answer");
  if (model.kind === "cnn") {
    const stages = model.stages.map((stage, i) =>
      one("stage", stage.name.replace("stage", "Stage ").replace("stem", "Stem"), i, stage.name),
    );
    return [one("pixels", "Pixels"), ...stages, pooling, answer];
  }
  const blocks = Array.from({ length: model.depth }, (_, i) =>
    one("block", `Block ${i + 1}`, i, `block${i + 1}`),
  );
  const stage = payload.model.kind === "hybrid" ? [one("stage", "Stage")] : [];
  return [
    one("pixels", "Pixels"),
    ...stage,
    one("patches", "Patches"),
    one("tokens", "Tokens"),
    ...blocks,
    pooling,
    answer,
  ];
}
