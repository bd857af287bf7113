/** The state of the page as the fragment of its address, so that a link shows what its sender saw. */

import { decodeBytes, encodeBytes } from "./bytes.ts";
import type { Page } from "./page.svelte.ts";
import { hasPositions } from "./stations.ts";

/** Larger drawings would make addresses that mail programs cut. */
const DRAWN = 3 * 64 * 64;

export function writeLink(page: Page): string {
  const fields = new URLSearchParams();
  const set = (name: string, value: string | number | null) => {
    if (value !== null && value !== "") fields.set(name, String(value));
  };
  const { patches, heads, blocks, channels, positions } = page.edits;
  const own = page.chosen >= page.payload.pictures.length;
  const pixels = page.drawn ?? (own ? page.original : null);
  set("station", page.stations[page.station].key);
  set("picture", own ? null : page.chosen);
  set("own", own ? "yes" : null);
  set("beside", page.other);
  set("query", page.query);
  set("class", page.label);
  set("shift", page.shift.some(Boolean) ? page.shift.join(",") : null);
  set("patches", patches.join(","));
  set("heads", heads.join(","));
  set("blocks", blocks.join(","));
  set("channels", channels.join(","));
  set("positions", positions ? "off" : null);
  set("pixels", pixels && pixels.length <= DRAWN ? encodeBytes(pixels) : null);
  return `#${fields}`;
}

/** Take up what the address says. What makes no sense in this page is as if it were not there. */
export function readLink(page: Page): void {
  const fields = new URLSearchParams(location.hash.slice(1));
  const listed = (name: string) => [...new Set(fields.get(name)?.split(","))];
  const numbers = (name: string, count: number) =>
    listed(name)
      .filter((one) => isIndex(one, count))
      .map(Number);
  const { grid, depth, heads } = page.model;
  const patches = grid ? grid.rows * grid.columns : 0;

  [page.chosen = 0] = numbers("picture", page.pictures.length);
  [page.other = null] = numbers("beside", page.pictures.length);
  [page.query = page.middle()] = numbers("query", (grid?.prefix.length ?? 0) + patches);
  [page.label = null] = numbers("class", page.payload.classes.length);
  const shift = (fields.get("shift") ?? "").split(",").map(Number);
  page.shift = shift.length === 2 && shift.every(Number.isInteger) ? [shift[0], shift[1]] : [0, 0];
  const stages = page.before.kind === "cnn" ? page.before.stages : [];
  page.edits = {
    patches: numbers("patches", patches),
    blocks: numbers("blocks", depth),
    heads: listed("heads").filter((one) => {
      const [block, head] = one.split(".");
      return isIndex(block, depth) && isIndex(head, heads);
    }),
    channels: listed("channels").filter((one) => {
      const [stage, channel] = one.split(".");
      return stages.some(({ name, channels }) => name === stage && isIndex(channel, channels));
    }),
    positions: hasPositions(page.payload) && fields.get("positions") === "off",
  };
  const pixels = readPixels(fields.get("pixels"), page.original.length);
  page.drawn = null;
  if (pixels && fields.has("own"))
    page.add({ title: "a picture of one's own", truth: null, pixels });
  else page.drawn = pixels;
  page.visit(fields.get("station") ?? "");
}

function isIndex(text: string, count: number): boolean {
  return /^(0|[1-9]\d*)$/.test(text) && Number(text) < count;
}

function readPixels(text: string | null, length: number): Uint8Array | null {
  try {
    const pixels = decodeBytes(text ?? "");
    return pixels.length === length ? pixels : null;
  } catch {
    return null; // an address that was cut or mistyped
  }
}
