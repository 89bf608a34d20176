// Requests to the REST API, and what it says about a generator.

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const EXPLANATIONS = {
  404: "The model or the version is not served.", 413: "The request is too large; ask for fewer images.",
  429: "The server is busy; try again.", 502: "The server behind this page cannot be reached.",
  503: "The server is busy, or it is stopping; try again.", 504: "The server took too long; ask for fewer images.",
};

/** Request a document. Throws Refused with a text for people. */
async function ask(path, {body, signal} = {}) {
  let response, text;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST", body: body === undefined ? undefined : JSON.stringify(body),
      headers: body === undefined ? {} : {"Content-Type": "application/json"}, signal, cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Check that it runs, then reload this page.");
  }
  if (response.ok) return text;
  let reason = "";
  try { reason = JSON.parse(text).error ?? ""; } catch { /* TensorFlow Serving answers unknown paths with HTML */ }
  throw new Refused(response.status, [EXPLANATIONS[response.status] ?? `The server refused the request (status ${response.status}).`, reason && `It said: ${reason}`].filter(Boolean).join(" "));
}

const askJson = async (path, options) => JSON.parse(await ask(path, options));

function modelPath(name, version) {
  const encoded = encodeURIComponent(name).replaceAll("'", "%27");
  return `/v1/models/${encoded}${version ? `/versions/${version}` : ""}`;
}

/** Compute a signature. `call` is {path, signature, inputs}. Returns {name: value}, or the value of a single output. */
async function predict(call, signal) {
  const body = {signature_name: call.signature, inputs: call.inputs};
  return (await askJson(`${call.path}:predict`, {body, signal})).outputs;
}

/** Versions of a model that serve now, newest first. Numbers are strings, because they may exceed 2^53. */
async function servedVersions(name) {
  const {model_version_status: states} = await askJson(modelPath(name));
  const served = states.filter(one => one.state === "AVAILABLE").map(one => one.version);
  return served.sort((a, b) => BigInt(b) > BigInt(a) ? 1 : -1);
}

/** Read the metadata and the card of a version. Throws Refused if it is not a generator that this page can use. */
async function describeGenerator(name, version) {
  const path = modelPath(name, version);
  const {metadata} = await askJson(`${path}/metadata`);
  const signatures = metadata.signature_def.signature_def;
  const sample = signatures.serving_default;
  if (!signatures.card || !sample?.inputs?.seeds || !sample?.outputs?.images)
    throw new Refused(0, `Model ${name} is not a digitforge generator: it needs the signatures serving_default (with seeds and images) and card. It has: ${Object.keys(signatures).join(", ")}. The REST API describes them.`);
  const card = JSON.parse((await predict({path, signature: "card", inputs: {rows: [0]}}))[0]);
  if (card.contract_version !== 1)
    throw new Refused(0, `The generator has contract version ${card.contract_version}, but this page needs version 1. Use the digitforge release that exported it.`);
  return {
    name, version, path, card, id: card.generator_id, classes: card.class_names, shape: card.image_shape,
    pixels: card.image_shape.reduce((product, size) => product * size, 1), maxRows: card.max_rows,
    distribution: card.latent_law ?? "normal", usesLatents: Boolean(signatures.latents && signatures.from_latents),
  };
}

const latentsOf = async (generator, seeds, signal) =>
  (await predict({path: generator.path, signature: "latents", inputs: {seeds}}, signal)).map(row => row.map(Math.fround));

// nine digits identify a float32
const written = rows => rows.map(row => row.map(value => Number(value.toPrecision(9))));

/** The call that gives the images of labels and row seeds. Scaled latents need another request first. */
async function sampleCall(generator, {labels, seeds, scaling}, signal) {
  if (!scaling)
    return {path: generator.path, signature: "serving_default", inputs: labels ? {labels, seeds} : {seeds}};
  const latents = scaled(await latentsOf(generator, seeds, signal), scaling, generator.distribution);
  const weights = labels?.map(label => generator.classes.map((_, number) => Number(number === label)));
  return fromLatentsCall(generator, latents, weights);
}

/** The call that gives the images between two images {label, seed}. */
async function walkCall(generator, first, last, steps, scaling, signal) {
  const ends = scaled(await latentsOf(generator, [first.seed, last.seed], signal), scaling, generator.distribution);
  const classes = generator.classes.length;
  return fromLatentsCall(generator, walk(ends[0], ends[1], steps, generator.distribution), classes ? blend(first.label, last.label, steps, classes) : undefined);
}

function fromLatentsCall(generator, latents, weights) {
  const inputs = {latents: written(latents)};
  if (weights) inputs.class_weights = written(weights);
  return {path: generator.path, signature: "from_latents", inputs};
}

/** The images of a call: an array of Uint8Array, H·W·C values each. */
async function imagesOf(generator, call, signal) {
  const outputs = await predict(call, signal);
  const images = outputs.images ?? outputs, rows = Object.values(call.inputs)[0].length;
  if (outputs.valid?.includes(false)) throw new Refused(0, "The generator lacks one of these classes. Reload this page.");
  const flat = images.map(image => Uint8Array.from(image.flat(2)));
  if (flat.length !== rows || flat.some(image => image.length !== generator.pixels))
    throw new Refused(0, `The server sent ${flat.length} images of ${flat[0]?.length ?? 0} values; expected ${rows} of ${generator.pixels}. Reload this page.`);
  return flat;
}
