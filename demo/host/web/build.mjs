// Builds the host page into a folder (first argument, or dist): the page, its
// script, the crypto module beside it, and Element Call under ec/.
import { cp, mkdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? path.join(here, "dist"));
const require = createRequire(import.meta.url);
const packages = path.join(here, "node_modules");
const modules = {
  crypto: path.join(packages, "@matrix-org/matrix-sdk-crypto-wasm/pkg"),
  call: path.join(packages, "@element-hq/element-call-embedded/dist"),
};
const wasm = "matrix_sdk_crypto_wasm_bg.wasm";

await rm(out, { recursive: true, force: true });
await mkdir(path.join(out, "pkg"), { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.js" },
  outdir: out,
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  define: { global: "globalThis" },
  // matrix-js-sdk asks for Node's EventEmitter by its bare name.
  alias: { events: require.resolve("events/") },
  legalComments: "linked",
  logLevel: "warning",
});
for (const name of ["index.html", "style.css"]) {
  await cp(path.join(here, "src", name), path.join(out, name));
}
// The crypto package looks for its module in pkg/ beside the script.
await cp(path.join(modules.crypto, wasm), path.join(out, "pkg", wasm));
// Source maps are half of Element Call's size and nobody loads them.
await cp(modules.call, path.join(out, "ec"), {
  recursive: true,
  filter: (file) => !file.endsWith(".map"),
});
