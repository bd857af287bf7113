import { mount } from "svelte";

import App from "./App.svelte";
import { openModel } from "./engine/load.ts";
import { principal } from "./engine/principal.ts";
import { page } from "./page.svelte.ts";
import "./style.css";

declare global {
  interface Window {
    /** For tests, and for the curious at the console. */
    vitlab: { openModel: typeof openModel; principal: typeof principal; page: typeof page };
  }
}

window.vitlab = { openModel, principal, page };
document.title = `Inside ${page.payload.name}`;
const target = document.getElementById("app")!;
target.replaceChildren();
mount(App, { target });
