/** The state of the page as the fragment of its address, so that a link shows what its sender saw. */

import { encodeBytes, decodeBytes } from "./bytes.ts";
import type { Page } from "./page.svelte.ts";

/** Larger drawings would make addresses that mail programs cut. */
const DRAWN = 3 * 64 * 64;

export function writeLink(page: Page): string {
  const fields = new URLSearchParams();
  const set = (name: string, value: string | number | null) => {
    if (value !== null && value !== "" && value !== 0) fields.set(name, String(value));
  };
  const { patches, heads, blocks, channels, positions } = page.edits;
  set("picture", page.chosen < page.payload.pictures.length ? page.chosen : null);
  set("beside", page.other === null ? null : page.other + 1);
  set("station", page.stations[page.station].key);
  set("query", page.query);
  set("class", page.label === null ? null : page.label + 1);
  set("shift", page.shift.some(Boolean) ? page.shift.join(",") : null);
  set("patches", patches.join(","));
  set("heads", heads.join(","));
  set("blocks", blocks.join(","));
  set("channels", channels.join(","));
  set("positions", positions ? "off" : null);
  const opened = page.chosen >= page.payload.pictures.length;
  const pixels = page.drawn ?? (opened ? page.original : null);
  if (pixels && pixels.length <= DRAWN) set("pixels", encodeBytes(pixels));
  return `#${fields}`;
}

/** Take up what the address says; what makes no sense in this page is left as it is. */
export function readLink(page: Page): void {
  const fields = new URLSearchParams(location.hash.slice(1));
  const numbers = (name: string, below: number) =>
    (fields.get(name)?.split(",") ?? [])
      .map(Number)
      .filter((one) => Number.isInteger(one) && one >= 0 && one < below);
  const { grid, depth, heads, stages } = page.model;
  const patches = grid ? grid.rows * grid.columns : 0;
  const [chosen = page.chosen] = numbers("picture", page.pictures.length);
  page.chosen = chosen;
  const [beside] = numbers("beside", page.pictures.length + 1);
  if (beside) page.other = beside - 1;
  const [query = page.query] = numbers("query", (grid?.prefix.length ?? 0) + patches);
  page.query = query;
  const [label] = numbers("class", page.payload.classes.length + 1);
  if (label) page.label = label - 1;
  const shift = fields.get("shift")?.split(",").map(Number) ?? [];
  if (shift.length === 2 && shift.every(Number.isInteger)) page.shift = [shift[0], shift[1]];
  const listed = (name: string) => fields.get(name)?.split(",") ?? [];
  page.edits = {
    patches: numbers("patches", patches),
    blocks: numbers("blocks", depth),
    heads: listed("heads").filter((one) => {
      const [block, head] = one.split(".").map(Number);
      return block < depth && head < heads;
    }),
    channels: listed("channels").filter((one) =>
      stages.some((stage) => one.startsWith(`${stage.name}.`)),
    ),
    positions: fields.get("positions") === "off",
  };
  const drawn = decodeBytes(fields.get("pixels") ?? "");
  if (drawn.length === page.original.length) page.drawn = drawn;
  page.visit(fields.get("station") ?? "");
}
