// The page: choices, images, walk, code, card and metrics.

const $ = id => document.getElementById(id);
const PIXELS_AT_ONCE = 4_000_000; // values of one request; keeps the page quick
const CHOICE_DELAY_MS = 120, METRICS_EVERY_MS = 2000, RATES = 60;

const state = {
  info: null, generator: null, versions: [],
  batch: null, // {n, chosen, seed, scaling, labels, seeds, call, images}
  ends: [0, 1], // positions in the batch between which the walk goes; the last one was chosen last
  trail: null, // {first, last, steps, scaling, call, images}
  code: "python",
};

// --- words

function nameOf(label) {
  const name = label === undefined ? undefined : state.generator.classes[label];
  return name === undefined ? "image" : /^\d$/.test(name) ? `digit ${name}` : `class ${name}`;
}
const addressOf = ({label, seed}) => `${nameOf(label)}, row seed ${seed}`;
const spaced = number => number.toLocaleString("en-US").replaceAll(",", "\u202f");
const plural = (n, word) => `${spaced(n)} ${word}${n === 1 ? "" : "s"}`;

function say(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

/** Run a step. Show its error, unless a newer step has replaced it. */
const controllers = {};
let running = 0;
async function attempt(kind, step) {
  controllers[kind]?.abort();
  const {signal} = controllers[kind] = new AbortController();
  running++;
  showBusy();
  try {
    await step(signal);
    if (!signal.aborted) say(null);
    return !signal.aborted;
  } catch (error) {
    if (signal.aborted) return false;
    if (!(error instanceof Refused)) console.error(error);
    say(error instanceof Refused ? error : new Error(`The server sent something unexpected (${error.message}). Is it TensorFlow Serving, or digitforge serve?`));
    return false;
  } finally {
    running--;
    showBusy();
  }
}

/** Tell screen readers whether what the page shows is about to change. */
function showBusy() {
  $("main").setAttribute("aria-busy", running > 0 || waiting > 0);
}

// --- pictures

function paint(canvas, image, [height, width, channels]) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(imageData(image, height, width, channels), 0, 0);
}

function imageData(image, height, width, channels) {
  const data = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let color = 0; color < 3; color++) data.data[4 * pixel + color] = image[channels * pixel + (channels >= 3 ? color : 0)];
    data.data[4 * pixel + 3] = 255;
  }
  return data;
}

/** One picture of all images, like `digitforge sample --format png`. */
function contactSheet(images, [height, width, channels]) {
  const n = images.length, columns = Math.min(n, 10 * Math.ceil(Math.sqrt(n) / 10)), rows = Math.ceil(n / columns);
  const canvas = Object.assign(document.createElement("canvas"), {width: columns * (width + 1) - 1, height: rows * (height + 1) - 1});
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);
  images.forEach((image, i) => context.putImageData(imageData(image, height, width, channels), i % columns * (width + 1), Math.floor(i / columns) * (height + 1)));
  return canvas;
}

// --- models

async function start() {
  await attempt("model", async () => {
    state.info = await askJson("page.json");
    if (!state.info.models.length) throw new Refused(0, "The server has no model yet. Reload this page when it has loaded one.");
    fill($("model"), state.info.models, remembered.get("model"));
    $("target").value = `${state.info.grpc_host ?? location.hostname}:${state.info.grpc_port}`;
  }) && await chooseModel();
}

function fill(select, values, wanted) {
  select.replaceChildren(...values.map(value => new Option(value, value)));
  if (values.includes(wanted)) select.value = wanted;
}

async function chooseModel(wantedVersion = remembered.get("version")) {
  await attempt("model", async signal => {
    const name = $("model").value;
    for (const step of ["draw", "walk"]) controllers[step]?.abort();
    state.generator = null;
    state.versions = await servedVersions(name);
    if (signal.aborted) return;
    if (!state.versions.length) throw new Refused(0, `Model ${name} has no version that serves now. Reload this page when the server has loaded one.`);
    fill($("version"), state.versions, wantedVersion);
    const generator = await describeGenerator(name, $("version").value);
    if (!signal.aborted) showGenerator(generator);
  });
  const usable = Boolean(state.generator);
  $("main").hidden = !usable;
  if (usable) await draw();
  await showMetrics();
}

