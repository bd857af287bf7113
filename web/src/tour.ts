/** Ten steps through a model for a lecture. Numbers in the texts are those of the moment. */

import { percent } from "./format.ts";
import { hasConvolutions } from "./stations.ts";
import { strongestChannels } from "./tensors.ts";
import { argmax, type Page } from "./page.svelte.ts";

export interface Step {
  title: string;
  text: (page: Page) => string;
  /** Brings the page, with nothing changed in it, to what the step shows. */
  go: (page: Page) => void;
  /** What comes into view, by its id; the way, if nothing is said. */
  shows?: "maps";
}

export function tourOf(kind: "vit" | "cnn"): Step[] {
  return kind === "vit" ? VIT : CNN;
}

/** The likeliest class and its probability. */
function answer(page: Page): string {
  const name = page.payload.classes[page.likeliest];
  return `${name}, ${percent(page.trace.probabilities[page.likeliest])}`;
}

function changed(page: Page): string {
  const was = argmax(page.before.logits);
  const name = page.payload.classes[was];
  const [before, after] = [page.before, page.trace].map((one) => percent(one.probabilities[was]));
  if (was === page.likeliest) return `The answer is still ${name}: ${before} before, ${after} now.`;
  return `The answer is now ${answer(page)}; ${name} went from ${before} to ${after}.`;
}

/** The patch that the answer rests on most, by gradient rollout. */
function strongest(page: Page): number {
  const heat = page.model.explain(page.pixels, page.edits, page.explained)["gradient-rollout"]!;
  const { rows, columns } = page.model.grid!;
  let [best, most] = [0, -Infinity];
  for (let i = 0; i < rows * columns; i++) {
    const row = Math.floor((Math.floor(i / columns) * heat.rows) / rows);
    const column = Math.floor(((i % columns) * heat.columns) / columns);
    const value = heat.values[row * heat.columns + column];
    if (value > most) [best, most] = [i, value];
  }
  return best;
}

const VIT: Step[] = [
  {
    title: "An image is numbers",
    go: (page) => page.visit("pixels"),
    text: (page) => {
      const { height, width, channels } = page.payload.image;
      return (
        `${height * width * channels} of them: ${height} rows, ${width} columns, ` +
        `${channels} channel${channels > 1 ? "s" : ""}. The model says ${answer(page)}. Let us see how.`
      );
    },
  },
  {
    title: "Cut into patches",
    go: (page) => page.visit("patches"),
    text: (page) => {
      const { rows, columns, patch } = page.model.grid!;
      return (
        `${rows} × ${columns} patches of ${patch} × ${patch} pixels. Each becomes a token: a list of ` +
        "numbers that the model can compare with others. Move over the patches."
      );
    },
  },
  {
    title: "Where each patch lies",
    go: (page) => page.visit("tokens"),
    text: ({ payload }) => {
      const { position } = payload.model;
      if (position === "rope")
        return "Attention alone does not know what is beside what. Here every block rotates queries and keys by the place of their patch, so that their product depends on the distance.";
      if (position !== "none")
        return "Attention alone does not know what is beside what, so every token is given its position. Choose a patch, and see which positions are alike.";
      return hasConvolutions(payload)
        ? "This model is not told where a patch lies: its convolutions see what is beside what. In others, a position is added to every token."
        : "This model is not told where a patch lies: shuffle the patches, and it says the same. In others, a position is added to every token.";
    },
  },
  {
    title: "Tokens look at each other",
    go: (page) => page.visit("block1"),
    text: () =>
      "Every head of the first block asks its own question. Rest on a patch of the picture: bright is where it looks. Are heads alike? Do they look near, or far?",
  },
  {
    title: "Deeper, tokens know more",
    go: (page) => page.visit(`block${page.model.depth}`),
    text: () =>
      "The last block. Within its square, does what belongs to the object have one colour? And in the squares before it?",
  },
  {
    title: "The answer grows from block to block",
    go: (page) => page.visit("answer"),
    text: (page) =>
      `Read out early, the head may be far off, as it never learned to read there. At the end it says ${answer(page)}.`,
  },
  {
    title: "Without a block",
    go: (page) => {
      page.visit("answer");
      page.toggle("blocks", page.model.depth - 1);
    },
    text: (page) => `The last block is out: tokens pass it by. ${changed(page)}`,
  },
  {
    title: "Without one patch",
    go: (page) => {
      page.visit("pooling");
      page.toggle("patches", strongest(page));
    },
    text: (page) =>
      `The patch that gradient rollout calls most important is out of the model. ${changed(page)} Take more patches out with the tool beside the picture.`,
  },
  {
    title: "Are the maps true?",
    shows: "maps",
    go: (page) => page.visit("answer"),
    text: (page) =>
      page.payload.tested
        ? "Maps of what the answer rests on, and the verdict of a test on each. A beautiful map can be no better than chance."
        : "Maps of what the answer rests on. None was tested for this run yet, so believe none.",
  },
  {
    title: "Your turn",
    go: (page) => {
      page.visit("answer");
      page.tool = "draw";
      page.move(4, 0);
    },
    text: (page) =>
      `The picture is moved by four pixels. ${changed(page)} Draw on it, cover parts, open a picture of your own, set another beside it, and send the link of what you found.`,
  },
];

const CNN: Step[] = [
  VIT[0],
  {
    title: "The first maps",
    go: (page) => page.visit(page.stations[1].key),
    text: () =>
      "Small filters slide over the image, and each makes a map: bright where the image has what the filter looks for. Edges and colours come first.",
  },
  {
    title: "Half way",
    go: (page) => page.visit(page.stations[Math.ceil(page.model.stages.length / 2)].key),
    text: () =>
      "Maps grow coarser and more numerous. A place now sees a larger part of the image, and says more about it.",
  },
  {
    title: "The last maps",
    go: (page) => page.visit(page.stations[page.model.stages.length].key),
    text: () =>
      "Few places are left, each with many numbers. What is where matters less than what is there at all.",
  },
  {
    title: "Pooling",
    go: (page) => page.visit("pooling"),
    text: (page) =>
      `What remains of the image for the last layer: ${page.trace.pooled.length} numbers.`,
  },
  {
    title: "The answer",
    go: (page) => page.visit("answer"),
    text: (page) => `One logit a class, from which probabilities are made: ${answer(page)}.`,
  },
  {
    title: "Without a channel",
    go: (page) => {
      const last = page.before.kind === "cnn" ? page.before.stages.at(-1)! : null;
      page.visit(page.stations[page.model.stages.length].key);
      if (last) page.toggle("channels", `${last.name}.${strongestChannels(last)[0]}`);
    },
    text: (page) => `The strongest channel of the last maps is out. ${changed(page)} Press others.`,
  },
  {
    title: "Covered",
    go: (page) => {
      const { height, width } = page.payload.image;
      page.visit("answer");
      page.tool = "cover";
      page.cover(Math.floor(height / 4), Math.floor(width / 4), Math.floor(width / 2));
    },
    text: (page) => `The middle of the picture is covered with the mean colour. ${changed(page)}`,
  },
  {
    title: "Is the map true?",
    shows: "maps",
    go: (page) => page.visit("answer"),
    text: (page) =>
      page.payload.tested
        ? "Grad-CAM shows what the answer rests on, beside the verdict of a test."
        : "Grad-CAM shows what the answer should rest on. It was not tested for this run yet.",
  },
  VIT[9],
];
