// One picture at a time: shown, asked about, explained. Names of classes and models are written as
// text, so that none of them can be anything else.

const at = (id) => document.getElementById(id);
const file = at("file"), picture = at("picture"), image = at("image"), overlay = at("overlay");
const strength = at("strength");

// Dark to bright, in this order also without colours: inferno, at ten places.
const RAMP = [
  [0, 0, 4], [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96],
  [207, 68, 70], [237, 105, 37], [251, 155, 6], [247, 209, 61], [252, 255, 164],
];

let model = null;
let current = null; // the picture that is shown: {blob, stop}
let mapping = null; // stops the map that is being made

function element(kind, name, ...inside) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

const between = {
  413: "this picture is too large for the proxy in front of the service",
  502: "the proxy in front does not reach the service: is it still running",
  504: "the service took too long for the proxy in front of it",
};

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(address, options = {}) {
  // Wherever a proxy has put the service, this file lies beside what it asks for.
  const here = new URL(address, import.meta.url);
  for (let again = 0; ; again++) {
    const reply = await fetch(here, options);
    // A full service says when to come back.
    if ((reply.status === 429 || reply.status === 503) && again < 5) {
      await pause(Number(reply.headers.get("retry-after")) || 1);
      if (options.signal?.aborted) throw new DOMException("", "AbortError");
      continue;
    }
    const body = await reply.json().catch(() => null);
    if (reply.ok && body) return body;
    // A proxy in front answers in HTML.
    throw new Error(body?.error ?? between[reply.status] ?? `a proxy in front of the service answered ${reply.status}`);
  }
}

const post = (address, blob, signal) =>
  ask(address, { method: "POST", body: blob, headers: { "content-type": blob.type }, signal });

function problem(words) {
  at("problem").textContent = words;
}

function friendly(error) {
  if (error instanceof TypeError) return "The service does not answer. Is it still running?";
  const words = error.message || "Something went wrong.";
  return words[0].toUpperCase() + words.slice(1) + ".";
}

// The model