function showGenerator(generator) {
  const {classes, shape, id} = state.generator = generator;
  const size = `${shape[0]}×${shape[1]}${shape[2] === 1 ? " gray" : shape[2] === 3 ? " color" : ` with ${shape[2]} channels`}`;
  $("about").textContent = `Synthetic ${size} images from generator ${id}`;
  document.documentElement.style.setProperty("--tile", `${Math.min(Math.max(2 * shape[1], 60), 160)}px`);
  const wanted = remembered.get("classes")?.split(",");
  $("classes").replaceChildren(...classes.map((name, number) => {
    const label = document.createElement("label"), box = document.createElement("input"), shown = document.createElement("span");
    Object.assign(box, {type: "checkbox", value: number, checked: !wanted || wanted.includes(String(number))});
    shown.textContent = name;
    label.append(box, shown);
    return label;
  }));
  $("classes-field").hidden = !classes.length;
  const most = Math.max(1, Math.min(generator.maxRows, Math.floor(PIXELS_AT_ONCE / generator.pixels)));
  $("count").max = most;
  if ($("count").value > most) $("count").value = most;
  $("count-hint").textContent = `1 to ${spaced(most)}${classes.length ? ", with the chosen classes in turn" : ""}.`;
  $("scaling-field").disabled = !generator.usesLatents;
  if (!generator.usesLatents) document.querySelector("[name=scaling][value='']").checked = true;
  $("walk").hidden = !generator.usesLatents;
  $("subject").querySelector("[value=walk]").disabled = !generator.usesLatents;
  if (!generator.usesLatents) $("subject").value = "digits";
  showScaling();
  showCard();
}

function showCard() {
  const {card, version, classes, distribution, shape} = state.generator;
  const training = card.training_data ?? {};
  const entries = {
    Generator: state.generator.id, Version: version, Recipe: card.recipe, Images: shape.join(" × "),
    Classes: classes.length ? classes.join(", ") : "none (unconditional)",
    Latents: card.latent_size === undefined ? undefined : `${card.latent_size} numbers, ${distribution}`,
    "Trained on": [training.name, training.split, training.images && plural(training.images, "image")].filter(Boolean).join(", "),
    "Images seen": card.images_seen === undefined ? undefined : spaced(card.images_seen), "Training seed": card.seed,
    Libraries: Object.entries(card.libraries ?? {}).map(pair => pair.join(" ")).join(", "),
  };
  definitions($("card"), entries);
  const metrics = Object.entries(card.metrics ?? {});
  $("card-metrics").replaceChildren();
  $("card-metrics").hidden = !metrics.length;
  if (metrics.length) {
    const table = document.createElement("table");
    table.createTHead().innerHTML = "<tr><th scope=col>Metric at export</th><th scope=col>Value</th><th scope=col>n</th></tr>";
    const body = table.createTBody();
    for (const [name, {value, n}] of metrics) {
      const row = body.insertRow(), head = document.createElement("th");
      Object.assign(head, {scope: "row", textContent: name});
      row.append(head);
      row.insertCell().textContent = typeof value === "number" ? Number(value.toPrecision(4)) : String(value);
      row.insertCell().textContent = n === undefined ? "" : spaced(n);
    }
    $("card-metrics").append(table);
  }
  $("card-json").textContent = JSON.stringify(card, null, 2);
}

function definitions(list, entries) {
  list.replaceChildren(...Object.entries(entries).filter(([, value]) => value !== undefined && value !== "").flatMap(([name, value]) =>
    [Object.assign(document.createElement("dt"), {textContent: name}), Object.assign(document.createElement("dd"), {textContent: value})]));
}

// --- choices

function showScaling() {
  const name = document.querySelector("[name=scaling]:checked").value, amount = $("amount");
  const bounded = name === "truncation" && state.generator.distribution !== "normal"; // uniform latents end at 1
  Object.assign(amount, {min: 0.05, max: bounded ? 1 : 3, step: 0.05});
  if (amount.dataset.name !== name) {
    amount.value = remembered.get(name) ?? (name === "expansion" ? 1.2 : bounded ? 0.5 : 1);
    amount.dataset.name = name;
  }
  $("amount-field").hidden = !name;
  $("amount-label").textContent = name === "truncation" ? "Largest absolute value" : "Factor";
  $("amount-shown").textContent = amount.value;
  $("scaling-hint").textContent = !state.generator.usesLatents ? "This generator lacks the signatures latents and from_latents, so it cannot truncate, expand or walk."
    : name === "truncation" ? "A smaller value gives more typical images and less variety."
    : name === "expansion" ? "A larger factor gives more unusual images, and more that do not look like their class."
    : "Truncation gives more typical images, expansion more unusual ones.";
}

