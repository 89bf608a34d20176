// Code that gives the same images as the page.

/** `what` is {generator, pinned, target, tls, call, n, chosen, seed, scaling} and, for a walk, {first, last, steps}. */
const SNIPPETS = {
  python: what => what.first ? pythonWalk(what) : pythonSample(what),
  curl({call}) {
    const body = JSON.stringify({signature_name: call.signature, inputs: call.inputs});
    return `curl --silent --show-error '${location.origin}${call.path}:predict' \\\n  --header 'Content-Type: application/json' --data-binary @- <<'JSON'\n${body}\nJSON\n`;
  },
  grpc({generator, pinned, target, tls, call, ...what}) {
    const inputs = {...call.inputs};
    const literals = Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, JSON.stringify(value)]));
    if (call.signature === "serving_default") {
      literals.seeds = `[${what.seed} * 2**32 + row for row in range(${what.n})]`;
      if (inputs.labels) literals.labels = cycled(what);
    }
    const dtype = call.signature === "serving_default" ? "tf.int64" : "tf.float32";
    const options = `options=[("grpc.max_receive_message_length", -1)]`;
    return [
      "# pip install tensorflow tensorflow-serving-api",
      ...tls ? ["from pathlib import Path", ""] : [],
      "import grpc", "import tensorflow as tf", "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc", "",
      `request = predict_pb2.PredictRequest()`,
      `request.model_spec.name = ${JSON.stringify(generator.name)}`,
      ...pinned ? [`request.model_spec.version.value = ${generator.version}`] : [],
      `request.model_spec.signature_name = "${call.signature}"`,
      ...Object.entries(literals).map(([name, value]) => `request.inputs["${name}"].CopyFrom(tf.make_tensor_proto(${value}, ${dtype}))`), "",
      tls ? `credentials = grpc.ssl_channel_credentials(Path("ca.pem").read_bytes())  # the server's authority` : "",
      tls ? `with grpc.secure_channel(${JSON.stringify(target)}, credentials, ${options}) as channel:` : `with grpc.insecure_channel(${JSON.stringify(target)}, ${options}) as channel:`,
      `    reply = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)`,
      `images = tf.make_ndarray(reply.outputs["images"])  # (n, height, width, channels) uint8`,
      `print(images.shape)`, "",
    ].join("\n").replace("\n\n\n", "\n\n");
  },
};

function cycled({chosen, n}) {
  const list = `[${chosen.join(", ")}]`;
  return n % chosen.length ? `(${list} * ${Math.ceil(n / chosen.length)})[:${n}]` : `${list} * ${n / chosen.length}`;
}

function clientLine({generator, pinned, target, tls}) {
  const options = [JSON.stringify(target)];
  if (generator.name !== "digits") options.push(`model=${JSON.stringify(generator.name)}`);
  if (pinned) options.push(`version=${generator.version}`);
  if (tls) options.push(`tls=TLS(ca=Path("ca.pem"))`);
  return `with DigitClient(${options.join(", ")}) as client:`;
}

const clientImport = ({tls}) => tls ? ["from pathlib import Path", "", "from digitforge import TLS, DigitClient"] : ["from digitforge import DigitClient"];
const origin = ({generator}) => `# generator ${generator.id}`;

function pythonSample(what) {
  const {generator, chosen, n, seed, scaling} = what;
  const options = [`${n}`];
  if (chosen && chosen.length === 1) options.push(`labels=${chosen[0]}`);
  else if (chosen && chosen.length < generator.classes.length) options.splice(0, 1, `labels=${cycled(what)}`);
  options.push(`seed=${seed}`);
  if (scaling) options.push(`${scaling.name}=${scaling.amount}`);
  return [
    ...clientImport(what), "", clientLine(what), `    batch = client.sample(${options.join(", ")})  ${origin(what)}`, "",
    "print(batch.images.shape, batch.labels, batch.seeds)", "",
  ].join("\n");
}

function pythonWalk(what) {
  const {generator, first, last, steps, scaling} = what;
  const classes = generator.classes.length;
  const end = ({label, seed}) => `(${label ?? -1}, ${seed})`;
  if (!scaling)
    return [
      ...clientImport(what), "", clientLine(what),
      `    images = client.interpolate(${end(first)}, ${end(last)}, steps=${steps})  ${origin(what)}`, "", "print(images.shape)", "",
    ].join("\n");
  const weights = classes ? `, class_weights=blend(${first.label}, ${last.label}, steps=${steps}, classes=${classes})` : "";
  const law = `distribution=${JSON.stringify(generator.distribution)}`;
  return [
    ...clientImport(what), `from digitforge_client.latent_space import Scaling, ${classes ? "blend, " : ""}walk`, "",
    `scaling = Scaling(${scaling.name}=${scaling.amount})`, clientLine(what),
    `    first, last = scaling.scaled(client.latents([${first.seed}, ${last.seed}]), ${law})  ${origin(what)}`,
    `    images = client.from_latents(walk(first, last, steps=${steps}, ${law})${weights})`, "", "print(images.shape)", "",
  ].join("\n");
}
