import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

// One file without a request: what cannot be inlined would be missing in a mail attachment.
export default defineConfig({
  plugins: [svelte(), viteSingleFile()],
  build: { outDir: "build/page", emptyOutDir: true, assetsInlineLimit: 1 << 20 },
});
