import type { Station } from "../stations.ts";
import type { Trace } from "../types.ts";

/** What every station's panel is given: what is shown of which picture. */
export interface StationProps {
  station: Station;
  trace: Trace;
  pixels: Uint8Array;
}
