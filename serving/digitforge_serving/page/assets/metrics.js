// Live metrics, from TensorFlow Serving's text for Prometheus.

/** Lines of the text as [{name, labels, value}]. */
function parseMetrics(text) {
  const lines = text.matchAll(/^([^\s{#]+)(?:\{(.*)\})? ([^\s{}]+)(?: \d+)?$/gm);
  return Array.from(lines, ([, name, labels, value]) => ({
    name, value: Number(value),
    labels: Object.fromEntries(Array.from((labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g), ([, key, text]) => [key, text.replace(/\\(.)/g, (_, c) => c === "n" ? "\n" : c)])),
  }));
}

/** What the page shows of one model's metrics. */
function summarize(samples, model) {
  const own = samples.filter(one => one.labels.model_name === model);
  const total = (name, wanted = () => true) => own.filter(one => one.name === name && wanted(one)).reduce((sum, one) => sum + one.value, 0);
  const latency = ":tensorflow:serving:request_latency", buckets = new Map();
  for (const {name, labels, value} of own)
    if (name === `${latency}_bucket`) buckets.set(Number(labels.le.replace("+Inf", "Infinity")), (buckets.get(Number(labels.le.replace("+Inf", "Infinity"))) ?? 0) + value);
  const statuses = {};
  for (const {name, labels, value} of own)
    if (name === ":tensorflow:serving:request_count") statuses[labels.status] = (statuses[labels.status] ?? 0) + value;
  return {
    statuses, requests: Object.values(statuses).reduce((sum, value) => sum + value, 0), answered: total(`${latency}_count`),
    microseconds: total(`${latency}_sum`), buckets: Array.from(buckets).sort(([a], [b]) => a - b),
  };
}

/** The upper bound of the bucket that contains a quantile, in milliseconds. */
function bucketQuantile(buckets, share) {
  const all = buckets.at(-1)?.[1] ?? 0;
  const found = buckets.find(([, count]) => count >= share * all);
  return all && found ? found[0] / 1000 : null;
}
