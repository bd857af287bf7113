import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

/** What the page is built from, besides all files of `src` and `kernels`. */
const SOURCES = ["index.html", "package-lock.json", "package.json", "vite.config.ts"];

/** SHA-256 over the path and the content of every source, in the order of their paths. */
function hashSources(): string {
  const web = import.meta.dirname;
  const found = ["src", "kernels"].flatMap((folder) =>
    readdirSync(join(web, folder), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(web, join(entry.parentPath, entry.name))),
  );
  const hash = createHash("sha256");
  for (const path of [...SOURCES, ...found].sort()) {
    hash.update(`${path}\0`).update(readFileSync(join(web, path)));
  }
  return hash.digest("hex");
}

/** Writes that hash into the page, by which a test knows whether it was built from these files. */
const stamp: Plugin = {
  name: "stamp",
  transformIndexHtml: () => [
    { tag: "meta", attrs: { name: "vitlab-sources", content: hashSources() }, injectTo: "head" },
  ],
};

// One file without a request: what cannot be inlined would be missing in a mail attachment.
export default defineConfig({
  plugins: [svelte(), viteSingleFile(), stamp],
  build: { outDir: "build/page", emptyOutDir: true, assetsInlineLimit: 1 << 20 },
});
