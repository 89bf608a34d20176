// Mathematics of latents. It follows digitforge_client/latent_space.py, so that both give the same images.

const LOWEST = -9, POINTS = 4001; // the client's table
const ROWS_PER_SEED = 2 ** 32, SEEDS = 2 ** 21;

/** Row seeds of the first n rows of a seed. They stay below 2^53, so numbers hold them exactly. */
function rowSeeds(seed, n) {
  return Array.from({length: n}, (_, row) => seed * ROWS_PER_SEED + row);
}

/** Normal density. */
function density(x) {
  return Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
}

/** Lower tail of the normal distribution for x <= 0, with small relative error. */
function lowerTail(x) {
  const a = -x;
  if (a < 2.5) { // Marsaglia's series: 1/2 − φ(a)·(a + a³/3 + a⁵/15 + …)
    let term = a, sum = a;
    for (let k = 3; Math.abs(term) > 1e-17 * Math.abs(sum); k += 2) sum += term *= a * a / k;
    return 0.5 - density(a) * sum;
  }
  let fraction = a; // Laplace's continued fraction of the Mills ratio
  for (let k = 120; k > 0; k--) fraction = a + k / fraction;
  return density(a) / fraction;
}

/** The x <= 0 with lowerTail(x) = p. Newton's method on the logarithm, which is concave, rises from `start` to x. */
function quantile(p, start) {
  let x = start;
  for (let round = 0; round < 60; round++) {
    const tail = lowerTail(x), step = Math.log(p / tail) * tail / density(x);
    x += step;
    if (!(Math.abs(step) > 1e-14 * Math.max(1, Math.abs(x)))) break;
  }
  return Math.min(x, 0);
}

/** A function that maps a normal component to the truncated normal distribution. */
function truncatedNormal(truncation) {
  const spacing = -LOWEST / (POINTS - 1), beyond = lowerTail(-truncation);
  const values = Float64Array.from({length: POINTS}, (_, i) => {
    const place = LOWEST + i * spacing;
    return i === POINTS - 1 ? 0 : quantile(beyond + lowerTail(place) * (1 - 2 * beyond), Math.max(place, -truncation));
  });
  return component => {
    const at = (-Math.abs(component) - LOWEST) / spacing, low = Math.min(Math.max(Math.floor(at), 0), POINTS - 2);
    const value = values[low] + Math.max(at - low, 0) * (values[low + 1] - values[low]);
    return Math.fround(-Math.sign(component) * value);
  };
}

/** Scale latents. `scaling` is {name: "truncation" | "expansion", amount} or null. */
function scaled(latents, scaling, distribution) {
  if (!scaling) return latents;
  const factor = Math.fround(scaling.amount);
  const change = scaling.name === "truncation" && distribution === "normal"
    ? truncatedNormal(scaling.amount) : component => Math.fround(Math.fround(component) * factor);
  return latents.map(row => row.map(change));
}

/** Interpolate between two latents: normal ones on the great circle, others on a straight line. */
function walk(first, last, steps, distribution) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const lengths = Math.sqrt(dot(first, first)) * Math.sqrt(dot(last, last));
  const angle = distribution === "normal" && lengths
    ? Math.acos(Math.min(Math.max(dot(first, last) / lengths, -1), 1)) : 0;
  return positions(steps).map(t => {
    const circle = Math.sin(angle) > 1e-6;
    const near = circle ? Math.sin((1 - t) * angle) : 1 - t, far = circle ? Math.sin(t * angle) : t;
    return first.map((value, i) => Math.fround((near * value + far * last[i]) / (circle ? Math.sin(angle) : 1)));
  });
}

/** Interpolate class weights between two classes. */
function blend(first, last, steps, classes) {
  return positions(steps).map(t => {
    const weights = new Array(classes).fill(0);
    weights[first] += 1 - t;
    weights[last] += t;
    return weights.map(Math.fround);
  });
}

function positions(steps) {
  return Array.from({length: steps}, (_, i) => i === steps - 1 ? 1 : i * (1 / (steps - 1)));
}
