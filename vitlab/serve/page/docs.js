// The API in words, from its own openapi.json, so that they cannot disagree.

const at = (id) => document.getElementById(id);

function element(kind, name, ...inside) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

// Wherever a proxy has put the service, this file lies beside what it asks for.
const here = (path) => new URL(path, import.meta.url).href;

const list = (items) => element("ul", "", ...items.map((inside) => element("li", "", ...inside)));

function resolve(api, schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.replace("#/", "").split("/").reduce((part, name) => part[name], api);
}

function kind(api, schema) {
  const own = resolve(api, schema);
  if (own.enum) return own.enum.join(", ");
  if (own.const) return own.const;
  if (own.anyOf) return own.anyOf.map((one) => kind(api, one)).join(" or ");
  if (own.type === "array") return `list of ${own.items ? kind(api, own.items) : "two"}`;
  if (own.properties) return `{${Object.keys(own.properties).join(", ")}}`;
  return own.type ?? "anything";
}

function example(method, path, operation) {
  const needed = (operation.parameters ?? []).filter((one) => one.required);
  const query = needed.map((one) => `${one.name}=${one.schema.enum?.[0] ?? ""}`).join("&");
  const address = `${here(`.${path}`)}${query ? `?${query}` : ""}`;
  if (method !== "post") return `curl ${address}`;
  return `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' '${address}'`;
}

function describe(api, path, method, operation) {
  const parts = [
    element("h2", "", `${method.toUpperCase()} ${path}`),
    element("p", "", operation.description ?? operation.summary),
    element("pre", "", example(method, path, operation)),
  ];
  if (operation.requestBody)
    parts.push(element("p", "quiet", `Body: ${operation.requestBody.description}, as ${Object.keys(operation.requestBody.content).join(", ")}.`));
  if (operation.parameters?.length)
    parts.push(element("h3", "", "Parameters"), list(operation.parameters.map((one) => [
      element("code", "", one.name), ` (${kind(api, one.schema)}${one.required ? ", needed" : ""}): ${one.description ?? ""}`,
    ])));
  const right = resolve(api, operation.responses["200"]?.content?.["application/json"]?.schema);
  if (right.properties)
    parts.push(element("h3", "", "Answer"), list(Object.entries(right.properties).map(([name, schema]) => [
      element("code", "", name), ` (${kind(api, schema)})${schema.description ? `: ${schema.description}` : ""}`,
    ])));
  const wrong = Object.entries(operation.responses).filter(([status]) => status !== "200");
  parts.push(element("h3", "", "Errors"), list(wrong.map(([status, one]) => [
    element("code", "", status), ` ${one.description}`,
  ])));
  return element("section", "api", ...parts);
}

const api = await (await fetch(here("openapi.json"))).json();
at("version").textContent = `${api.info.title} ${api.info.version}`;
at("about").textContent = api.info.description;
at("operations").append(...Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => describe(api, path, method, operation))));