/** Read the choices. Throws Refused with a text for people. */
function readChoices() {
  const {classes} = state.generator;
  const chosen = classes.length ? Array.from($("classes").querySelectorAll(":checked"), box => Number(box.value)) : null;
  if (chosen && !chosen.length) throw new Refused(0, "No class is chosen. Choose at least one.");
  for (const [id, name] of [["count", "The number of images"], ["seed", "The seed"]])
    if (!$(id).validity.valid) throw new Refused(0, `${name} must be a whole number from ${spaced(Number($(id).min))} to ${spaced(Number($(id).max))}.`);
  const n = Number($("count").value), seed = Number($("seed").value), name = document.querySelector("[name=scaling]:checked").value;
  return {n, seed, chosen, scaling: name ? {name, amount: Number($("amount").value)} : null};
}

/** The address of the page contains the choices, so a bookmark or a reload shows the same images. */
const remembered = new URLSearchParams(location.hash.slice(1));
for (const id of ["seed", "count"]) if (remembered.has(id)) $(id).value = remembered.get(id);
for (const name of ["truncation", "expansion"]) if (remembered.has(name)) document.querySelector(`[name=scaling][value=${name}]`).checked = true;

function remember({n, seed, chosen, scaling}) {
  const {name, version, classes} = state.generator;
  const kept = {
    ...state.info.models.length > 1 && {model: name}, ...state.versions.length > 1 && {version},
    ...chosen && chosen.length < classes.length && {classes: chosen.join(",")}, count: n, seed, ...scaling && {[scaling.name]: scaling.amount},
  };
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

// --- images

let waiting = 0;
async function draw() {
  waiting = 0;
  $("digits").classList.add("stale");
  const drawn = await attempt("draw", async signal => {
    const choices = readChoices(), generator = state.generator, began = performance.now();
    const seeds = rowSeeds(choices.seed, choices.n);
    const labels = choices.chosen && seeds.map((_, row) => choices.chosen[row % choices.chosen.length]);
    const call = await sampleCall(generator, {...choices, labels, seeds}, signal);
    const images = await imagesOf(generator, call, signal);
    if (signal.aborted) return;
    state.batch = {...choices, labels, seeds, call, images};
    state.ends = [0, Math.min(1, choices.n - 1)];
    state.trail = null;
    showImages();
    showCode();
    remember(choices);
    $("status").textContent = `${plural(choices.n, "image")} of seed ${choices.seed} in ${plural(Math.round(performance.now() - began), "millisecond")}.`;
    $("digits").classList.remove("stale");
  });
  if (drawn) return showWalk();
  // The server replaced this version by a newer one.
  if (state.generator && !controllers.draw.signal.aborted && !$("error").hidden && !(await stillServed())) await chooseModel(null);
}

async function stillServed() {
  try {
    return (await servedVersions(state.generator.name)).includes(state.generator.version);
  } catch {
    return true; // the message of the first error stays
  }
}

const rowOf = i => ({label: state.batch.labels?.[i], seed: state.batch.seeds[i]});

function showImages() {
  $("digits").replaceChildren(...state.batch.images.map((image, i) => {
    const tile = document.createElement("div"), canvas = document.createElement("canvas"), caption = document.createElement("span");
    const row = rowOf(i), name = addressOf(row);
    paint(canvas, image, state.generator.shape);
    caption.textContent = row.label === undefined ? i : state.generator.classes[row.label];
    Object.assign(tile, {className: "tile", role: "option", tabIndex: i ? -1 : 0, title: name});
    tile.setAttribute("aria-label", name);
    tile.append(canvas, caption);
    return tile;
  }));
  showEnds();
}

function showEnds() {
  const tiles = $("digits").children;
  $("digits").querySelectorAll("b").forEach(mark => mark.remove());
  Array.from(tiles).forEach((tile, i) => tile.setAttribute("aria-selected", state.generator.usesLatents && state.ends.includes(i)));
  if (state.generator.usesLatents) state.ends.forEach((at, end) => tiles[at].append(Object.assign(document.createElement("b"), {textContent: "AB"[end], ariaHidden: "true"})));
}

function setEnds(first, last) {
  if (!state.generator.usesLatents) return;
  state.ends = [first, last];
  showEnds();
  showWalk();
}

const choose = i => i !== state.ends[1] && setEnds(state.ends[1], i);
const tileAt = target => Array.prototype.indexOf.call($("digits").children, target?.closest?.(".tile"));
function focusTile(i) {
  const tiles = Array.from($("digits").children), next = Math.min(Math.max(i, 0), tiles.length - 1);
  tiles.forEach((tile, at) => tile.tabIndex = at === next ? 0 : -1);
  tiles[next].focus();
}

let pressed = -1;
$("digits").addEventListener("pointerdown", event => { pressed = tileAt(event.target); });
$("digits").addEventListener("pointerup", event => {
  const released = tileAt(document.elementFromPoint(event.clientX, event.clientY)), from = pressed;
  pressed = -1;
  if (released < 0 || from < 0) return;
  if (from === released) choose(released);
  else setEnds(from, released);
  focusTile(released);
});
$("digits").addEventListener("keydown", event => {
  const at = tileAt(event.target), tiles = $("digits").children;
  if (at < 0) return;
  const columns = Array.from(tiles).filter(tile => tile.offsetTop === tiles[0].offsetTop).length;
  const next = {ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: tiles.length - 1}[event.key];
  if (event.key === "Enter" || event.key === " ") choose(at);
  else if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  else focusTile(next < 0 || next >= tiles.length ? at : next);
  event.preventDefault();
});

// --- walk

async function showWalk() {
  if (!state.generator.usesLatents) return showCode();
  const [first, last] = state.ends.map(rowOf), steps = Number($("steps").value), {scaling} = state.batch, generator = state.generator;
  await attempt("walk", async signal => {
    const call = await walkCall(generator, first, last, steps, scaling, signal);
    const images = await imagesOf(generator, call, signal);
    if (signal.aborted) return;
    state.trail = {first, last, steps, scaling, call, images};
    [["walk-first", first, 0, "A"], ["walk-last", last, steps - 1, "B"]].forEach(([id, row, at, letter]) => {
      paint($(id), state.trail.images[at], generator.shape);
      $(id).setAttribute("aria-label", addressOf(row));
      $(`${id}-name`).textContent = `${letter}: ${addressOf(row)}`;
    });
    if (Number($("position").max) !== steps - 1) {
      $("position").max = steps - 1;
      $("position").value = Math.floor(steps / 2);
    }
    showPosition();
    showCode();
  });
}

function showPosition() {
  if (!state.trail) return;
  const {images, steps, first, last} = state.trail, at = Number($("position").value);
  const text = `${at + 1} of ${steps}`, where = `step ${text}, from ${nameOf(first.label)} to ${nameOf(last.label)}`;
  paint($("walk-now"), images[at], state.generator.shape);
  $("walk-now").setAttribute("aria-label", `Image at ${where}`);
  $("position").setAttribute("aria-valuetext", where);
  $("position-shown").textContent = text;
}

// --- code

function showCode() {
  if (!state.batch) return;
  const of = $("subject").value === "walk" ? state.trail : state.batch;
  if (!of) return; // a newer walk is on its way
  const {generator, info} = state;
  $("code").textContent = SNIPPETS[state.code]({...of, generator, pinned: state.versions.length > 1, target: $("target").value.trim(), tls: info.grpc_tls});
  $("code-hint").textContent = state.code === "curl" ? "The reply is JSON: the images as nested lists of gray levels or colors, 0 to 255."
    : "The Python and gRPC code use the server's gRPC port. Change the address if another name reaches it from your machine.";
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => chooseTab(tab));
  tab.addEventListener("keydown", event => {
    const tabs = Array.from(document.querySelectorAll("[role=tab]")), at = tabs.indexOf(tab);
    const next = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1}[event.key];
    if (next === undefined) return;
    event.preventDefault();
    chooseTab(tabs[(next + tabs.length) % tabs.length]);
    document.querySelector("[role=tab][aria-selected=true]").focus();
  });
}