async function meet() {
  while (!(model = await ask("api/model").catch(() => null))) await pause(1);
  const count = model.classes.length, [height, width] = model.image_size;
  at("which").textContent = model.name;
  document.title = `${model.name}: vitlab`;
  const kind = { vit: "A Vision Transformer", hybrid: "A hybrid of CNN and Vision Transformer" };
  const maps = model.explains ? ", and maps are drawn of where it looks" : "";
  at("lead").textContent = `${kind[model.card.model] ?? "A network"} answers${maps}.`;
  const some = model.classes.slice(0, 12).join(", ") + (count > 12 ? ", …" : "");
  at("knows").textContent =
    (model.card.task === "multilabel"
      ? `It knows ${count} labels: ${some}. It gives a picture every one that reaches its threshold, be it none or several, `
      : `It knows ${count} classes: ${some}. It names one of them whatever it is shown, `) +
    `and sees a picture as ${width} × ${height} pixels.`;
  const megabytes = model.limits.bytes / 1e6;
  at("accepts").textContent = `PNG, JPEG or WebP, up to ${megabytes} MB`;
  file.disabled = false;
  facts(model.card);
  at("notes").textContent = model.notes.map((words) => words.replaceAll("`", "")).join(" ");
  at("unmapped").hidden = model.explains;
  while (model.explains && !model.methods.length) {
    await pause(1);
    model = (await ask("api/model").catch(() => null)) ?? model;
  }
  methods();
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const whole = (number) => number.toLocaleString("en");

function facts(card) {
  const rows = [];
  const [score, called] = card.task === "multilabel" ? ["mean_average_precision", "mean average precision"] : ["accuracy", "accuracy"];
  for (const [split, words] of [["test", `Test ${called}`], ["validation", `Validation ${called}`]]) {
    if (card[`${split}_${score}`] == null) continue;
    const interval = card[`${split}_${score}_interval`], images = card[`${split}_images`];
    const seen = split === "validation" && card.validation_seen;
    const more = [
      interval && `95 % interval ${percent(interval[0])} to ${percent(interval[1])}`,
      images && `${whole(images)} images`,
      seen && `${whole(seen)} of them trained on before`,
      split === "validation" && card.cross_validated && `held out in turn in ${card.cross_validated} folds`,
    ].filter(Boolean).join(", ");
    rows.push([words, percent(card[`${split}_${score}`], 2), more]);
  }
  const f1 = card.test_micro_f1 ?? card.validation_micro_f1;
  if (f1 != null) rows.push(["F1 over all labels", percent(f1, 2), card.test_micro_f1 == null ? "at thresholds tuned on these images" : "at thresholds tuned on validation images"]);
  const top = card.test_top3_accuracy ?? card.validation_top3_accuracy;
  if (top != null && card.classes > 3) rows.push(["Right class among three", percent(top, 2)]);
  const error = card.scaled_calibration_error ?? card.calibration_error;
  const scaled = card.scaled_calibration_error != null ? ", after temperature scaling on them" : "";
  if (error != null) rows.push(["Calibration error", percent(error), `of ${whole(card.validation_images)} validation images${scaled}`]);
  if (card.parameters != null) rows.push(["Parameters", whole(card.parameters)]);
  if (card.multiply_adds != null) rows.push(["Multiply-adds per image", card.multiply_adds < 1e5 ? whole(card.multiply_adds) : `${(card.multiply_adds / 1e6).toFixed(1)} million`]);
  if (card.dataset) {
    const more = [card.training_images && `${whole(card.training_images)} images`, card.epochs && (card.epochs === 1 ? "1 epoch" : `${card.epochs} epochs`), card.weights && `starting from the weights ${card.weights}`];
    rows.push(["Trained on", card.dataset, more.filter(Boolean).join(", ")]);
  }
  if (card.recipe) rows.push(["Based on the recipe", card.recipe]);
  at("facts").replaceChildren(...rows.map(([name, value, more]) => {
    const said = element("dd", "", value);
    if (more) said.append(element("small", "", more));
    return element("div", "", element("dt", "", name), said);
  }));
  at("card").hidden = false;
}

// The answer

function show(answer) {
  at("verdict").classList.remove("waiting");
  at("verdict").textContent = answer.labels ? several(answer.labels) : likeliest(answer);
  at("unknown").hidden = !answer.unknown;
  at("set").hidden = !answer.set || answer.unknown;
  at("set").textContent = `The set of classes for a coverage of 90 %: ${answer.set?.join(", ") || "empty"}.`;
  const given = new Set((answer.labels ?? answer.top.slice(0, 1)).map((one) => one.class));
  const all = [...(answer.labels ?? []), ...answer.top.filter((one) => !answer.labels || !given.has(one.class))];
  at("bars").replaceChildren(...all.map((one) => {
    const fill = element("span", "fill");
    const track = element("span", "track", fill);
    track.setAttribute("aria-hidden", "true");
    // After the first layout, so that the bar grows.
    requestAnimationFrame(() => fill.style.setProperty("--share", `${100 * one.probability}%`));
    const below = answer.labels && !given.has(one.class) ? `, below ${percent(one.threshold, 0)}` : "";
    return element("li", given.has(one.class) ? "bar given" : "bar",
      element("span", "name", one.class), element("span", "share", percent(one.probability) + below), track);
  }));
}

function several(labels) {
  return labels.length ? `${labels.map((one) => one.class).join(", ")}.` : "None of its labels.";
}

function likeliest(answer) {
  const [best] = answer.top;
  const certainty = { sure: "Sure", "fairly sure": "Fairly sure", unsure: "Unsure" }[answer.certainty];
  const hint = answer.certainty === "unsure" && model.explains ? ": look at the map" : "";
  return answer.certainty === "unsure" ? `${certainty}${hint}. Perhaps ${best.class}.` : `${certainty}: ${best.class}.`;
}

function waiting(words) {
  at("verdict").classList.add("waiting");
  at("verdict").textContent = words;
  at("bars").replaceChildren();
  at("unknown").hidden = at("set").hidden = true;
}

async function take(blob) {
  problem("");
  const types = model?.limits.types ?? [];
  if (!model) return problem("The model is still being loaded: try again in a moment.");
  if (!types.includes(blob.type)) return problem("This is not a PNG, JPEG or WebP picture.");
  if (blob.size > model.limits.bytes)
    return problem(`This picture has ${(blob.size / 1e6).toFixed(1)} MB; ${model.limits.bytes / 1e6} MB are the most: take a smaller one, or start the service with a larger --max-bytes.`);
  current?.stop.abort();
  mapping?.abort();
  overlay.hidden = true;
  current = { blob, stop: new AbortController() };
  const mine = current;
  waiting("Looking …");
  at("looks").hidden = true;
  try {
    const answer = await post(model.has_sets ? "api/predict?coverage=90" : "api/predict", blob, mine.stop.signal);
    await display(blob);
    if (mine !== current) return;
    show(answer);
    at("looks").hidden = !at("methods").querySelector("input");
    map();
  } catch (error) {
    if (error.name === "AbortError" || mine !== current) return;
    current = null;
    picture.hidden = true;
    at("drop").hidden = false;
    at("again").hidden = true;
    document.body.classList.remove("asked");
    waiting("Nothing yet.");
    problem(friendly(error));
  }
}

async function display(blob) {
  const last = image.src;
  image.src = URL.createObjectURL(blob);
  if (last.startsWith("blob:")) URL.revokeObjectURL(last);
  await image.decode();
  picture.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  image.classList.toggle("small", image.naturalWidth < 160);
  at("drop").hidden = true;
  picture.hidden = false;
  at("again").hidden = false;
  document.body.classList.add("asked");
}

// The map

function methods() {
  const legend = at("methods").querySelector("legend");
  at("methods").replaceChildren(legend, ...model.methods.map(({ name, faithful }, place) => {
    const radio = element("input");
    Object.assign(radio, { type: "radio", name: "method", value: name, checked: !place });
    radio.addEventListener("change", map);
    const words = name.replaceAll("-", " ") + (faithful ? " ✓" : "");
    return element("label", `method${faithful === false ? " doubtful" : ""}`, radio, element("span", "", words));
  }));
  at("looks").hidden = !current || !model.methods.length || picture.hidden;
  if (!at("looks").hidden) map();
}

async function map() {
  const chosen = at("methods").querySelector("input:checked")?.value;
  if (!current || !chosen) return;
  mapping?.abort();
  const mine = (mapping = new AbortController());
  const { shows, faithful } = model.methods.find(({ name }) => name === chosen);
  at("shows").textContent = "Drawing the map …";
  try {
    const found = await post(`api/explain?method=${encodeURIComponent(chosen)}`, current.blob, mine.signal);
    if (mine !== mapping) return;
    draw(found.map);
    at("shows").textContent = `${shows} Here for ${found.class}, most at the ${place(found.map)}. ${tested(faithful)}`;
  } catch (error) {
    if (error.name === "AbortError" || mine !== mapping) return;
    overlay.hidden = true;
    at("shows").textContent = friendly(error);
  }
}

// What the command vitlab explain has found out about a method's maps.
function tested(faithful) {
  if (faithful === true) return "✓ Tested: on average what it marks decides the answer more than random places or the centre do.";
  if (faithful === false) return "Tested, and not passed: what it marks may not be what the answer rests on.";
  return "Not tested yet: the command vitlab explain, given this model, finds out whether such maps are true.";
}

// Where a map is brightest, for whoever does not see it.
function place(rows) {
  const values = rows.flat(), peak = values.indexOf(Math.max(...values));
  const third = (part, whole) => Math.floor((3 * (part + 0.5)) / whole);
  const row = ["top", "middle", "bottom"][third(Math.floor(peak / rows[0].length), rows.length)];
  const column = ["left", "centre", "right"][third(peak % rows[0].length, rows[0].length)];
  return row === "middle" && column === "centre" ? "centre" : `${row} ${column}`;
}

function draw(rows) {
  const height = rows.length, width = rows[0].length;
  const pixels = new ImageData(width, height);
  rows.flat().forEach((value, place) => {
    const along = value * (RAMP.length - 1), low = Math.min(Math.floor(along), RAMP.length - 2);
    for (let part = 0; part < 3; part++)
      pixels.data[4 * place + part] = RAMP[low][part] + (along - low) * (RAMP[low + 1][part] - RAMP[low][part]);
    pixels.data[4 * place + 3] = 255;
  });
  overlay.width = width;
  overlay.height = height;
  overlay.getContext("2d").putImageData(pixels, 0, 0);
  lay();
  overlay.hidden = false;
}

// The map covers what the model sees: all of the picture where that is stretched, more where it is
// padded, less where it is cropped.
function lay() {
  const [seenHeight, seenWidth] = model.image_size;
  const across = image.naturalWidth / seenWidth, down = image.naturalHeight / seenHeight;
  const scale = model.fit === "pad" ? Math.max(across, down) : Math.min(across, down);
  const width = model.fit === "stretch" ? 1 : scale / across;
  const height = model.fit === "stretch" ? 1 : scale / down;
  const style = { width, height, left: (1 - width) / 2, top: (1 - height) / 2 };
  for (const [name, share] of Object.entries(style)) overlay.style[name] = `${100 * share}%`;
}

function opacity() {
  overlay.style.opacity = strength.value / 100;
  at("strength-number").textContent = `${strength.value} %`;
}

// What people do

file.addEventListener("change", () => {
  if (file.files.length) take(file.files[0]);
  file.value = "";
});
at("another").addEventListener("click", () => file.click());
strength.addEventListener("input", opacity);
for (const name of ["dragenter", "dragover"])
  addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const dropped = event.dataTransfer.files[0];
  if (dropped) take(dropped);
  else problem("Drop a picture file.");
});
addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (pasted) take(pasted);
});

opacity();
meet();
