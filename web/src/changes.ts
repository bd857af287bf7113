/** What the reader has changed, in words, each with its way back. */

import { placeOf } from "./format.ts";
import type { Page } from "./page.svelte.ts";

export interface Change {
  text: string;
  undo: () => void;
}

/** More patches than this are named together. */
const FEW = 4;

export function changesOf(page: Page): Change[] {
  const { patches, heads, blocks, channels, positions } = page.edits;
  const found: Change[] = [];
  if (page.drawn) found.push({ text: "picture drawn on", undo: () => (page.drawn = null) });
  const [right, down] = page.shift;
  if (right || down)
    found.push({ text: `moved by ${right}, ${down} pixels`, undo: () => (page.shift = [0, 0]) });
  if (patches.length > FEW)
    found.push({
      text: `${patches.length} patches out`,
      undo: () => (page.edits = { ...page.edits, patches: [] }),
    });
  else
    for (const patch of patches)
      found.push({
        text: `patch ${placeOf(patch, page.model.grid!.columns)} out`,
        undo: () => page.toggle("patches", patch),
      });
  for (const name of heads) {
    const [block, head] = name.split(".").map(Number);
    found.push({
      text: `head ${head + 1} of block ${block + 1} out`,
      undo: () => page.toggle("heads", name),
    });
  }
  for (const block of blocks)
    found.push({ text: `block ${block + 1} out`, undo: () => page.toggle("blocks", block) });
  for (const name of channels) {
    const [stage, channel] = name.split(".");
    found.push({
      text: `channel ${Number(channel) + 1} of ${stage} out`,
      undo: () => page.toggle("channels", name),
    });
  }
  if (positions) found.push({ text: "positions out", undo: () => page.togglePositions() });
  return found;
}