function chooseTab(chosen) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
  }
  $("code").setAttribute("aria-labelledby", chosen.id);
  state.code = chosen.dataset.code;
  showCode();
}

async function copyCode() {
  const text = $("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // only secure pages have a clipboard
    getSelection().selectAllChildren($("code"));
    if (!document.execCommand("copy")) {
      $("status").textContent = "The browser does not allow copying. The code is selected; press Ctrl+C.";
      return;
    }
    getSelection().removeAllRanges();
  }
  $("status").textContent = "The code is copied.";
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
}

// --- files

const fileName = ending => `${state.generator.name}-seed-${state.batch.seed}-n-${state.batch.n}.${ending}`.replace(/[^\w.-]+/g, "_");

function savePng() {
  contactSheet(state.batch.images, state.generator.shape).toBlob(blob => save(blob, fileName("png")), "image/png");
}

/** An archive like that of `digitforge sample`. */
function saveNpz() {
  const {images, labels, seeds, scaling} = state.batch, {classes, shape: [height, width, channels]} = state.generator;
  const shape = [images.length, height, width, ...channels === 1 ? [] : [channels]];
  const files = {
    "x.npy": npy("|u1", shape, joined(images)), "y.npy": npyIntegers(labels ?? seeds.map(() => -1)), "seeds.npy": npyIntegers(seeds),
    "generator_id.npy": npyText(state.generator.id), ...classes.length && {"class_names.npy": npyTexts(classes)}, ...scaling && {[`${scaling.name}.npy`]: npyNumber(scaling.amount)},
  };
  save(new Blob([zip(files)], {type: "application/zip"}), fileName("npz"));
}

// --- metrics

let rates = [], lastSummary = null;

async function showMetrics() {
  clearTimeout(showMetrics.timer);
  const name = $("model").value;
  if (!state.info?.metrics_path || !name) {
    $("live-hint").textContent = "This server publishes no metrics. Start it with --monitoring_config_file and a file that contains: prometheus_config { enable: true }";
    return;
  }
  try {
    const now = performance.now(), summary = summarize(parseMetrics(await ask(state.info.metrics_path)), name);
    if (lastSummary?.name === name && summary.requests >= lastSummary.requests)
      rates = [...rates, (summary.requests - lastSummary.requests) * 1000 / (now - lastSummary.now)].slice(-RATES);
    else rates = [];
    lastSummary = {...summary, name, now};
    showSummary(summary);
  } catch (error) {
    $("live").hidden = true;
    $("live-hint").textContent = error.status === 404
      ? "The server publishes no metrics. Start it with --monitoring_config_file and a file that contains: prometheus_config { enable: true }"
      : `No metrics: ${error.message}`;
    if (error.status === 404) return;
  }
  if (!document.hidden) showMetrics.timer = setTimeout(showMetrics, METRICS_EVERY_MS);
}

function showSummary(summary) {
  const bound = share => {
    const value = bucketQuantile(summary.buckets, share);
    return value === null ? "–" : value === Infinity ? "more than the largest bucket" : `at most ${Number(value.toPrecision(2))} ms`;
  };
  $("live").hidden = false;
  $("live-hint").textContent = "Since the server started; updated every 2 seconds.";
  const now = rates.at(-1) ?? 0, highest = Math.max(1, ...rates);
  $("rate").querySelector("polyline").setAttribute("points", rates.map((rate, i) => `${240 - 240 / (RATES - 1) * (rates.length - 1 - i)},${46 - 44 * rate / highest}`).join(" "));
  $("rate").setAttribute("aria-label", `Requests a second: ${now.toFixed(1)} now, ${highest.toFixed(1)} at most`);
  $("rate-hint").textContent = `${now.toFixed(1)} requests a second; the curve shows the last two minutes`;
  definitions($("live-figures"), {
    Requests: Object.entries(summary.statuses).map(([status, count]) => `${spaced(count)} ${status}`).join(", ") || "none yet",
    "Mean time": summary.answered ? `${Number((summary.microseconds / summary.answered / 1000).toPrecision(3))} ms` : undefined,
    "Half of them": bound(0.5), "99 %": bound(0.99),
  });
}
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(showMetrics.timer) : showMetrics());

// --- controls

function drawSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(draw, CHOICE_DELAY_MS);
  showBusy();
}

$("choices").addEventListener("input", () => { showScaling(); drawSoon(); });
$("choices").addEventListener("submit", event => { event.preventDefault(); draw(); });
for (const [id, checked] of [["all", true], ["none", false]])
  $(id).addEventListener("click", () => {
    for (const box of $("classes").querySelectorAll("input")) box.checked = checked;
    drawSoon();
  });
$("random").addEventListener("click", () => {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS;
  drawSoon();
});
$("model").addEventListener("change", () => { remembered.delete("classes"); chooseModel(null); });
$("version").addEventListener("change", () => chooseModel($("version").value));
$("steps").addEventListener("change", showWalk);
$("position").addEventListener("input", showPosition);
$("subject").addEventListener("change", showCode);
$("target").addEventListener("input", showCode);
$("copy").addEventListener("click", copyCode);
$("save-png").addEventListener("click", savePng);
$("save-npz").addEventListener("click", saveNpz);
start();
